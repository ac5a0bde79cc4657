"What the tests share: the clone, a copy of it to change at will, and its notebooks."

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def notebooks(folder: str) -> list[Path]:  # folder below nbs/
    "Paths of the notebooks in `folder`, sorted."
    return sorted((ROOT / "nbs" / folder).glob("*.ipynb"))


def cells(path: Path, kind: str | None = None) -> list[dict]:
    "Cells of the notebook at `path`, all or those of one `kind`; sources joined to one string."
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [dict(c, source="".join(c["source"])) for c in found if kind in (None, c["cell_type"])]


def copy_tree(to: Path) -> Path:  # must not exist
    "Copy the working tree: what git tracks or would track, without what it ignores."
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # a file deleted but not yet committed is listed as well
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


@pytest.fixture
def copy(tmp_path) -> Path:
    "A copy of the clone that a test may change."
    return copy_tree(tmp_path / "copy")
