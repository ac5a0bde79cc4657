"The wheel: complete, light, and at home outside the clone."

import ast
import configparser
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from conftest import ROOT, copy_tree, notebooks
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    "The wheel of this clone, built from a copy: building leaves folders behind."
    tmp = tmp_path_factory.mktemp("wheel")
    copy_tree(tmp / "clone")
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", tmp, tmp / "clone"]
    subprocess.run(pip, check=True, cwd=tmp)
    return next(tmp.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    "A folder that holds the unpacked wheel and nothing else."
    target = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def outside(code: str, installed: Path, *args: str) -> subprocess.CompletedProcess:
    "Run `code` against the `installed` package from a folder that is no clone."
    env = {k: v for k, v in os.environ.items() if not k.startswith("SPATIAL_NB_")} | {"PYTHONPATH": str(installed)}
    cwd = installed.parent
    return subprocess.run([sys.executable, "-c", code, *args], cwd=cwd, env=env, capture_output=True, text=True)


def test_wheel_is_named_by_settings(wheel):
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    assert wheel.name == f"spatial_nb-{config['DEFAULT']['version']}-py3-none-any.whl"


def test_wheel_holds_every_module_and_the_shipped_data_but_no_records(wheel):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shipped = re.compile(r"spatial_nb/|data/(detector|tiny-vlm|profiles)/|data/claims\.yaml$")
    wanted = {re.sub("^data/", "spatial_nb/data/", n) for n in listed.split("\0") if shipped.match(n)}
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert wanted - held == set()
    assert {n for n in held if "/records/" in n or n.endswith(".ipynb")} == set()


def base_names() -> set[str]:
    "Top-level modules of the installed packages that the base install brings along."
    names, todo = set(), [Requirement(r) for r in requires("spatial_nb")]
    todo = [r.name for r in todo if not r.marker or r.marker.evaluate({"extra": ""})]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in names:
            continue
        names.add(name)
        for r in map(Requirement, requires(name) or []):
            if not r.marker or r.marker.evaluate({"extra": ""}):
                todo.append(r.name)
    return {m for m, dists in packages_distributions().items() if {canonicalize_name(d) for d in dists} & names}


BASE_ONLY = """
import importlib, sys
from importlib.abc import MetaPathFinder
hidden = set(sys.argv[1].split(","))
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r} in the base install", name=name)
sys.meta_path.insert(0, Absent())
for name in sys.argv[2:]:
    module = importlib.import_module(f"spatial_nb.{name}")
    print(module.__file__)
"""


def test_base_install_imports_worlds_scorers_and_runner_without_the_extras(installed):
    hidden = set(packages_distributions()) - base_names() - {"spatial_nb"}
    numbers = {p.stem.split("_", 1)[1]: int(p.stem[:2]) for p in notebooks("api")}
    light = [m for m, n in numbers.items() if n < 40 or n >= 70]
    done = outside(BASE_ONLY, installed, ",".join(hidden), *light)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    assert all(line.startswith(str(installed)) for line in done.stdout.split()), "imported from the clone"


def test_shipped_data_is_found_outside_the_clone(installed):
    done = outside("from spatial_nb.core import shipped; print(shipped('profiles/smoke.yaml'))", installed)
    assert done.stdout.strip() == str(installed / "spatial_nb/data/profiles/smoke.yaml"), done.stderr


def imported(path: Path) -> set[str]:
    "Top-level names that the module at `path` imports, inside functions too."
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    return {name.split(".")[0] for name in names} - {"spatial_nb"}


def test_every_import_is_declared():
    declared = {canonicalize_name(Requirement(r).name) for r in requires("spatial_nb")}
    owners = packages_distributions()  # has no standard library
    missing = [
        (path.name, top)
        for path in sorted((ROOT / "spatial_nb").glob("*.py"))
        for top in sorted(imported(path) & set(owners))
        if not {canonicalize_name(d) for d in owners[top]} & declared
    ]
    assert missing == [], "not listed in setup.py"


def test_constraints_pin_everything_to_public_releases():
    lines = [s for s in (ROOT / "constraints.txt").read_text().splitlines() if s and not s.startswith("#")]
    odd = [s for s in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ?; .*)?", s)]
    assert odd == [], "wants name==version, without a path, a URL or a local version"
    pinned = {canonicalize_name(s.split("==")[0]) for s in lines}
    assert {canonicalize_name(Requirement(r).name) for r in requires("spatial_nb")} - pinned == set()
