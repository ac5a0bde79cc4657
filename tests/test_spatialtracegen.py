"The loop: what is planted is what is wrong, what is rejected is never taken by accident, and a kill loses nothing."

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from spatial_nb import policy as policies
from spatial_nb import spatialtracegen as stg
from spatial_nb.chat import Budget, BudgetSpent, ChatError, Hopeless, Log
from spatial_nb.chat import Scripted as Says
from spatial_nb.core import rng
from spatial_nb.items import Item, picture_hash
from spatial_nb.policy import node_needs, node_words
from spatial_nb.programs import World
from spatial_nb.questions import questions
from spatial_nb.render import render
from spatial_nb.scenes import ATTRIBUTES, sample_scene
from spatial_nb.spatialtracegen import (
    ARTEFACTS,
    FAULTS,
    LLM,
    LLMVerifier,
    Policy,
    Scripted,
    State,
    generate,
    generate_all,
    ratings,
    spending,
    standing,
)
from spatial_nb.tools import Oracles, toolset
from spatial_nb.traces import Attempt, Rating, Step, Trace, read_traces

KINDS = ["count", "exist", "relate_query", "relate_count", "nearest", "compare_integer", "extreme", "relate", "between"]
KINDS += ["query_color", "distance_compare", "direction", "compare_attribute", "describe"]


def world():
    "Items of a few scenes, their programs, and tools that see everything."
    scenes, pictures, items, programs = {}, {}, [], {}
    for i in range(5):
        scene = sample_scene(rng("test traces", i), n=6)
        picture = render(scene, (120, 80), samples=1).image
        scenes[picture_hash(picture)], pictures[picture_hash(picture)] = scene, picture
        for q in questions(scene, rng("test traces", i, "q"), KINDS, 14):
            if q.text not in programs:
                items.append(Item(f"q{len(items)}", q.text, [picture], q.answer, q.kind, q.options and list(q.options)))
                programs[q.text] = q.program

    real = toolset(Oracles(scenes))
    seen = {(name, key): look(picture) for key, picture in pictures.items() for name, look in real.items()}
    tools = {name: lambda picture, name=name: seen[name, picture_hash(picture)] for name in real}  # looked once
    return items, programs, tools, lambda item: scenes[picture_hash(item.images[0])]


ITEMS, PROGRAMS, TOOLS, TRUTH = world()


def policy(**how):
    return Policy(PROGRAMS.get, truth=how.pop("truth", TRUTH), **how)


def all_attempts(made):
    return [a for t in made for a in t.attempts]


# --- the policy ---------------------------------------------------------------------------------------------------


def test_the_faultless_policy_is_right_and_each_step_is():
    made = generate_all(ITEMS, policy(), Scripted("skeptical"), TOOLS, tau=8).traces
    assert len(made) > 50 and all(t.correct and t.end == "answered" for t in made), [t for t in made if not t.correct]
    for a in all_attempts(made):
        assert a.step.facts["correct"] and a.step.facts["fault"] is None and a.step.facts["necessary"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_makes_the_step_wrong_and_none_other_is(kind):
    made = generate_all(ITEMS, policy(errors={kind: 0.5}), None, TOOLS, tau=0, guard=None).traces
    planted = [a.step for a in all_attempts(made) if a.step.facts["planted"]]
    assert len(planted) > 10 and {s.facts["fault"] for s in planted} == {kind}
    for step in planted:
        facts = step.facts
        if kind == "tool":
            assert facts["correct"] and not (facts["new_information"] and facts["necessary"])
        else:
            assert not facts["correct"]
        if kind in ("perception", "relation", "logic"):
            assert any(not c["correct"] for c in facts["claims"])
        if kind == "answer":
            assert all(c["correct"] for c in facts["claims"]) and step.action == "final_answer"
    for t in made:  # before the first fault of a trace all is well
        for a in t.attempts:
            if a.step.facts["planted"] and kind != "tool":
                break
            assert a.step.facts["correct"], a.step


def test_mistakes_that_were_accepted_stay_believed_and_cost_answers():
    wrong = generate_all(ITEMS, policy(errors={"perception": 1.0}), None, TOOLS, tau=0).traces
    assert any(a.step.facts["fault"] == "other" or not t.correct for t in wrong for a in t.attempts)
    assert sum(t.correct for t in wrong) < len(wrong)


def test_feedback_is_heard_as_the_dial_says():
    how = dict(tau=6, alpha=3, guard=None)
    errors = {"perception": 0.6}
    listens = generate_all(ITEMS, policy(errors=errors, again=0.0), Scripted(), TOOLS, **how).traces
    deaf = generate_all(ITEMS, policy(errors=errors, again=1.0), Scripted(), TOOLS, **how).traces
    assert all(a.number <= 2 for a in all_attempts(listens)) and all(t.correct for t in listens)
    assert max(a.number for a in all_attempts(deaf)) == 4
    assert any("accepted after 4 attempts" in a.reason for a in all_attempts(deaf))


def test_without_a_truth_nothing_is_said_of_right_and_wrong():
    blind = policy(truth=None, errors=0.1)
    made = [generate(i, blind, None, TOOLS, tau=0) for i in ITEMS[:20]]
    assert {a.step.facts["correct"] for a in all_attempts(made)} == {None}
    with pytest.raises(ValueError, match="nothing is known of this step"):
        standing(made[0].steps[0])


def test_the_papers_names_of_tools_do_as_well_and_a_missing_tool_is_done_without():
    named = {"sam2": TOOLS["segment"], "dav2": TOOLS["depth"], "trellis": TOOLS["top_down"]}
    made = [generate(i, policy(), None, named, tau=0) for i in ITEMS]
    assert all(t.correct for t in made)
    for some, least in ((["segment"], 0.8), (["segment", "depth"], 0.8), (["top_down"], 1.0), ([], 0.0)):
        made = [generate(i, policy(), None, {k: TOOLS[k] for k in some}, tau=0) for i in ITEMS]
        assert {t.end for t in made} == {"answered"}
        right = sum(t.correct for t in made) / len(made)  # what only a view from above shows is judged from the picture
        assert least <= right and (right > 0) == bool(some)
    made = [generate(i, policy(gather="all"), None, TOOLS, tau=0) for i in ITEMS[:5]]
    assert {len(t.steps) for t in made} == {4}


def test_of_several_readings_the_first_with_an_answer_is_taken_and_kept():
    item = next(i for i in ITEMS if PROGRAMS[i.question][-1]["type"] == "query_color")
    nothing = [dict(type="scene", inputs=[], value_inputs=[]), dict(type="unique", inputs=[0], value_inputs=[])]
    nothing += [dict(type="query_color", inputs=[1], value_inputs=[])]  # there are six objects
    made = generate(item, policy_of([nothing, PROGRAMS[item.question]]), None, TOOLS, tau=0)
    assert made.correct and [s.facts["reading"] for s in made.steps[1:]] == [1] * (len(made.steps) - 1)
    made = generate(item, policy_of([nothing]), None, TOOLS, tau=0)
    assert (made.answer, made.correct) == ("unknown", False)


def test_a_name_that_comes_again_with_another_picture_is_judged_by_that_picture():
    asked = [i for i in ITEMS if i.kind == "number"]
    pair = [(a, b) for a in asked for b in ITEMS if TRUTH(a) is not TRUTH(b)][0]
    one = pair[0]
    other = Item(one.id, one.question, pair[1].images, 99, "number")
    judge = policy()
    for item in (one, other):
        made = generate(item, judge, None, TOOLS, tau=0)
        listed = [c for a in made.attempts for c in a.step.facts["claims"] if c["node"] is None]
        assert listed and all(c["correct"] for c in listed)


def policy_of(readings):
    return Policy(lambda question: readings, truth=TRUTH)


def test_what_tools_show_makes_the_same_world_as_the_scene():
    import numpy as np

    from spatial_nb.geometry import directions

    for scene in {id(TRUTH(i)): TRUTH(i) for i in ITEMS}.values():
        axes, eye = directions(scene.camera), np.array(scene.camera.position)
        spots = [[float((np.array(o.position) - eye) @ axes[a]) for a in ("right", "behind")] for o in scene.objects]
        rows = [{k: getattr(o, k) for k in ATTRIBUTES} | {"position": p} for o, p in zip(scene.objects, spots)]
        seen, true = policies.ToolWorld(rows), World(scene)
        for what in ("offset:left", "offset:right", "offset:front", "offset:behind", "distance", "angle", "bearing"):
            assert np.allclose(seen.of(what), true.of(what), equal_nan=True), what
        flat = scene.positions * [1, 1, 0]
        depths = (flat - eye) @ scene.camera.rotation[2]
        rows = [{k: v for k, v in r.items() if k != "position"} | {"depth": float(d)} for r, d in zip(rows, depths)]
        assert np.allclose(
            policies.ToolWorld(rows).of("offset:behind"), true.of("offset:behind"), atol=0.6
        )  # the camera jitters


def test_a_tool_that_names_no_object_makes_nobody_say_that_there_is_none():
    clumsy = policy(errors={"tool": 1.0})
    made = [generate(i, clumsy, None, TOOLS, tau=0, guard=None) for i in ITEMS[:30]]
    first = {t.steps[0].tool for t in made}
    assert "depth" in first and all(s.facts["correct"] for t in made for s in t.steps)
    early = [s for t in made for k, s in enumerate(t.steps) if not any(b.tool == "segment" for b in t.steps[:k])]
    assert len(early) > len(made) and not any(": none" in s.reasoning for s in early)


def test_every_program_has_words_and_a_tool():
    for program in PROGRAMS.values():
        assert "(" not in node_words(program) and {node_needs(n) for n in program} <= {*TOOLS}


@pytest.mark.parametrize(
    "bad, said",
    [
        (dict(errors={"perceptoin": 0.1}), "did you mean 'perception'"),
        (dict(errors={"tool": 1.5}), "wants 0 to 1"),
        (dict(errors=0.3), "wants at most 1"),
        (dict(again=2), "wants at most 1"),
        (dict(gather="some"), "allowed: needed, all"),
    ],
)
def test_dials_out_of_range_are_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        policy(**bad)


def test_a_question_that_nobody_understands_is_a_failed_trace():
    def parse(question):
        raise ValueError("'Why?' is not understood")

    trace = generate(ITEMS[0], Policy(parse), None, TOOLS, tau=0)
    assert (trace.end, trace.correct, trace.why) == ("failed", False, "no step: 'Why?' is not understood")


# --- verifiers ----------------------------------------------------------------------------------------------------


def test_the_two_rubrics_differ_about_what_is_redundant():
    state = State(ITEMS[0], ITEMS[0].images[0])
    facts = lambda c, n, i: {"correct": c, "necessary": n, "new_information": i}
    grade = lambda rubric, *f: Scripted(rubric)(state, Step("r", "tool_call", "segment", facts=facts(*f))).rating
    assert grade("skeptical", True, False, False) < 5 < grade("generous", True, False, False)
    for rubric in stg.RUBRICS:
        order = [grade(rubric, False, True, True), grade(rubric, True, False, False), grade(rubric, True, True, True)]
        assert order == sorted(order) and order[0] < order[2]


def test_noise_is_seeded_and_a_rating_stays_on_its_scale():
    state = State(ITEMS[0], ITEMS[0].images[0])
    step = Step("r", "final_answer", text="x", facts={"correct": True})
    one = [Scripted(noise=9, bias=b, seed=s)(replace(state, attempt=k), step).rating
           for b in (-5, 0, 5) for s in (0, 1) for k in range(1, 6)]  # fmt: skip
    two = [Scripted(noise=9, bias=b, seed=s)(replace(state, attempt=k), step).rating
           for b in (-5, 0, 5) for s in (0, 1) for k in range(1, 6)]  # fmt: skip
    assert one == two and len(set(one)) > 4 and all(1 <= r <= 10 and r == round(r) for r in one)


VERDICT = dict(necessity_analysis="n", correctness_analysis="c", efficiency_analysis="e", alternative_approaches="a",
               critical_concerns="k", rating=7, rating_justification="j", regeneration_needed=True,
               suggested_improvement="s")  # fmt: skip


def test_an_llm_verifier_gives_nine_fields_and_sees_tools_or_not():
    seen = []
    model = Says(lambda m: seen.append(m) or json.dumps(VERDICT))
    call = Step("r", "tool_call", "segment")
    look = stg.observed(TOOLS["segment"](ITEMS[0].images[0]))
    state = State(ITEMS[0], ITEMS[0].images[0], ((call, look),), ("segment",))
    for sees in (True, False):
        rating = LLMVerifier(model, "generous", sees_tools=sees)(state, call)
        assert rating.said() == VERDICT | {"rating": 7.0} and rating.calls == 1
    told = [" ".join(p.get("text", "[picture]") for p in m[-1]["content"]) for m in seen]
    assert ["Tool output: 6 objects" in t for t in told] == [True, False]
    assert [t.count("[picture]") for t in told] == [2, 1]
    assert stg.low_detail(ITEMS[0].images[0].resize((2000, 1000))).size == (512, 256)


def test_a_verifier_that_gives_no_verdict_never_passes_a_step():
    for reply in ("", "8", '{"rating": 8}', *(json.dumps(VERDICT | {"rating": r}) for r in (11, None))):
        trace = generate(ITEMS[0], policy(), LLMVerifier(Says(lambda m, r=reply: r), again=1), TOOLS, tau=5, alpha=2)
        assert (trace.end, trace.answer, trace.accepted) == ("failed", None, [])
        assert all(a.rating is None and not a.passed and a.reason.startswith("not rated") for a in trace.attempts)
        assert all(a.lost["calls"] == 2 for a in trace.attempts)
    assert spending([trace]).loc["verify", "failed"] == len(trace.attempts)
    made = generate_all(ITEMS, policy(), Scripted(fails=1.0), TOOLS, tau=1).traces
    assert {t.end for t in made} == {"failed"} and spending(made).loc["verify", "calls"] == len(all_attempts(made))


def test_a_call_that_fails_now_and_then_costs_an_attempt():
    made = generate_all(ITEMS, policy(), Scripted(fails=0.3), TOOLS, tau=5, alpha=5, guard=None).traces
    assert all(a.rating for t in made for a in t.accepted) and any(len(t.attempts) > len(t.steps) for t in made)


# --- the loop -----------------------------------------------------------------------------------------------------


def rated(*numbers):
    "A verifier that says these, in their order, over and over."
    return lambda state, step: Rating(numbers[(state.attempt - 1) % len(numbers)], "so")


def writes(*steps):
    "A generator that varies its words, so that no two attempts are the same."
    return lambda state: replace(steps[min(state.index, len(steps) - 1)], reasoning=f"{state.index} {state.attempt}")


CALL, ANSWER = Step("r", "tool_call", "segment"), Step("r", "final_answer", text="yes")


def test_regenerates_below_tau_at_most_alpha_times_and_then_as_asked():
    ends = {}
    for after in stg.AFTER:
        trace = generate(ITEMS[0], writes(ANSWER), rated(3, 4, 2), TOOLS, tau=5, alpha=2, after=after)
        ends[after] = [a.number for a in trace.attempts if a.accepted], trace.end
        assert len(trace.attempts) == 3 and not any(a.passed for a in trace.attempts)
    assert ends == {"accept": ([3], "answered"), "best": ([2], "answered"), "drop": ([], "dropped")}
    trace = generate(ITEMS[0], writes(ANSWER), rated(4, 5, 9), TOOLS, tau=5, alpha=2)
    assert [(a.accepted, a.passed) for a in trace.attempts] == [(False, False), (True, True)]  # 5 is not below 5
    assert len(generate(ITEMS[0], writes(ANSWER), rated(1), TOOLS, tau=5, alpha=0).attempts) == 1


def test_the_control_rejects_nothing_whatever_the_verifier_says():
    for verifier in (None, rated(1), Scripted(fails=1.0)):
        made = [generate(i, policy(errors=0.15), verifier, TOOLS, tau=0, alpha=5, guard=None) for i in ITEMS]
        assert all(a.accepted and a.number == 1 for a in all_attempts(made))
    assert [a.rating for a in all_attempts(made)] == [None] * len(all_attempts(made))


def test_feedback_is_one_message_and_ends_with_its_step():
    heard = []

    def listens(state):
        heard.append((state.index, state.attempt, state.feedback))
        chat = state.messages("sys")
        assert sum("Concerns" in str(m["content"]) for m in chat) == (state.attempt > 1)
        return writes(CALL, ANSWER)(state)

    generate(ITEMS[0], listens, rated(2, 9), TOOLS, tau=5)
    assert [h[:2] for h in heard] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [bool(h[2]) for h in heard] == [False, True, False, True]


def test_loops_are_ended_by_the_guard_and_by_nothing_else():
    stubborn = lambda state: ANSWER
    trace = generate(ITEMS[0], stubborn, rated(1), TOOLS, tau=5, alpha=5)
    assert len(trace.attempts) == 2 and trace.attempts[1].reason.endswith("the same step 2 times; ") is False
    assert "the same step 2 times" in trace.attempts[1].reason
    assert len(generate(ITEMS[0], stubborn, rated(1), TOOLS, tau=5, alpha=5, guard=None).attempts) == 6
    trace = generate(ITEMS[0], writes(CALL), None, TOOLS, tau=0)
    assert (trace.end, len(trace.steps)) == ("loop", 3) and "segment" in trace.why
    trace = generate(ITEMS[0], writes(CALL), None, TOOLS, tau=0, guard=None, max_steps=7)
    assert (trace.end, len(trace.steps), trace.answer, trace.correct) == ("max_steps", 7, None, False)


def test_an_unknown_tool_is_never_accepted_and_is_named():
    lost = writes(Step("r", "tool_call", "segmnt"))
    for how in (dict(tau=0), dict(tau=5, alpha=3)):
        trace = generate(ITEMS[0], lost, rated(10), TOOLS, **how)
        assert trace.end == "failed" and "did you mean 'segment'" in trace.why and not trace.accepted
    mends = lambda state: CALL if state.attempt == 2 else Step("r", "tool_call", "x") if not state.index else ANSWER
    trace = generate(ITEMS[0], mends, rated(10), TOOLS, tau=5)
    assert [a.reason[:12] for a in trace.attempts[:2]] == ["unknown tool", "passed: 10 >"]


def test_a_tool_that_fails_says_so_and_the_trace_goes_on():
    def broken(image):
        raise RuntimeError("out of\nmemory")

    trace = generate(ITEMS[0], writes(CALL, ANSWER), None, {"segment": broken}, tau=0)
    assert trace.end == "answered"
    assert trace.accepted[0].observation.message == "segment failed: RuntimeError: out of memory"


@pytest.mark.parametrize(
    "bad, said",
    [
        (dict(tau=11), "tau is 11, wants a number from 0 to 10"),
        (dict(tau=float("nan")), "tau is nan"),
        (dict(alpha=-1), "alpha is -1"),
        (dict(max_steps=0), "max_steps is 0"),
        (dict(guard=1), "guard is 1"),
        (dict(after="acept"), "did you mean 'accept'"),
    ],
)
def test_settings_out_of_range_are_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        generate(ITEMS[0], policy(), Scripted(), TOOLS, **bad)


def test_what_is_no_item_no_generator_and_no_setting_is_said_in_one_line():
    good = (ITEMS[0], policy(), None, TOOLS)
    bad = [(k, x) for k, xs in enumerate((("x", None, 7), (None, "policy", CALL), ("scripted", 5))) for x in xs]
    for k, wrong in bad:
        one = [*good[:k], wrong, *good[k + 1 :]]
        for call in (lambda: generate(*one, tau=0), lambda: generate_all([one[0]], *one[1:], tau=0)):
            with pytest.raises(TypeError, match="^(item|generator|verifier) is .*, wants a") as e:
                call()
            assert "\n" not in str(e.value) and str(e.value).startswith(("item", "generator", "verifier")[k])
    for call in (generate, lambda item, *more, **how: generate_all([item], *more, **how)):
        with pytest.raises(ValueError, match=r"^there is no setting 'beta': .*\(allowed: tau, alpha"):
            call(*good, tau=0, beta=2)
        with pytest.raises(ValueError, match="no setting 'max_step': did you mean 'max_steps'"):
            call(*good, tau=0, max_step=2)


def test_a_missing_picture_fails_its_question_alone(tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n")
    bare = [SimpleNamespace(id=f"x{k}", question="Is it?", images=im, answer="yes")
            for k, im in enumerate(([], [tmp_path / "no.png"], [torn]))]  # fmt: skip
    batch = generate_all([*bare, *ITEMS[:3]], policy(), Scripted(), TOOLS, out=tmp_path / "out")
    assert [t.end for t in batch.traces] == ["failed"] * 3 + ["answered"] * 3
    for t, said in zip(batch.traces, ("has no picture", "does not exist", "torn.png")):
        assert said in t.why and t.correct is False
    assert batch.table["count"][["asked", "failed", "answered"]].tolist() == [6, 3, 3] and len(batch.failures) == 3
    assert read_traces(tmp_path / "out") == batch.traces


def test_an_llm_that_never_writes_a_step_is_bounded_and_counted():
    calls = []
    for reply in ("", "no idea", '{"reasoning": "r", "action": "final_answer"}', '{"action": "tool_call"}', "[" * 5000):
        model = Says(lambda m, r=reply: calls.append(1) or r)
        trace = generate(ITEMS[0], LLM(model, again=1), Scripted(), TOOLS)
        assert trace.end == "failed" and trace.why.startswith("no step: scripted gave no StepAnswer in 2 answers")
        assert trace.attempts[0].lost["calls"] == 2 and spending([trace]).loc["generate", "calls"] == 2
    assert len(calls) == 10


def test_an_llm_works_through_a_question_and_gets_back_what_tools_say():
    def model(messages):
        last = messages[-1]["content"]
        if "Tool output: 6 objects" in last[0].get("text", "") and last[1]["type"] == "image":
            return '{"reasoning": "I count.", "action": "final_answer", "text": 6}'
        return '<think>{"x": 1}</think>{"reasoning": "Look.", "action": "tool_call", "tool_name": "segment"}'

    item = Item("n", "How many things are there?", ITEMS[0].images, 6, "number")
    verifier = LLMVerifier(Says(lambda m: json.dumps(VERDICT)))
    trace = generate(item, LLM(Says(model)), verifier, TOOLS, tau=5)
    assert (trace.answer, trace.correct, trace.end, len(trace.steps)) == ("6", True, "answered", 2)
    assert spending([trace]).calls.to_dict() == {"generate": 2, "verify": 2}


def test_an_endpoint_that_never_answers_is_a_failed_trace_and_a_wrong_key_ends_the_run(tmp_path):
    def silent(messages):
        raise ChatError("m gave no answer in 6 attempt(s), last: Request timed out.")

    def locked(messages):
        raise Hopeless("m gave no answer: wrong key")

    batch = generate_all(ITEMS[:4], LLM(Says(silent)), None, TOOLS, tau=0, workers=2)
    assert [t.end for t in batch.traces] == ["failed"] * 4 and "timed out" in batch.failures.index[0]
    batch = generate_all(ITEMS[:4], LLM(Says(locked)), None, TOOLS, tau=0, out=tmp_path)
    assert (batch.traces, batch.stopped) == ([], "m gave no answer: wrong key")
    assert batch.table["count"]["not begun"] == 4


def test_a_key_that_is_missing_is_said_before_the_first_question(monkeypatch):
    from spatial_nb.chat import OpenAI

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Hopeless, match="no OPENAI_API_KEY"):
        generate_all(ITEMS, policy(), LLMVerifier(OpenAI("m")), TOOLS)


def test_a_spent_budget_stops_cleanly_and_more_of_it_goes_on(tmp_path):
    model = Says(lambda m: '{"reasoning": "r", "action": "final_answer", "text": "yes"}')
    few = generate_all(ITEMS[:6], LLM(model, budget=Budget(calls=4)), None, TOOLS, tau=0, out=tmp_path / "a")
    assert len(few.traces) == 4 and few.stopped == "the budget of 4 calls is spent"
    assert few.table["count"]["not begun"] == 2
    more = generate_all(ITEMS[:6], LLM(model), None, TOOLS, tau=0, out=tmp_path / "a")
    once = generate_all(ITEMS[:6], LLM(model), None, TOOLS, tau=0, out=tmp_path / "b")
    assert more.traces == once.traces and more.stopped is None
    assert (tmp_path / "a/traces.jsonl").read_bytes() == (tmp_path / "b/traces.jsonl").read_bytes()


def test_a_log_gives_the_same_trace_with_the_same_costs_and_asks_nothing(tmp_path):
    asked = []

    def reply(messages):
        asked.append(1)
        return json.dumps({"reasoning": f"r{len(asked)}", "action": "final_answer", "text": "yes"})

    one = [generate(i, LLM(Says(reply), log=Log(tmp_path / "log.jsonl")), None, TOOLS, tau=0) for i in ITEMS[:3]]
    two = [generate(i, LLM(Says(reply), log=Log(tmp_path / "log.jsonl")), None, TOOLS, tau=0) for i in ITEMS[:3]]
    assert one == two and len(asked) == 3 and one[0].steps[0].calls == 1


# --- many ---------------------------------------------------------------------------------------------------------

HOW = dict(tau=6, alpha=3)
CLUMSY = dict(errors=dict(perception=0.3, relation=0.1, tool=0.2), again=0.4)


def run(out=None, items=ITEMS, **more):
    return generate_all(items, policy(**CLUMSY), Scripted(noise=1.5, fails=0.05), TOOLS, out=out, **HOW | more)


def test_traces_do_not_depend_on_order_workers_or_company():
    made = {t.id: t for t in run().traces}
    for other in (run(items=ITEMS[::-1]), run(workers=4), run(items=ITEMS[3:9], workers=2)):
        assert all(made[t.id] == t for t in other.traces)
    assert made != {t.id: t for t in run(seed=1).traces}


def test_killed_at_ten_moments_and_continued_it_makes_the_same_bytes(tmp_path):
    whole = tmp_path / "whole"
    run(whole, pictures=False)
    data = (whole / "traces.jsonl").read_bytes()
    code = (
        "import os, sys; sys.path.insert(0, 'tests'); import test_spatialtracegen as t\n"
        "left = int(sys.argv[2])\n"
        "def dies(state, step):\n"
        "    global left; left -= 1\n"
        "    if left < 0: os._exit(9)\n"
        "    return real(state, step)\n"
        "real = t.Scripted(noise=1.5, fails=0.05); dies.name = real.name\n"
        "t.generate_all(t.ITEMS, t.policy(**t.CLUMSY), dies, t.TOOLS, out=sys.argv[1], pictures=False, **t.HOW)\n"
    )
    killed = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", code, killed, "25"], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    first = (killed / "traces.jsonl").read_bytes()
    assert 0 < len(first) < len(data) and data.startswith(first)
    ends = [len(data) * k // 9 for k in range(9)]  # then as a kill leaves the file, at nine places, within lines
    for end in [len(first), *ends]:
        (killed / "traces.jsonl").write_bytes(data[:end])
        run(killed, pictures=False)
        assert (killed / "traces.jsonl").read_bytes() == data


def test_an_error_between_two_traces_loses_none(tmp_path):
    seen = []

    def stops(state):
        seen.append(state.item.id)
        if len(seen) == 30:
            raise KeyboardInterrupt
        return policy(**CLUMSY)(state)

    stops.name = policy(**CLUMSY).name
    for workers in (1, 3):
        out = tmp_path / str(workers)
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            generate_all(ITEMS, stops, Scripted(noise=1.5, fails=0.05), TOOLS, out=out, workers=workers, **HOW)
        kept = read_traces(out)
        assert 0 < len(kept) < len(ITEMS)
        assert run(out).traces == run().traces


def test_a_full_disk_stops_the_run_and_what_was_written_is_kept(tmp_path, monkeypatch):
    real, written = stg.append_jsonl, []

    def full(path, row):
        written.append(1)
        if len(written) > 7:
            raise OSError(28, "No space left on device")
        real(path, row)

    for workers in (1, 3):
        out = tmp_path / str(workers)
        written.clear()
        with monkeypatch.context() as m:
            m.setattr(stg, "append_jsonl", full)
            with pytest.raises(OSError, match="No space left"):
                run(out, workers=workers, pictures=False)
        assert len(read_traces(out)) == 7
        assert run(out, pictures=False).traces == run(pictures=False).traces


def test_a_run_without_pictures_says_the_same_and_holds_none(tmp_path):
    bare = run(tmp_path, ITEMS[:4], pictures=False).traces
    full = run(items=ITEMS[:4]).traces
    assert not (tmp_path / "pictures").exists() and read_traces(tmp_path) == bare
    assert [[a.step for a in t.attempts] for t in bare] == [[a.step for a in t.attempts] for t in full]
    assert bare[0].picture is None and full[0].picture is not None
    assert bare[0].to_sft()["images"] == [] and bare[0]._repr_html_()


def test_a_generator_with_a_bug_fails_its_traces_and_they_can_be_tried_again(tmp_path):
    def buggy(state):
        if state.item.id in ("q1", "q3"):
            raise ZeroDivisionError("division by zero")
        return "no step" if state.item.id == "q2" else policy()(state)

    buggy.name = policy().name
    first = generate_all(ITEMS[:5], buggy, None, TOOLS, tau=0, out=tmp_path)
    assert [t.end for t in first.traces] == ["answered", "failed", "failed", "failed", "answered"]
    assert first.traces[1].why == "ZeroDivisionError: division by zero"
    assert first.traces[2].why.endswith("gave a str, wants a Step")
    assert generate_all(ITEMS[:5], policy(), None, TOOLS, tau=0, out=tmp_path).traces == first.traces
    again = generate_all(ITEMS[:5], policy(), None, TOOLS, tau=0, out=tmp_path, retry=True)
    assert [t.end for t in again.traces] == ["answered"] * 5 and len(read_traces(tmp_path)) == 5


def test_a_folder_belongs_to_one_set_of_settings_and_to_one_run_at_a_time(tmp_path):
    run(tmp_path, ITEMS[:3])
    for more, said in ((dict(tau=7), "tau 6, wants 7"), (dict(seed=1), "seed 0, wants 1")):
        with pytest.raises(ValueError, match=said):
            run(tmp_path, ITEMS[:3], **more)
    other = Item("q0", "Another?", ITEMS[0].images, True, "yes_no")
    with pytest.raises(ValueError, match="another question under 'q0'"):
        run(tmp_path, [other])
    code = "import sys; from spatial_nb.core import hold\nlock = hold(sys.argv[1], 'x')\n"
    code += "print('held', flush=True); input()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    held = subprocess.Popen([sys.executable, "-c", code, tmp_path / ".lock"], **pipes)
    try:
        assert held.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="is being run by process"):
            run(tmp_path, ITEMS[:5])
    finally:
        held.communicate("\n")


def test_workers_work_at_the_same_time():
    flying, most, lock = [0], [0], threading.Lock()

    def slow(state):
        with lock:
            flying[0] += 1
            most[0] = max(most[0], flying[0])
        time.sleep(0.02)
        with lock:
            flying[0] -= 1
        return ANSWER

    generate_all(ITEMS[:12], slow, None, TOOLS, tau=0, workers=4)
    assert 2 <= most[0] <= 4


# --- the published number -----------------------------------------------------------------------------------------


def a_trace(grades, correct=True, tau=5):
    "One step per list: attempts with these ratings (None: the call failed), the last one accepted."
    tries = []
    for i, some in enumerate(grades):
        for k, g in enumerate(some):
            last = k == len(some) - 1
            why = "not rated: x" if g is None else "so"
            tries.append(Attempt(i, k + 1, ANSWER, g and Rating(g), bool(g and g >= tau), last, why))
    answer = "yes" if correct is not None else None
    return Trace("x", "?", None, "yes", tries, answer, bool(correct), "answered", settings={"tau": tau})


def test_each_artefact_does_what_the_table_says():
    made = [a_trace([[2, 8], [6]]), a_trace([[None, 9]], correct=None), a_trace([[4, 3, 4]], correct=False)]
    plain = ratings(made)
    assert plain["mean"] == (7 + 9 + 4) / 3 and plain["se"] == pytest.approx(1.4529663)
    assert (plain["rated"], plain["accuracy"], plain["questions"]) == (3, 1 / 3, 3)
    assert ratings(made, "rejected_counted")["mean"] == pytest.approx((16 / 3 + 9 + 11 / 3) / 3)
    assert ratings(made, ["history_kept"])["mean"] == pytest.approx((7 + 23 / 3 + 27 / 4) / 3)
    assert ratings(made, ["failed_passes"])["mean"] == pytest.approx((7 + 6.75 + 4) / 3)
    assert ratings(made, ["failed_passes"], grade=4.0)["mean"] == plain["mean"]  # 4 does not pass at 5
    assert ratings(made, ["unanswered_dropped"]) == plain | {"accuracy": 0.5, "questions": 2}
    assert ratings(made, ["control_regenerates"], regenerated=made[2:])["mean"] == 4
    assert len(ARTEFACTS) == 5


def test_budget_and_key_pass_through_a_single_trace():
    def broke(state):
        raise BudgetSpent("the budget of 1 calls is spent")

    with pytest.raises(BudgetSpent):
        generate(ITEMS[0], broke, None, TOOLS, tau=0)
