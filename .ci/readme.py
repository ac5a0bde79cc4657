"""Make README.md from nbs/index.ipynb: run it, keep what a reader should see, write Markdown.

python .ci/readme.py            run the notebook in place, write README.md
python .ci/readme.py -o FILE    write FILE instead and leave the notebook as it is
"""

import argparse
import posixpath
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor
from nbdev.clean import nbdev_clean
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "nbs" / "index.ipynb"
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: change that notebook, not this file. -->\n\n"


def run(path: Path) -> nbformat.NotebookNode:
    "The notebook at `path`, executed in its own folder."
    nb = nbformat.read(path, as_version=4)
    quiet = ["--log-level=ERROR"]  # else the kernel warns about its TCP port
    ExecutePreprocessor(timeout=120, kernel_name="python3", extra_arguments=quiet).preprocess(
        nb, {"metadata": {"path": str(path.parent)}}
    )
    return nb


def visible(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "`nb` without its `#| hide` cells, and without the source of its `#| echo: false` cells."
    shown = NBProcessor(nb=nb, process=True).nb
    cells = []
    for cell in shown.cells:
        directives = getattr(cell, "directives_", None) or {}
        if "hide" in directives:
            continue
        keep = nbformat.from_dict({k: v for k, v in cell.items() if not k.endswith("_") and k != "idx"})
        keep.metadata = nbformat.from_dict({"transient": {"remove_source": "echo:" in directives}})
        cells.append(keep)
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def to_markdown(nb: nbformat.NotebookNode) -> str:
    "Markdown of what `nb` shows. Links, relative to nbs/ in the notebook, are relative to the root here."
    text, _ = MarkdownExporter(exclude_input_prompt=True).from_notebook_node(nb)
    text = re.sub(r"\]\((?![a-z]+:|#|/)([^)\s]+)\)", lambda m: f"]({posixpath.normpath('nbs/' + m[1])})", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write here, and leave nbs/index.ipynb as it is")
    args = parser.parse_args()
    nb = run(INDEX)
    if args.output is None:
        nbformat.write(nb, INDEX)
        nbdev_clean(fname=str(INDEX))
    (args.output or ROOT / "README.md").write_text(to_markdown(visible(nb)), encoding="utf-8")


if __name__ == "__main__":
    main()
