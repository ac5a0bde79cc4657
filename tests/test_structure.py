"The form of the repository: notebooks and modules agree, layers point downward, outputs are fit to be read."

import ast
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, cells, notebooks

BIN = Path(sys.executable).parent
API, STAGES, TOUR = notebooks("api"), notebooks("stages"), notebooks("tour")
ALL = [*API, *STAGES, *TOUR, *sorted((ROOT / "nbs").glob("*.ipynb"))]
MODULES = {p.stem.split("_", 1)[1]: int(p.stem.split("_", 1)[0]) for p in API}  # name -> number, which is the layer

each_api = pytest.mark.parametrize("path", API, ids=lambda p: p.stem)
each_stage = pytest.mark.parametrize("path", STAGES, ids=lambda p: p.stem)
each_notebook = pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
each_module = pytest.mark.parametrize("name", MODULES)


# --- notebooks and what is generated from them ---------------------------------------------------------------------


def test_modules_are_exactly_what_the_notebooks_export(copy):
    for path in (copy / "spatial_nb").rglob("*.py"):
        path.unlink()
    subprocess.run([BIN / "nbdev_export"], cwd=copy, check=True)
    made = {p.relative_to(copy): p.read_text() for p in (copy / "spatial_nb").rglob("*.py")}
    committed = {p.relative_to(ROOT): p.read_text() for p in (ROOT / "spatial_nb").rglob("*.py")}
    assert sorted(made) == sorted(committed), "a module without a notebook, or the reverse: run nbdev_export"
    assert [str(p) for p in made if made[p] != committed[p]] == [], "edited by hand or not exported: run nbdev_export"


def test_notebooks_are_clean(copy):
    subprocess.run([BIN / "nbdev_clean"], cwd=copy, check=True)
    changed = [p for p in ALL if p.read_bytes() != (copy / p.relative_to(ROOT)).read_bytes()]
    assert [p.name for p in changed] == [], "run nbdev_clean"


@each_notebook
def test_outputs_hold_no_errors_and_no_paths_of_a_machine(path):
    machine = re.compile(r"(?<![\w.~-])/(?:home|root|work|tmp|Users|private|var/folders)/[\w.-]+")
    for cell in cells(path):
        outputs = cell.get("outputs", [])
        assert not [o for o in outputs if o["output_type"] == "error"], f"error saved below: {cell['source'][:80]}"
        # pictures are base64, in which any path may appear by chance
        text = [o.get("text", "") for o in outputs]
        text += [v for o in outputs for k, v in o.get("data", {}).items() if not k.startswith("image/")]
        assert not machine.search(cell["source"] + json.dumps(text)), f"path of a machine in: {cell['source'][:80]}"


@each_notebook
def test_notebook_was_saved_with_outputs(path):
    if path in STAGES and not list((ROOT / "data" / "records").glob(f"*/{path.stem}.json")):
        pytest.skip("not published yet: its outputs come with its record")
    shown = [c for c in cells(path, "code") if not re.search(r"^#\|\s*(export|hide|default_exp)", c["source"], re.M)]
    assert len(shown) <= 4 or any(c["outputs"] for c in shown), "a reader sees no result: run it and save"
    said = [o["data"].get("text/plain", "") for c in shown for o in c["outputs"] if "data" in o]
    assert not [t for t in said if "".join(t).startswith("'skipped: ")], (
        "saved without the reference data: set SPATIAL_NB_DATA"
    )


@each_api
def test_library_notebook_opens_with_its_module_title_and_subtitle(path):
    first, second = cells(path)[:2]
    assert first["source"].strip() == f"#| default_exp {path.stem.split('_', 1)[1]}"
    assert re.match(r"# \S.*\n+> \S.*", second["source"]), "wants `# Title` and `> one-sentence subtitle`"


@each_api
def test_exported_cells_can_be_read_at_a_glance(path):
    exported = [c["source"] for c in cells(path, "code") if re.match(r"#\|\s*export", c["source"])]
    assert [s.splitlines()[1] for s in exported if len(s.splitlines()) > 60] == [], "cells of more than 60 lines"


@each_stage
def test_stage_has_one_parameters_cell_and_exports_nothing(path):
    # papermill injects after the tagged cell: with none, or a second one, the defaults would win without a word
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells(path)) == 1
    assert not [c for c in cells(path, "code") if re.search(r"^#\|\s*(export|default_exp)", c["source"], re.M)]
    assert cells(path)[0]["cell_type"] == "raw" and "skip_exec: true" in cells(path)[0]["source"]


@each_stage
def test_stage_parameters_are_typed_literals_with_a_comment(path):
    [source] = [c["source"] for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        line = lines[statement.end_lineno - 1]
        assert isinstance(statement, ast.AnnAssign), f"wants `name: type = value  # help`: {line}"
        ast.literal_eval(statement.value)
        assert "#" in line[statement.end_col_offset :], f"says not what it is: {line}"


# --- layers -------------------------------------------------------------------------------------------------------


def imported(name: str) -> set[str]:
    "Modules of this package that module `name` imports, inside functions too."
    found = set()
    for node in ast.walk(ast.parse((ROOT / "spatial_nb" / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "spatial_nb":
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("spatial_nb.")):
            found |= {node.module.split(".")[-1]} if node.module else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("spatial_nb.")}
    return found & set(MODULES)


@each_module
def test_imports_point_to_lower_numbers(name):
    assert {m: MODULES[m] for m in imported(name) if MODULES[m] >= MODULES[name]} == {}


@each_module
def test_items_know_no_worlds_and_models_and_recipes_know_no_data(name):
    own = MODULES[name]
    barred = range(10, 20) if own == 20 else range(30, 40) if 40 <= own < 60 else ()
    assert {m for m in imported(name) if MODULES[m] in barred} == set()


def test_worlds_scorers_and_the_runner_import_no_torch():
    light = sorted((m for m in MODULES if not 40 <= MODULES[m] < 60), key=MODULES.get)
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module('spatial_nb.' + name)\n"
        "    if 'torch' in sys.modules: sys.exit(name + ' imports torch')"
    )
    done = subprocess.run([sys.executable, "-c", code, *light], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@each_module
def test_nothing_from_outside_is_executed(name):
    tree = ast.parse((ROOT / "spatial_nb" / f"{name}.py").read_text())
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not calls & {"eval", "exec"}
    assert not {"pickle", "dill", "joblib"} & {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names
    }
    passed = {k.arg: k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords}
    assert "trust_remote_code" not in passed
    for n in ast.walk(tree):
        if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load":
            assert {k.arg: ast.unparse(k.value) for k in n.keywords}.get("weights_only") == "True"


# --- settings that fail silently when they are lost ---------------------------------------------------------------


def test_settings_keep_papermill_tags_and_leave_the_users_home_alone():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    settings = config["DEFAULT"]
    assert "tags" in settings["allowed_cell_metadata_keys"].split()  # else nbdev_clean strips `parameters`
    assert not settings.getboolean("jupyter_hooks")  # else nbdev writes into ~/.jupyter
    assert {"slow", "gpu"} <= set(settings["tst_flags"].split())


def test_large_files_are_only_the_shipped_weights():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    sizes = {n: (ROOT / n).stat().st_size / 1e6 for n in listed.split("\0") if n and (ROOT / n).exists()}
    limits = {"data/detector/": 4, "data/tiny-vlm/": 16, "data/imagery-parent/": 16}
    assert {n: s for n, s in sizes.items() if s > 4 and not n.startswith(tuple(limits))} == {}
    for folder, limit in limits.items():
        assert sum(s for n, s in sizes.items() if n.startswith(folder)) <= limit, f"{folder} has outgrown {limit} MB"


def test_every_weight_file_has_a_card_beside_it():
    weights = sorted((ROOT / "data").rglob("*.safetensors"))
    assert [str(p) for p in weights if not (p.parent / "README.md").exists()] == []
