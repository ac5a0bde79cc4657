"""Core across processes: what is on disk after a kill, what a seed gives elsewhere, where things are found."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import spatial_nb
from spatial_nb.core import (
    Parameter,
    Run,
    append_jsonl,
    atomic,
    content_hash,
    data_root,
    read_jsonl,
    read_record,
    read_text,
    rng,
    root,
    write_json,
)

PACKAGE = Path(spatial_nb.__file__).parent


def python(code: str, *words: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True, **options
    )


def test_a_text_in_another_encoding_is_an_error_that_names_the_file(tmp_path):
    file = tmp_path / "questions.csv"
    file.write_bytes("\ufeffcafé\r\n".encode())
    assert read_text(file) == "café\r\n"
    file.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"questions\.csv is not UTF-8: byte 3 is 0xe9"):
        read_text(file)


# Every item, split and score of the library hangs on these two: whoever changes them changes all published data.


def test_rng_gives_the_numbers_that_it_always_gave():
    assert rng("clevr", "train", 0, 17).integers(0, 100, 5).tolist() == [90, 55, 88, 4, 31]
    assert rng().integers(0, 100, 3).tolist() == rng("").integers(0, 100, 3).tolist()


def test_content_hash_gives_what_it_always_gave():
    assert content_hash("left") == content_hash(b"left") == "360f84035942243c"
    assert content_hash({"shape": "cube", "size": "large"}) == "44e5b9a2e4b2f07a"


def test_rng_and_hash_are_the_same_in_another_process_with_another_hash_seed():
    code = "from spatial_nb.core import *; print(rng('a', 1, None, 0.5).random(), content_hash({'b': {'x'}, 'a': 1}))"
    with python(code, env={**os.environ, "PYTHONHASHSEED": "77"}) as p:
        assert p.stdout.read().split() == [str(rng("a", 1, None, 0.5).random()), content_hash({"b": {"x"}, "a": 1})]


def test_neighbouring_keys_share_no_numbers():
    draws = [tuple(rng("x", seed, i).integers(0, 2**40, 2)) for seed in range(40) for i in range(40)]
    assert len(set(draws)) == len(draws)


def test_a_folder_hashes_by_names_and_contents(tmp_path):
    for name in "ab":
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.txt").write_text("left")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    (tmp_path / "b/sub/x.txt").rename(tmp_path / "b/sub/y.txt")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


# Kills


def test_rows_appended_until_sigkill_are_whole_and_go_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = """import sys; from spatial_nb.core import append_jsonl
for i in range(10**9): append_jsonl(sys.argv[1], {"i": i, "text": "x" * 5000})"""
    with python(code, path) as p:
        while not path.exists() or path.stat().st_size < 200_000:
            time.sleep(0.01)
        os.kill(p.pid, signal.SIGKILL)
    path.write_bytes(path.read_bytes()[:-2500])  # the worst that a kill can do: half a row at the end
    n = len(read_jsonl(path))
    append_jsonl(path, {"i": n, "text": "y"})
    assert [r["i"] for r in read_jsonl(path)] == list(range(n + 1))


def test_a_file_that_is_being_replaced_is_old_or_new_at_every_moment(tmp_path):
    path = write_json(tmp_path / "x.json", {"n": -1, "pad": []})
    code = """import sys; from spatial_nb.core import write_json
for i in range(10**9): write_json(sys.argv[1], {"n": i, "pad": [i] * 5000})"""
    with python(code, path) as p:
        seen = set()
        while len(seen) < 20:
            record = json.loads(path.read_text())
            assert set(record["pad"]) <= {record["n"]}
            seen.add(record["n"])
        os.kill(p.pid, signal.SIGKILL)
    assert json.loads(path.read_text())["n"] >= max(seen)


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("old", "new"):
        with atomic(tmp_path / "model") as aside:
            aside.mkdir()
            (aside / f"{text}.bin").write_text(text)
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "new.bin"]


# Places


def test_root_is_the_clone_around_and_an_error_names_the_way_out(tmp_path, monkeypatch):
    for name in ("SPATIAL_NB_ROOT", "SPATIAL_NB_DATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = spatial_nb\n")
    (tmp_path / "nbs").mkdir()
    monkeypatch.chdir(tmp_path / "nbs")
    assert root() == tmp_path.resolve()
    assert data_root() == tmp_path.resolve() / "data" / "external"
    monkeypatch.setenv("SPATIAL_NB_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere' *, which is not a folder"):
        root()


def test_the_installed_package_finds_its_data_outside_any_clone(tmp_path):
    package = tmp_path / "site" / "spatial_nb"
    (package / "data" / "profiles").mkdir(parents=True)
    (package / "data" / "profiles" / "smoke.yaml").write_text("")
    for name in ("__init__.py", "core.py"):
        shutil.copy(PACKAGE / name, package / name)
    code = """from spatial_nb.core import shipped, root
print(shipped("profiles/smoke.yaml"))
try: root()
except FileNotFoundError as e: print(e)"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SPATIAL_NB")} | {
        "PYTHONPATH": str(tmp_path / "site")
    }
    with python(code, cwd=tmp_path, env=env) as p:
        first, second = p.stdout.read().splitlines()
    assert Path(first) == package / "data/profiles/smoke.yaml"
    assert second.startswith("no clone of spatial_nb around") and "SPATIAL_NB_ROOT" in second


# Parameters and records

PARAMETER_TABLE = [
    ("int", 3.0, 3),
    ("int", "1_000", 1000),
    ("float", 2, 2.0),
    ("float", "1e-4", 1e-4),
    ("bool", "False", False),
    ("str", "12", "12"),
    ("list", "[1, 'a']", [1, "a"]),
    ("list[float]", [1, "2e3"], [1.0, 2000.0]),
    ("dict", {"a": 1}, {"a": 1}),
    ("str | None", "None", None),
    ("int", True, ValueError),
    ("int", "3.5", ValueError),
    ("int", None, ValueError),
    ("float", "nought", ValueError),
    ("float", [1.0], ValueError),
    ("bool", 2, ValueError),
    ("str", 12, ValueError),
    ("list", "1, 2)", ValueError),
    ("list", "[x]", ValueError),
    ("dict", [1], ValueError),
    ("list[int]", [1, 2.5], ValueError),
]


@pytest.mark.parametrize("kind, value, wanted", PARAMETER_TABLE, ids=lambda v: str(getattr(v, "__name__", v)))
def test_a_value_becomes_the_type_that_is_written_there_or_is_refused(kind, value, wanted):
    if wanted is ValueError:
        with pytest.raises(ValueError, match="parameter 'x' is .*, wants"):
            Parameter("x", kind, None).check(value)
    else:
        got = Parameter("x", kind, None).check(value)
        assert got == wanted and type(got) is type(wanted)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_NB_ROOT", str(tmp_path))
    head = 'profile: str = "smoke"\nout: str = "runs/smoke"\nseeds: list = [0, 1]\nteacher: str = ""'
    cells = [{"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [], "source": head}]
    write_json(tmp_path / "nbs/stages/10_a.ipynb", {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return {"profile": "smoke", "out": "runs/smoke", "seeds": [0, 1], "teacher": ""}


def test_keys_and_paths_of_the_machine_are_not_in_the_record(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefgh")
    run = Run("10_a", stage | {"teacher": f"file://{tmp_path}/model?key=sk-abcdefgh"})
    run.note(f"asked with sk-abcdefgh, from {tmp_path}/x and {Path.home()}/y")
    run.finish("done")
    text = (tmp_path / "runs/smoke/records/10_a.json").read_text()
    assert "sk-abcdefgh" not in text and str(tmp_path) not in text and str(Path.home()) not in text
    assert "<OPENAI_API_KEY>" in text


def test_the_record_keeps_what_a_second_run_must_repeat_apart_from_the_rest(stage, tmp_path):
    def once(rate):
        run = Run("10_a", stage)
        run.metric("accuracy", [0.5, 0.75], n=8, chance=0.25)
        run.machine("rate", rate)
        run.finish("half or more")
        return read_record(tmp_path / "runs/smoke/records/10_a.json")

    one, two = once(1.0), once(2.0)
    assert one["machine"] != two["machine"] and one.hash() == two.hash()
    assert {k: v for k, v in one.items() if k != "machine"} == {k: v for k, v in two.items() if k != "machine"}
    metric = one["metrics"]["accuracy"]
    assert (metric["mean"], metric["n"], metric["seeds"], metric["chance"]) == (0.625, 8, [0, 1], 0.25)
    low, high = metric["interval"]
    assert np.isclose(low + high, 1.25) and high > 0.75


def test_figures_are_the_same_bytes_each_time(stage, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")

    def once():
        fig, ax = plt.subplots()
        ax.plot([1, 2], [3, 4])
        run = Run("10_a", stage)
        run.figure("line", fig)
        record = run.finish("drawn")
        assert record["figures"] == {"line": "figures/10_a-line.png"}
        return [p.read_bytes() for p in sorted((tmp_path / "runs/smoke/figures").iterdir())]

    first, second = once(), once()
    assert len(first) == 2 and first == second


def test_rows_of_two_writers_are_all_there(tmp_path):
    code = """import sys; from spatial_nb.core import append_jsonl
for i in range(400): append_jsonl(sys.argv[1], {"who": sys.argv[2], "i": i, "text": "x" * 20000})"""
    writers = [python(code, tmp_path / "log.jsonl", who) for who in "ab"]
    assert [w.wait(100) for w in writers] == [0, 0]
    rows = read_jsonl(tmp_path / "log.jsonl")
    assert {who: [r["i"] for r in rows if r["who"] == who] for who in "ab"} == {w: list(range(400)) for w in "ab"}
