"""The runner, on clones in miniature: what a notebook cannot hold, since it takes processes, kills and a terminal."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from nbformat import v4

import spatial_nb
from spatial_nb import reproduce
from spatial_nb.core import read_json, read_record
from spatial_nb.reproduce import main, plan, published_notebook, reasons

PACKAGE = Path(spatial_nb.__file__).parent
SLOW_STEP = 0.05  # seconds a step takes in the stage that gets killed

PARAMETERS = """profile: str = "smoke"  # name of the profile
out: str = "runs/smoke"  # where results go
seeds: list[int] = [0]  # one run each
steps: int = 3  # how many
lr: float = 1e-4  # peak learning rate"""

FIRST = """from spatial_nb.core import Run, append_jsonl, rng
from spatial_nb.helper import twice
run = Run("00_first", globals(), reads=["words.txt"], minutes={"smoke": 0.1}, disk_mb={"smoke": 1})"""

WORK = """import time
from spatial_nb.core import progress, read_jsonl
rows = run.dir / "rows.jsonl"
done = len(read_jsonl(rows)) if rows.exists() else 0
for i in progress(range(done, steps), "making rows"):
    time.sleep(SLEEP)
    append_jsonl(rows, {"id": i, "value": twice(rng("row", i).random()), "seconds": time.perf_counter()})"""

END = """import sys
print("careful", file=sys.stderr)
values = [r["value"] for r in read_jsonl(rows)]
run.metric("value", sum(values) / len(values), n=len(values))
run.count("rows", len(values))
run.completions("rows", rows)
run.finish(f"{len(values)} rows with lr {lr}")"""

LAST = """from spatial_nb.core import Run
run = Run("90_last", globals(), needs=["*"])
run.metric("of first", run.records()["00_first"]["metrics"]["value"]["mean"])
run.finish(f"{len(run.records())} records")"""

OTHER = """from spatial_nb.core import Run
run = Run("10_other", globals())
run.metric("one", 1.0)
run.finish("one is one")"""


def notebook(path: Path, *cells: str) -> None:
    made = [v4.new_raw_cell("---\nskip_exec: true\n---"), v4.new_markdown_cell("# A claim")]
    made += [v4.new_code_cell(c) for c in (PARAMETERS, *cells)]
    made[2].metadata["tags"] = ["parameters"]
    for i, cell in enumerate(made):
        cell["id"] = f"{path.stem[:2]}-{i}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = v4.new_notebook(
        cells=made, metadata={"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    )
    path.write_text(json.dumps(nb), encoding="utf-8")


def first(root: Path, sleep: float = 0.0, work: str = WORK) -> None:
    notebook(root / "nbs/stages/00_first.ipynb", FIRST, work.replace("SLEEP", str(sleep)), END)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    "Three stages: 90_last needs both others; 00_first imports a module of the package that we may change."
    first(tmp_path)
    notebook(tmp_path / "nbs/stages/10_other.ipynb", OTHER)
    notebook(tmp_path / "nbs/stages/90_last.ipynb", LAST)
    package = tmp_path / "spatial_nb"
    package.mkdir()
    for name in ("__init__.py", "core.py"):
        shutil.copy(PACKAGE / name, package / name)
    (package / "helper.py").write_text("from spatial_nb.base import factor\n\ndef twice(x):\n    return factor() * x\n")
    (package / "base.py").write_text("def factor():\n    return 2\n")
    profiles = tmp_path / "data/profiles"
    profiles.mkdir(parents=True)
    (profiles / "smoke.yaml").write_text("00_first: {steps: 4, lr: 1e-3}\n")
    (profiles / "small.yaml").write_text("# defaults\n")
    (tmp_path / "data/words.txt").write_text("left right\n")
    monkeypatch.setenv("SPATIAL_NB_ROOT", str(tmp_path))
    monkeypatch.delenv("SPATIAL_NB_DATA", raising=False)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch):
    "Stages without papermill: their cells in this process. For what is about receipts, not about kernels."
    ran = []

    def run_notebook(job, title="", keep_work=False):
        ran.append(job.name)
        source, values = read_json(job.stage.path), {}
        try:
            for cell in (c for c in source["cells"] if c["cell_type"] == "code"):
                exec("".join(cell["source"]).replace("spatial_nb.helper", "helper_of_test"), values)
                if "parameters" in cell["metadata"].get("tags", []):
                    values |= job.values
        except ZeroDivisionError as e:
            raise reproduce.StageFailed("3", f"ZeroDivisionError: {e}", "its source") from None
        job.notebook.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(job.stage.path, job.notebook)

    helper = type(sys)("helper_of_test")
    helper.twice = lambda x: 2 * x
    monkeypatch.setitem(sys.modules, "helper_of_test", helper)
    monkeypatch.setattr(reproduce, "run_notebook", run_notebook)
    return ran


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from spatial_nb.reproduce import main; sys.exit(main())", *words]


def comparable(record: dict) -> dict:
    return {k: v for k, v in record.items() if k not in ("machine", "git")}


# What is asked for is checked before anything runs


@pytest.mark.parametrize(
    "words, said",
    [
        (["reproduce", "--profile", "smok"], "no profile 'smok': did you mean 'smoke'?"),
        (["reproduce", "--stage", "00_frist"], "no stage '00_frist': did you mean '00_first'?"),
        (["reproduce", "--set", "setps=4"], "no stage to be run has a parameter 'setps': did you mean 'steps'?"),
        (["reproduce", "--set", "steps=many"], "parameter 'steps' is 'many', wants int (how many)"),
        (["reproduce", "--set", "steps=2.5"], "parameter 'steps' is '2.5', wants int"),
        (["reproduce", "--set", "seeds=[0, 'a']"], "wants list[int]"),
        (["reproduce", "--set", "steps"], "--set 'steps' wants name=value"),
        (["reproduce", "--set", "out=/tmp"], "no parameter 'out'"),
        (["reproduce", "--stage", "90", "--set", "00_first.steps=4"], "no stage '00_first'"),
        (["repoduce"], "no command 'repoduce': did you mean 'reproduce'?"),
        (["status", "--profile", "big"], "no profile 'big'"),
    ],
)
def test_a_wrong_request_is_one_line_and_runs_nothing(clone, in_process, capsys, words, said):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error.replace("'out' is set by --profile", "no parameter 'out'") and error.count("\n") == 1
    assert not in_process and not (clone / "runs").exists()


@pytest.mark.parametrize(
    "text, said",
    [
        ("00_first: {setps: 4}", "smoke.yaml: 00_first: no parameter 'setps': did you mean 'steps'?"),
        ("00_frist: {steps: 4}", "smoke.yaml: no stage '00_frist': did you mean '00_first'?"),
        ("00_first: {steps: four}", "smoke.yaml: 00_first: parameter 'steps' is 'four', wants int"),
        ("00_first: {steps: true}", "wants int"),
        ("00_first: {steps: 4, steps: 5}", "'steps' stands there twice"),
        ("00_first: {steps: 4\n10_other: {}", "smoke.yaml, line 2"),
        ("- 00_first", "smoke.yaml holds list"),
        ("00_first: 4", "00_first is 4"),
    ],
)
def test_a_slip_in_a_profile_file_is_found_before_anything_runs(clone, in_process, capsys, text, said):
    (clone / "data/profiles/smoke.yaml").write_text(text)
    assert main(["reproduce", "--stage", "10"]) == 2
    assert said in capsys.readouterr().err and not in_process


def test_values_have_the_type_of_the_parameters_cell(clone):
    jobs = plan("smoke", ["0", "90"], ["lr=3e-4", "00_first.seeds=[1, 2]"])
    assert [j.name for j in jobs] == ["00_first", "90_last"]
    assert jobs[0].values == {"profile": "smoke", "out": "runs/smoke", "seeds": [1, 2], "steps": 4, "lr": 3e-4}
    assert plan("smoke")[0].values["lr"] == 1e-3  # which YAML alone reads as text


def test_a_stage_without_its_parameters_tag_is_refused(clone, capsys):
    path = clone / "nbs/stages/10_other.ipynb"
    path.write_text(path.read_text().replace('["parameters"]', "[]"))
    assert main(["reproduce"]) == 2
    assert "10_other.ipynb has 0 code cells tagged 'parameters'" in capsys.readouterr().err


def test_dry_run_lists_values_data_and_hours_and_runs_nothing(clone, in_process, capsys):
    assert main(["reproduce", "--dry-run", "--set", "steps=7"]) == 0
    shown = capsys.readouterr().out
    assert "steps = 7" in shown and "words.txt" in shown and "All parameters are valid" in shown and not in_process


# Receipts: what runs again, and what does not


def run(words=()) -> int:
    return main(["reproduce", *words])


def test_nothing_changed_runs_nothing(clone, in_process, capsys):
    assert run() == 0 and in_process == ["00_first", "10_other", "90_last"]
    assert run() == 0 and len(in_process) == 3
    assert "Nothing has changed: 3 of 3 stages are up to date." in capsys.readouterr().out


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    "change, again",
    [
        (lambda c: edit(c / "spatial_nb/base.py", "return 2", "return 2  # why two"), []),
        (lambda c: edit(c / "spatial_nb/base.py", "():\n", '():\n    "The factor."\n'), []),
        (lambda c: edit(c / "nbs/stages/00_first.ipynb", "# A claim", "# Another claim"), []),
        (lambda c: edit(c / "nbs/stages/00_first.ipynb", "peak learning rate", "learning rate at its peak"), []),
        (lambda c: edit(c / "nbs/stages/00_first.ipynb", '\\"smoke\\": 0.1', '\\"smoke\\": 0.3'), []),
        (lambda c: edit(c / "spatial_nb/base.py", "return 2", "return 3"), ["00_first", "90_last"]),
        (lambda c: edit(c / "data/words.txt", "left", "near"), ["00_first", "90_last"]),
        (lambda c: edit(c / "data/profiles/smoke.yaml", "4", "5"), ["00_first", "90_last"]),
        (lambda c: edit(c / "nbs/stages/10_other.ipynb", "one is one", "one is 1"), ["10_other", "90_last"]),
        (lambda c: (c / "runs/smoke/records/10_other.json").unlink(), ["10_other"]),  # made again, and the same
        (lambda c: edit(c / "nbs/stages/90_last.ipynb", " records\\", " of them\\"), ["90_last"]),
    ],
    ids="comment docstring markdown help budget module data profile notebook record last".split(),
)
def test_one_change_runs_that_stage_and_those_after_it(clone, in_process, change, again):
    assert run() == 0
    del in_process[:]
    change(clone)
    assert run() == 0
    assert in_process == again


def test_set_and_force_run_again(clone, in_process):
    assert run() == run(["--set", "00_first.steps=6"]) == 0
    assert in_process[3:] == ["00_first", "90_last"]
    assert run(["--force", "--stage", "10"]) == 0
    assert in_process[5:] == ["10_other"]


def test_a_failed_stage_takes_only_its_dependents_along(clone, in_process, capsys):
    first(clone, work="1 / 0")
    assert run() == 1
    assert in_process == ["00_first", "10_other"]
    shown = capsys.readouterr().out
    assert "skipped: because 00_first failed" in shown and "one is one" in shown
    main(["status"])
    shown = capsys.readouterr().out
    assert "failed in cell 3: ZeroDivisionError" in shown and "never run" in shown and "up to date" in shown
    first(clone)
    assert run() == 0 and in_process[2:] == ["00_first", "90_last"]


def test_a_stage_without_its_shipped_input_is_skipped_and_those_that_do_without_it_run(clone, in_process, capsys):
    edit(clone / "nbs/stages/00_first.ipynb", "words.txt", "weights")
    edit(clone / "nbs/stages/10_other.ipynb", "globals())", "globals(), needs=['00_first'])")
    edit(clone / "nbs/stages/90_last.ipynb", 'run.records()[\\"00_first\\"]', "{'metrics': {'value': {'mean': 1}}}")
    assert run() == 0 and in_process == ["90_last"]
    shown = capsys.readouterr().out
    assert "skipped: data/weights is not there" in shown and "skipped: because data/weights is not there" in shown
    assert run() == 0 and "Nothing has changed: 1 of 3 stages are up to date." in capsys.readouterr().out
    (clone / "data/weights").write_text("here they are")
    assert run() == 0 and in_process[1:] == ["00_first", "10_other", "90_last"]


def test_status_and_second_run_import_no_torch_and_no_papermill_in_under_five_seconds(clone, in_process):
    assert run() == 0
    code = """import sys; from spatial_nb.reproduce import main
assert main(["reproduce"]) == 0 and main(["status"]) == 0
print(sorted({"torch", "transformers", "papermill", "trl", "datasets", "jax"} & set(sys.modules)))"""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]") and "Nothing has changed" in done.stdout
    assert time.time() - began < 5


@contextmanager
def another_process_holds(lock: Path):
    held = """import os, sys, time; from spatial_nb.core import hold
lock = hold(sys.argv[1], "x"); print(os.getpid(), flush=True); time.sleep(30)"""
    with subprocess.Popen([sys.executable, "-c", held, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        yield other.stdout.readline().strip()
        other.kill()


def test_two_runs_on_one_profile_the_second_says_so(clone, in_process, capsys):
    with another_process_holds(clone / "runs/smoke/.lock") as pid:
        code = run()
    assert code == 1 and f"the profile smoke is being run by process {pid}" in capsys.readouterr().err
    assert run() == 0  # a killed process holds no lock


def test_status_says_what_another_process_runs(clone, in_process, capsys):
    with another_process_holds(clone / "runs/smoke/work/.10_other.lock") as pid:
        main(["status"])
    assert f"running (process {pid})" in capsys.readouterr().out
    main(["status"])
    assert "running" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_broken_receipt_or_record_is_a_reason_to_run_again(clone, in_process, capsys, text):
    assert run(["--profile", "small"]) == 0
    for broken in ("runs/small/receipts/10_other.json", "data/records/small/00_first.json"):
        (clone / broken).write_text(text)
    capsys.readouterr()
    assert main(["status", "--profile", "small"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "10_other.json cannot be read" in shown and "00_first.json" in shown
    assert run(["--profile", "small"]) == 0 and in_process[3:] == ["10_other"]
    (clone / "runs/small/records/10_other.json").write_text(text)
    assert run(["--profile", "small"]) == 0 and in_process[4:] == ["10_other"]


# Publishing


def test_small_publishes_and_values_set_by_hand_do_not(clone, in_process, monkeypatch):
    monkeypatch.setenv("TEACHER_API_KEY", "sk-0123456789")
    assert run(["--profile", "small", "--set", "steps=2"]) == 0
    assert not (clone / "data/records").exists()
    assert run(["--profile", "small"]) == 0
    place = clone / "data/records/small"
    assert sorted(p.name for p in place.glob("*.json")) == ["00_first.json", "10_other.json", "90_last.json"]
    packed = place / read_record(place / "00_first.json")["completions"]["rows"]["path"]
    assert len(gzip.decompress(packed.read_bytes()).splitlines()) == 3
    before = {p: p.read_bytes() for p in [*place.rglob("*.*"), *clone.glob("nbs/stages/*")]}
    assert run(["--profile", "small", "--force"]) == 0
    assert packed.read_bytes() == before[packed]
    assert "sk-0123456789" not in "".join(p.read_text() for p in place.glob("*.json"))


def test_status_says_that_a_published_record_is_stale(clone, in_process, capsys):
    assert run(["--profile", "small"]) == 0
    edit(clone / "spatial_nb/base.py", "return 2", "return 3")
    capsys.readouterr()
    assert main(["status", "--profile", "small"]) == 0
    shown = capsys.readouterr().out
    assert "stale: code spatial_nb.base" in shown and "current" in shown


def test_a_secret_parameter_is_refused(clone, in_process, capsys):
    edit(clone / "nbs/stages/10_other.ipynb", "lr: float = 1e-4", "api_key: str = 'sk-1'")
    with pytest.raises(ValueError, match="looks like a secret"):
        reproduce.reproduce("smoke", ["10"])


# With papermill and kernels


def test_stages_run_by_papermill_tell_what_was_passed_and_publish_clean(clone, capsys):
    assert main(["reproduce", "--stage", "00", "--set", "steps=2", "--publish"]) == 0
    assert "runs/smoke/notebooks/00_first.ipynb" in capsys.readouterr().out
    record = read_record(clone / "runs/smoke/records/00_first.json")
    assert record["parameters"] == {"profile": "smoke", "out": "runs/smoke", "seeds": [0], "steps": 2, "lr": 1e-3}
    assert record["passed"] == ["steps", "lr"] and record["counts"] == {"rows": 2}
    assert {"seconds", "peak_memory_mb", "device", "cores", "started"} <= set(record["machine"])
    assert set(record["code"]) == {"notebook", "spatial_nb.core", "spatial_nb.helper", "spatial_nb.base"}
    assert str(clone) not in json.dumps(record)
    path = clone / "nbs/stages/00_first.ipynb"
    cells = read_json(path)["cells"]
    assert [c["id"] for c in cells] == [f"00-{i}" for i in range(6)]
    assert "2 rows with lr 0.001" in json.dumps(cells[-1]["outputs"]) and "stderr" not in json.dumps(
        cells[-1]["outputs"]
    )
    text = path.read_text()
    assert "papermill" not in text and "injected" not in text and str(clone) not in text
    from nbdev.clean import clean_nb

    nb = json.loads(text)
    clean_nb(nb, allowed_cell_metadata_keys=["tags"])
    assert json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + "\n" == text
    assert not reasons(plan("smoke", ["00"], ["steps=2"])[0])  # outputs beside the cells are no change of code
    assert published_notebook(path, clone / "runs/smoke/notebooks/00_first.ipynb") == text


def test_a_failing_cell_is_shown_with_its_error_and_notebook(clone, capsys):
    first(clone, work="sizes = {'large': 0.7}\nsizes['huge']")
    assert main(["reproduce", "--stage", "00"]) == 1
    shown = capsys.readouterr().out
    assert "failed in cell 5 of 6" in shown and "sizes = {'large': 0.7}" in shown and "KeyError: 'huge'" in shown
    partial = clone / "runs/smoke/notebooks/00_first.partial.ipynb"
    assert "runs/smoke/notebooks/00_first.partial.ipynb" in shown and partial.is_file()
    assert not (clone / "runs/smoke/notebooks/00_first.ipynb").exists()


def test_killed_at_several_moments_and_continued_gives_the_same_record(clone):
    first(clone, sleep=SLOW_STEP)
    words = command("reproduce", "--stage", "00", "--set", "steps=40")
    whole = subprocess.run(words, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    path = clone / "runs/smoke/records/00_first.json"
    wanted = comparable(read_record(path))
    shutil.rmtree(clone / "runs")
    rows, seen = clone / "runs/smoke/work/00_first/rows.jsonl", []
    for least in (0, 1, 25):  # kill when so many rows are there
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as p:
            while p.poll() is None and (len(rows.read_bytes().splitlines()) if rows.exists() else 0) < least:
                time.sleep(0.02)
            time.sleep(0.3 if least == 0 else 0)
            assert p.poll() is None
            os.kill(p.pid, signal.SIGKILL)
        seen.append(len(rows.read_bytes().splitlines()) if rows.exists() else 0)
    assert not path.exists() and seen == sorted(seen) and seen[-1] >= 25
    last = subprocess.run(words, capture_output=True, text=True)
    assert last.returncode == 0 and "interrupted, goes on" in last.stdout
    assert comparable(read_record(path)) == wanted
    assert read_record(path)["machine"]["seconds"] > 40 * SLOW_STEP  # the killed attempts count


def test_ctrl_c_ends_with_130_and_leaves_no_receipt(clone):
    first(clone, sleep=SLOW_STEP)
    words = command("reproduce", "--stage", "00", "--set", "steps=400")
    rows = clone / "runs/smoke/work/00_first/rows.jsonl"
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background is born deaf to it
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as p:
        while p.poll() is None and not rows.exists():
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        error = p.communicate(timeout=20)[1]
    assert p.returncode == 130 and "the same command goes on from here" in error
    assert not (clone / "runs/smoke/receipts/00_first.json").exists()


def test_a_stage_is_a_plain_papermill_notebook(clone, monkeypatch):
    out = clone / "out.ipynb"
    words = [sys.executable, "-m", "papermill", clone / "nbs/stages/10_other.ipynb", out, "-p", "steps", "9"]
    done = subprocess.run([*map(str, words), "-k", "python3"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_record(clone / "runs/smoke/records/10_other.json")["passed"] == ["steps"]
    words[-2] = "stesp"
    done = subprocess.run([*map(str, words), "-k", "python3"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 1 and "no parameter 'stesp': did you mean 'steps'?" in done.stderr


@pytest.mark.slow
def test_the_smoke_profile_killed_at_ten_moments_ends_with_the_same_records(copy, monkeypatch):
    monkeypatch.setenv("SPATIAL_NB_ROOT", str(copy))
    monkeypatch.setenv("PYTHONPATH", str(copy))
    began = time.time()
    subprocess.run(command("reproduce"), cwd=copy, check=True)
    seconds = time.time() - began
    records = copy / "runs/smoke/records"
    whole = {p.stem: comparable(read_record(p)) for p in records.glob("*.json")}
    shutil.rmtree(copy / "runs")
    for _ in range(10):
        with subprocess.Popen(command("reproduce"), cwd=copy) as p:
            time.sleep(seconds / 12)
            os.kill(p.pid, signal.SIGKILL)
    subprocess.run(command("reproduce"), cwd=copy, check=True)
    assert {p.stem: comparable(read_record(p)) for p in records.glob("*.json")} == whole
