"Traces: nothing is lost on the way to a file and back, and no export invents a label."

import json

import pandas as pd
import pytest
from PIL import Image

from spatial_nb import traces
from spatial_nb.core import append_jsonl, rng
from spatial_nb.items import picture_hash
from spatial_nb.trace_exports import (
    VIEWS,
    Rewards,
    check_row,
    export,
    funnel,
    read_official,
    to_dataset,
    write_official,
)
from spatial_nb.traces import Attempt, Rating, Step, ToolOutput, Trace, observed, read_trace, read_traces, write_trace


def picture(k):
    return Image.new("RGB", (12, 8), (k * 40 % 256, 90, 200))


def a_trace(seed, name="q"):
    "A trace with whatever may be in one."
    r = rng("a trace", seed)
    tries, steps = [], 1 + int(r.integers(4))
    for i in range(steps):
        last = i == steps - 1
        for n in range(1, 2 + int(r.integers(3))):
            text = f'"{i}" \\ é\n日本 {n} </script>'
            step = Step(text, "final_answer", text="yes") if last else Step(text, "tool_call", f"tool{i}")
            facts = {"correct": bool(r.random() < 0.5), "new_information": True, "necessary": None, "fault": None}
            step = Step(**vars(step) | {"facts": facts if r.random() < 0.7 else None, "calls": 1, "tokens_in": 9})
            rating = Rating(float(1 + r.integers(10)), "because", "n", "c") if r.random() < 0.8 else None
            tries.append(Attempt(i, n, step, rating, reason="rejected", lost=None if rating else {"calls": 1}))
        seen = None if last else ToolOutput(f"tool{i}", picture(i), {"objects": [{"box": [1, 2.5]}]}, f"{i} objects")
        tries[-1] = Attempt(**vars(tries[-1]) | {"accepted": True, "passed": rating is not None, "observation": seen})
    return Trace(f"{name}{seed}", "Is it?", picture(seed), "yes", tries, "yes", True, "answered", settings={"tau": 5})


many = [a_trace(k) for k in range(30)]


def test_a_trace_survives_its_file_with_its_pictures_inside_and_beside(tmp_path):
    for k, t in enumerate(many):
        assert read_trace(write_trace(tmp_path / f"{k}.json", t)) == t
        append_jsonl(tmp_path / "traces.jsonl", t.to_json(tmp_path / "pictures"))
    assert read_traces(tmp_path) == many
    again = Trace.from_json(json.loads(json.dumps(many[0].to_json())))
    assert picture_hash(again.picture) == picture_hash(many[0].picture)
    again.attempts[0] = Attempt(**vars(again.attempts[0]) | {"reason": "another"})
    assert again != many[0]


def test_a_file_of_another_kind_or_a_path_outside_is_refused(tmp_path):
    row = many[0].to_json(tmp_path)
    for bad in ({}, row | {"more": 1}, row | {"attempts": [{}]}, row | {"end": "fine"}):
        with pytest.raises(ValueError):
            Trace.from_json(bad, tmp_path)
    with pytest.raises(ValueError, match="say in which folder"):
        Trace.from_json(row | {"picture": "../../etc/passwd.png"}, tmp_path)
    with pytest.raises(ValueError, match="holds no picture"):
        Trace.from_json(row | {"picture": "data:image/png;base64,AAAA"}, tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Trace.from_json(row | {"picture": "gone.png"}, tmp_path)


@pytest.mark.parametrize("rating", [0, 11, float("nan"), True, "7", None])
def test_a_rating_outside_of_its_scale_is_none(rating):
    with pytest.raises(ValueError, match="wants a number from 1 to 10"):
        Rating(rating)


def test_the_papers_files_keep_steps_ratings_and_pictures(tmp_path):
    def told(t):
        seen = lambda a: a.observation and (a.observation.message, picture_hash(a.observation.picture))
        rated = lambda a: a.rating and a.rating.said()
        return [(a.index, a.step.said(), rated(a), a.accepted, seen(a)) for a in t.attempts]

    for k, t in enumerate(many):
        # what is not rated has no place in the history, unless it was accepted: then the chat has it
        t = Trace(**vars(t) | {"attempts": [a for a in t.attempts if a.rating or a.accepted]})
        again = read_official(write_official(t, tmp_path / str(k), system="Be brief."))
        assert told(again) == told(t)
        assert [s.said() for s in again.steps] == [s.said() for s in t.steps]
        assert (again.answer, again.correct, again.expected) == ("yes", True, "yes")


def test_a_history_that_was_never_cleared_is_cut_to_its_own_question(tmp_path):
    history = []
    for k, t in enumerate(many[:5]):
        t = Trace(**vars(t) | {"attempts": [a for a in t.attempts if a.rating]})
        file = write_official(t, tmp_path / str(k))
        row = json.loads(file.read_text())
        history += row["verification_history"]
        file.write_text(json.dumps(row | {"verification_history": history}))
        again = read_official(file)
        own = [a for a in t.attempts if a.index in {b.index for b in t.accepted}]
        assert sum(a.rating is not None for a in again.attempts) <= len(own)
        assert [s.said() for s in again.steps] == [s.said() for s in t.steps]


def test_transitions_are_a_chain_that_ends_once():
    for t in many:
        rows = t.to_transitions(Rewards(discount=0.5))
        assert len(rows) == len(t.accepted)
        assert [a["next_state"] for a in rows[:-1]] == [b["state"] for b in rows[1:]]
        assert [r["done"] for r in rows] == [False] * (len(rows) - 1) + [True]
        for row, after in zip(rows, rows[1:]):
            assert row["return"] == pytest.approx(row["reward"] + 0.5 * after["return"])
        both = t.to_transitions(rejected=True)
        assert len(both) == len(t.attempts)
        assert all(r["state"] == r["next_state"] and not r["done"] for r in both if not r["accepted"])


def test_rewards_say_what_the_formulas_say():
    step = Step("r", "tool_call", "t", facts={"correct": True, "necessary": False, "new_information": True})
    parts = Rewards(step_cost=0.1, retry_cost=0.2).parts(Attempt(0, 3, step, Rating(10)), [], 2)
    assert parts == {"r_verifier": 1.0, "r_efficiency": pytest.approx(-0.5), "r_necessity": 0.0}
    again = Attempt(1, 1, Step("r", "tool_call", "t"), None)
    parts = Rewards().parts(again, [Attempt(0, 1, step)], 0)
    assert (parts["r_verifier"], parts["r_necessity"]) == (None, -1.0)  # the same tool, and no facts
    assert Rewards(verifier=2, necessity=3).total({"r_verifier": None, "r_necessity": 1.0}) == 3.0


def test_a_label_that_nobody_knows_makes_no_row():
    for t in many:
        for row in t.to_prm():
            check_row(row, "prm")
            said = [c.split("\n")[-1] if c.startswith("Tool output") else c for c in row["completions"]]
            for text, y in zip(said, row["labels"]):
                known = [a.step.facts["correct"] for a in t.attempts if str(a.step) == text and a.step.facts]
                assert y in known
        for row in t.to_preferences():
            check_row(row, "preferences")


def test_rows_with_a_picture_too_few_or_a_label_too_many_are_refused():
    sft, prm = many[0].to_sft(), next(r for t in many for r in t.to_prm())
    for row, view in (
        (sft | {"images": sft["images"][1:]}, "sft"),
        (sft | {"messages": sft["messages"][:-1]}, "sft"),
        (prm | {"labels": [*prm["labels"], True]}, "prm"),
        (prm | {"labels": [1] * len(prm["labels"])}, "prm"),
        (many[0].to_transitions()[-1] | {"truncated": True}, "transitions"),
    ):
        with pytest.raises(ValueError):
            check_row(row, view)


def test_exports_come_back_and_the_card_counts_them(tmp_path):
    failed = Trace("gone", "Is it?", None, "yes", end="failed", why="no picture", correct=False)
    rows = export([*many, failed], tmp_path)
    card = (tmp_path / "README.md").read_text()
    for view in VIEWS:
        assert len(pd.read_parquet(tmp_path / f"{view}.parquet")) == rows[view] > 0
        assert f"| {view}.parquet | {rows[view]} |" in card
    back = pd.read_parquet(tmp_path / "transitions.parquet")
    want = pd.DataFrame([r for t in many for r in t.to_transitions(rejected=True)])
    pd.testing.assert_frame_equal(back, want[back.columns], check_dtype=False)
    assert funnel([*many, failed]).traces["questions"] == 31 and "| ended: failed | 1 |" in card
    assert len(to_dataset([failed], "sft")) == len(to_dataset([], "preferences")) == 0


def test_parquet_is_read_by_datasets_with_its_pictures(tmp_path):
    datasets = pytest.importorskip("datasets")
    export(many[:3], tmp_path)
    rows = datasets.Dataset.from_parquet(str(tmp_path / "sft.parquet"), cache_dir=str(tmp_path / "cache"))
    for row, t in zip(rows, many):
        assert [picture_hash(im) for im in row["images"]] == [picture_hash(im) for im in t.to_sft()["images"]]


def test_trl_finds_each_picture_in_its_place():
    pytest.importorskip("trl")
    from spatial_nb import models  # noqa: F401  torchvision's operators, which TRL wants

    utils = pytest.importorskip("trl.data_utils")
    rows = [dict(r) for r in to_dataset(many, "sft")]
    for row, t in zip(rows, many, strict=True):
        assert utils.is_conversational(row)
        chat = utils.prepare_multimodal_messages(row["messages"], images=row["images"])
        placed = [p["image"] for m in chat for p in m["content"] if p["type"] == "image"]
        assert [picture_hash(im) for im in placed] == [picture_hash(im) for im in t.to_sft()["images"]]
    pairs = [p for t in many for p in t.to_preferences()]
    assert pairs and all(utils.is_conversational(p) for p in pairs)


def test_what_a_model_wrote_is_text_on_the_page_and_not_code():
    shown = many[0]._repr_html_()
    assert "</script>" not in shown and "&lt;/script&gt;" in shown
    hard = Trace("<i>", "<b>?</b>", None, '"', [], "<u>", None, "failed", "<s>", {"generator": "<tt>"})._repr_html_()
    assert not [t for t in ("<i>", "<b>", "<u>", "<s>", "<tt>") if t in hard] and "&lt;b&gt;?&lt;/b&gt;" in hard


def test_a_page_of_a_long_trace_is_small_and_fetches_nothing():
    noise = Image.effect_noise((640, 480), 90).convert("RGB")  # what compresses worst
    seen = ToolOutput("segment", noise, None, "seen")
    tries = [Attempt(k, 1, Step("r", "tool_call", "segment"), None, True, True, "", seen) for k in range(10)]
    page = Trace("x", "?", noise, None, tries, end="max_steps")._repr_html_()
    assert len(page) < 300_000 and "http" not in page and page.count("data:image/jpeg;base64,") == 11


def test_masks_and_numbers_that_json_cannot_hold_are_left_out():
    import numpy as np

    seen = observed(
        ToolOutput("t", None, {"mask": np.ones((99, 99)), "box": np.arange(4), "far": np.float32("nan")}, "a\nb")
    )
    assert (seen.result, seen.message) == ({"mask": None, "box": [0, 1, 2, 3], "far": None}, "a b")
    assert traces._light(object()) is None


ENTRY = {"step_index": 0, "attempt_number": 1, "step_content": "x", "result": {"rating": 5}}
FAULTY = {
    "path": ({"original_image_path": 7}, "original_image_path is '7', wants a text"),
    "question": ({"question": None}, "question is 'None', wants a text"),
    "trace": ({"trace": None}, "trace is 'None', wants a list of messages"),
    "message": ({"trace": [{"content": "x"}]}, "message 1: role is 'None'"),
    "content": ({"trace": [{"role": "user", "content": 7}]}, "message 1: content is '7'"),
    "part": ({"trace": [{"role": "user", "content": [{"type": "image_url"}]}]}, "message 1: part is"),
    "history": ({"verification_history": "x"}, "verification_history is 'x', wants a list"),
    "attempt": ({"verification_history": [ENTRY, {"step_index": 0}]}, "entry 2: attempt_number is 'None'"),
    "step": ({"verification_history": [ENTRY | {"step_index": None}]}, "entry 1: step_index is 'None'"),
    "words": ({"verification_history": [ENTRY | {"result": {"rating": "8/10"}}]}, "entry 1: rating is '8/10'"),
    "range": ({"verification_history": [ENTRY | {"result": {"rating": 15}}]}, "entry 1: rating is '15'"),
}


@pytest.mark.parametrize("what", FAULTY)
def test_a_faulty_file_is_one_line_that_names_file_entry_and_fault(what, tmp_path):
    file = write_official(many[0], tmp_path)
    broken, why = FAULTY[what]
    file.write_text(json.dumps(json.loads(file.read_text()) | broken))
    with pytest.raises(ValueError) as e:
        read_official(tmp_path)
    said = str(e.value)
    assert said.startswith(f"{file}: ") and why in said and "\n" not in said


def test_a_long_step_is_kept_in_the_history_as_far_as_200_characters(tmp_path):
    long = Step('"a" \\ é ' * 60, "tool_call", "t")
    tries = [Attempt(0, 1, long, Rating(2), reason="rejected"),
             Attempt(0, 2, Step("r", "final_answer", text="yes"), Rating(8), True, True)]  # fmt: skip
    file = write_official(Trace("x", "Is it?", None, "yes", tries, "yes", True, "answered"), tmp_path)
    assert len(json.loads(file.read_text())["verification_history"][0]["step_content"]) == 200
    kept = read_official(file).attempts[0].step
    assert len(kept.reasoning) > 100 and long.reasoning.startswith(kept.reasoning)
