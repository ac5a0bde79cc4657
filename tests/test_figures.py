"The papers' numbers are all there and no verdict is typed; figures and tables hold whatever the records hold."

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, notebooks
from matplotlib import pyplot as plt
from matplotlib.text import Text

from spatial_nb import claims, figures
from spatial_nb.core import read_record

CLAIMS = claims.read_claims()
STAGES = {p.stem for p in notebooks("stages")}
RECORDS = {p.stem: read_record(p) for p in sorted((ROOT / "data" / "records" / "small").glob("*.json"))}


# --- claims -------------------------------------------------------------------------------------------------------


def test_every_claim_is_tested_by_a_stage_that_exists_or_is_said_to_come_later():
    assert {c.stage for c in CLAIMS} <= STAGES | set(CLAIMS.later)
    assert set(CLAIMS.later) & STAGES == set(), "a stage that exists is no longer to come: take it out of `later`"


def test_no_number_is_lost_on_the_way_from_the_file():
    entries = yaml.safe_load((ROOT / "data" / "claims.yaml").read_text())["claims"]
    cells = [v for e in entries for row in e.get("rows", {}).values() for v in row if v is not None]
    assert len(CLAIMS) == len(cells) + sum("value" in e for e in entries)
    assert set(CLAIMS.counts().index) == set(CLAIMS.papers) and CLAIMS.counts().result.gt(0).all()


def test_a_verdict_cannot_be_typed(tmp_path):
    path = tmp_path / "claims.yaml"
    text = (ROOT / "data" / "claims.yaml").read_text()
    path.write_text(text.replace("  value: 15.9\n", "  value: 15.9\n  verdict: reproduced\n"))
    with pytest.raises(ValueError, match="no field 'verdict'"):
        claims.read_claims(path)


def test_what_was_second_hand_or_read_off_an_axis_says_so():
    doubtful = {c.id for c in CLAIMS if c.mark != "verified"}
    assert all(i in doubtful for i in (c.id for c in CLAIMS if c.id.startswith("spatialtracegen.quality")))
    assert {c.id for c in CLAIMS if c.id.startswith("spatialite.distillation")} <= doubtful


# found by doing the sums again on the papers' own tables; any other one would be a slip in our copy
PRINTED_WRONG = """
spare.results.human.average spare.results.spare-2b.average spare.results.qwen2-vl-7b.average
spare.results.internvl2-8b.average spare.results.gpt-4o-mini.average spare.results.gpt-4o.average spare.gain.2b
spatialladder.in-domain.gemini-2-0-flash.mv spatialladder.in-domain.spatial-mllm-4b.mv
spatialladder.in-domain.internvl-2-5-4b.vsi spatialladder.in-domain.internvl-2-5-4b.overall
spatialladder.in-domain.llava-ov-7b.vsi spatialladder.in-domain.llava-ov-7b.overall
spatialladder.in-domain.kimi-vl-a3b.overall spatialladder.in-domain.qwen2-5-vl-7b.overall
spatialladder.in-domain.qwen2-5-vl-3b.overall
""".split()


def test_the_papers_sums_come_out_but_for_the_ones_that_are_printed_wrong():
    sums = claims.audit(CLAIMS)
    assert sorted(sums.index[~sums.agrees]) == sorted(PRINTED_WRONG)


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.rule], ids=lambda c: c.id)
def test_a_rule_names_metrics_of_its_stages_record(claim):
    if claim.stage not in RECORDS:
        pytest.skip(f"no published record of {claim.stage}")
    wanted = {claim.rule[k] for k in ("metric", "minus", "control") if k in claim.rule}
    absent = {s["what"] for s in RECORDS[claim.stage]["skipped"]}
    assert absent or wanted <= set(RECORDS[claim.stage]["metrics"])


def measured(*values, **info):
    values = list(map(float, values))
    spread = [min(values), max(values)] if len(values) > 1 else None
    return (
        dict(mean=float(np.mean(values)), interval=spread, n=50, seeds=list(range(len(values))), values=values) | info
    )


@pytest.mark.parametrize(
    "metrics, verdict",
    [
        ({"gain": measured(0.1, 0.2, 0.3), "control": measured(0.01, 0.02, 0.03)}, claims.DIRECTION),
        ({"gain": measured(0.1, 0.2, 0.3), "control": measured(-0.01, 0.02, 0.03)}, claims.NOT),
        ({"gain": measured(-0.1, 0.2, 0.3), "control": measured(0.01, 0.02, 0.03)}, claims.NOT),
        ({"gain": measured(0.1, 0.2, 0.3), "control": measured(0.01, 0.02)}, claims.NOT_RUN),
        ({"gain": measured(0.1, 0.2, 0.3)}, claims.NOT_RUN),
    ],
    ids=["both hold", "control touches 0", "gain touches 0", "two seeds", "no control"],
)
def test_a_direction_wants_an_interval_a_control_and_three_seeds(metrics, verdict):
    about = dict(source="", what="", value=15, unit="points", kind="result", mark="verified", tolerance=5, stage="x")
    claim = claims.Claim("c", "p", **about, rule={"metric": "gain", "control": "control", "direction": ">0"})
    assert claims.judge(claim, {"profile": "small", "metrics": metrics})["verdict"] == verdict


# --- figures ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def record(metrics: dict, **about) -> dict:
    same = dict(stage="70_any", profile="small", verdict="any", seeds=[0], skipped=[], git=None, machine={"seconds": 1})
    return same | {"metrics": metrics} | about


def words(drawn) -> str:
    "All text in a figure."
    return "\n".join(t.get_text() for t in drawn.figure.findobj(Text))


ODD = {
    "no parts": {"accuracy": measured(0.5)},
    "no interval, no n": {"a/real": measured(0.5), "b/real": measured(0.2, n=None)},
    "five parts": {"accuracy/arm/one/two/real": measured(0.1, 0.2)},
    "many sets": {f"accuracy/arm {i}/set {j}": measured(0.5, 0.6) for i in range(14) for j in range(3)},
    "many rows": {f"kind {i}/rendered": measured(0.9, 1.0) for i in range(30)},
    "all equal": {"accuracy/real": measured(1, 1, 1)},
    "differences alone": {"gain over start/real": measured(-0.2, 0.1)},
    "markup": {"a_b $x^/real$": measured(0.5)},
}


@pytest.mark.parametrize("metrics", ODD.values(), ids=ODD)
def test_figures_draw_whatever_a_record_holds(metrics):
    drawn = figures.stage_figure(record(metrics))
    shown = figures.metrics_table({"70_any": record(metrics)}).query("sort != 'other'")
    drawn.figure.canvas.draw()
    marks = [line for ax in drawn.figure.axes for line in ax.lines if line.get_markeredgecolor() == "white"]
    assert len(marks) == len(shown), "one mark for each share or difference"
    assert all(not m["n"] or str(m["n"]) in words(drawn) for m in metrics.values())


def test_counts_and_lengths_are_never_drawn_as_shares():
    metrics = {"tokens/real": measured(120), "ratio": measured(0.9, unit="ratio"), "kinds": measured(1, unit="kinds")}
    assert set(figures.metrics_table({"x": record(metrics)}).sort) == {"other"}
    assert figures.stage_figure(record(metrics)) is None


def test_no_records_give_empty_tables_and_no_figure():
    assert figures.overview({}) is None
    assert len(figures.metrics_table({})) == len(figures.stage_table({})) == 0
    assert figures.papers_figure(claims.claims_table(CLAIMS, {})) is None
    assert "not run: " in words(figures.verdicts_figure(claims.claims_table(CLAIMS, {})))


def test_overview_says_when_it_leaves_rows_out():
    assert "first 24 of 30 rows" in words(figures.overview({"70_any": record(ODD["many rows"])}))


def test_a_share_whose_interval_leaves_0_to_1_is_drawn():
    wide = {"kind/arm/size": measured(0.8, 0.9, 0.95) | {"interval": [0.5, 1.26]}}
    assert list(figures.metrics_table({"70_any": record(wide)}).sort) == ["share"]


def test_the_papers_value_and_ours_have_different_marks():
    rolling = "spatialite.distillation.cube-rolling"
    rule = CLAIMS[rolling].rule
    found = record({rule["metric"]: measured(0.3, 0.4, 0.5), rule["control"]: measured(0.1, 0.2, 0.3)})
    table = claims.claims_table(CLAIMS, {CLAIMS[rolling].stage: found})
    ax = figures.papers_figure(table).figure.axes[0]
    at = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() not in ("None", None)}
    assert at[figures.PAPER["marker"]] == CLAIMS[rolling].value
    assert at["o"] != CLAIMS[rolling].value and figures.PAPER["marker"] != "o"


def test_published_tables_are_what_the_published_records_say():
    if "90_benchmark_figures" not in RECORDS:
        pytest.skip("no published figures")
    own = {s: r for s, r in RECORDS.items() if s != "90_benchmark_figures"}
    again = figures.metrics_table(own).drop(columns="values").set_index(["stage", "metric"]).to_csv(float_format="%.6g")
    message = "run stage 90 again: spatial-nb reproduce --profile small --stage 90"
    assert (ROOT / "figures" / "metrics.csv").read_text() == again, message
    published = pd.read_csv(ROOT / "figures" / "claims.csv", index_col="id")
    assert published.verdict.tolist() == claims.claims_table(CLAIMS, own).verdict.tolist(), message
