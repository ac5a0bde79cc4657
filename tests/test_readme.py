"README.md says what nbs/index.ipynb and the committed records say."

import json
import re
import subprocess
import sys

from conftest import ROOT, cells

README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(*heading: str) -> list[list[str]]:
    "Cells of the rows of README's table whose head starts with `heading`."
    tables = [t.splitlines() for t in re.findall(r"(?:^\|.*\n)+", README + "\n", re.M)]
    split = [[[c.strip() for c in line.strip("|").split("|")] for line in t] for t in tables]
    [found] = [t for t in split if t[0][: len(heading)] == list(heading)]
    return found[2:]


def stage_of(cell: str) -> str:
    return re.match(r"\[(\w+)\]", cell)[1]


def record(stage: str, profile: str) -> dict | None:
    path = ROOT / "data" / "records" / profile / f"{stage}.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_readme_is_what_its_notebook_gives(tmp_path):
    subprocess.run([sys.executable, ROOT / ".ci" / "readme.py", "-o", tmp_path / "README.md"], check=True)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README, "run `make readme`"


def test_results_are_the_records_numbers():
    stage = None
    for cell, name, mean, interval, each, counted, verdict in rows("stage", "measured"):
        stage = stage_of(cell) if cell else stage
        found = record(stage, "small")
        if found is None:
            assert (name, mean, interval, each, counted, verdict) == ("not run yet", "", "", "", "", "")
            continue
        assert not cell or verdict == found["verdict"]
        if not name and not found["metrics"]:
            continue
        metric = found["metrics"][name]
        assert mean == f"{metric['mean']:.3f}"
        assert interval == ("{:.3f} to {:.3f}".format(*metric["interval"]) if metric["interval"] else "")
        values = metric["values"] if len(metric["values"]) > 1 else []
        assert each == ", ".join(f"{v:.3f}" for v in values)
        assert counted.split(" × ") == [str(metric["n"] or ""), str(len(metric["seeds"]))]


def test_minutes_are_the_records_seconds_or_a_budget():
    for cell, *shown in rows("minutes a stage"):
        for text, profile in zip(shown, ("smoke", "small", "paper"), strict=True):
            if found := record(stage_of(cell), profile):
                assert text == f"{found['machine']['seconds'] / 60:.1f}"
            else:
                assert re.fullmatch(r"|\([\d.]+\)", text)


def test_every_stage_stands_in_both_tables():
    stages = {p.stem for p in (ROOT / "nbs" / "stages").glob("*.ipynb")}
    assert {stage_of(c[0]) for c in rows("stage", "measured") if c[0]} == stages
    assert {stage_of(c[0]) for c in rows("minutes a stage")} == stages


def test_no_result_is_typed_into_the_notebook():
    for cell in cells(ROOT / "nbs" / "index.ipynb", "markdown"):
        assert not re.search(r"\b[01]\.\d\d|\d\.\d+ ?%", cell["source"]), "results are read from records, never typed"


def test_links_lead_to_files_of_the_clone():
    links = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", README)
    assert links and [x for x in links if not (ROOT / x).exists()] == []
