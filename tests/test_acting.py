"Words for drawings, steps for texts, and in lockstep the same traces as one by one."

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from spatial_nb import spatialtracegen as stg
from spatial_nb.acting import Judge, act, in_words, judge_text, read_step, transcript
from spatial_nb.chat import BudgetSpent
from spatial_nb.core import data_root, rng
from spatial_nb.items import Item, picture_hash, read_image
from spatial_nb.policy import Policy
from spatial_nb.questions import questions
from spatial_nb.render import render
from spatial_nb.scenes import sample_scene
from spatial_nb.spatialtracegen import generate, generate_all
from spatial_nb.tools import DepthMap, Detection, Observation, Oracles, joined, toolset
from spatial_nb.traces import State, Step, ToolOutput, observed

NAMES = ("segment", "depth", "top_down")
LOOK, SHADE = Step("I look.", "tool_call", "segment"), Step("How far?", "tool_call", "depth")
DONE = Step("So it is.", "final_answer", text="yes")


def world():
    "Items of a few scenes, their programs, tools that see everything, and the scene of an item."
    scenes, pictures, items, programs = {}, [], [], {}
    for i in range(4):
        scene = sample_scene(rng("test acting", i), n=6)
        pictures.append(render(scene, (240, 160), samples=1).image)
        scenes[picture_hash(pictures[-1])] = scene
        for q in questions(scene, rng("test acting", i, "q"), ["count", "relate_query", "relate_count", "nearest"], 8):
            if q.text not in programs:
                options = q.options and list(q.options)
                items.append(Item(f"q{len(items)}", q.text, [pictures[-1]], q.answer, q.kind, options))
                programs[q.text] = q.program
    real = toolset(Oracles(scenes))
    seen = {(t, picture_hash(p)): look(p) for p in pictures for t, look in real.items()}
    tools = {t: lambda picture, t=t: seen[t, picture_hash(picture)] for t in real}  # looked once
    return items, programs, tools, lambda item: scenes[picture_hash(item.images[0])]


ITEMS, PROGRAMS, TOOLS, TRUTH = world()
PICTURE = ITEMS[0].images[0]


def thing(x=None, depth=None, words=(None,) * 4, **more) -> Detection:
    center = None if x is None else (float(x), 80.0)
    return Detection(*words, None, center, 1.0, depth=depth, **more)


def fake(tool="segment", found=(), message="as it says") -> Observation:
    return Observation(tool, PICTURE, found, message)


def said(tools, name, picture=PICTURE) -> str:
    return in_words(tools)[name](picture).message


RED = ("cube", "small", "red", "metal")


# --- in words -----------------------------------------------------------------------------------------------------


def test_objects_are_named_in_the_order_in_which_a_policy_names_them():
    first = {}
    for name in ("segment", "depth"):  # the only tool that there is
        for item in ITEMS:
            tools = {"segment": TOOLS["segment"], name: TOOLS[name]}
            state = State(item, item.images[0], tools=(name,))
            taken = [(Step("r", "tool_call", t), observed(tools[t](item.images[0]), t)) for t in tools]
            rows = joined([seen for _, seen in taken])
            order = Policy(PROGRAMS.get).world(rows, item.images[0].size)
            across = order.of("offset:behind" if name == "depth" else "offset:right")[0]
            names = [" ".join(rows[i][k] for k in ("size", "color", "material", "shape")) for i in np.argsort(across)]
            head = "from near to far" if name == "depth" else "from left to right"
            first[name, item.id] = said(TOOLS, name, state.picture)
            assert first[name, item.id] == f"{head}: {', '.join(names)}"
    for item in ITEMS:
        trace = generate(item, Policy(PROGRAMS.get), None, {"segment": TOOLS["segment"]}, tau=0)
        listed = first["segment", item.id].partition(": ")[2]
        assert trace.steps[1].reasoning.startswith(f"segment shows {listed}")


def test_the_drawing_and_the_objects_stay_and_a_policy_does_with_them_what_it_did():
    heard = {t: look(PICTURE) for t, look in in_words(TOOLS).items()}
    for name, seen in heard.items():
        plain = observed(TOOLS[name](PICTURE), name)
        assert isinstance(seen, ToolOutput) and seen.tool == name and seen.picture is plain.picture
        key = lambda o: json.dumps(o, sort_keys=True)
        assert sorted(map(key, seen.objects)) == sorted(map(key, plain.objects))
    by_place = lambda rows: sorted(rows, key=lambda o: o["center"])
    assert by_place(joined(heard.values())) == by_place(joined(observed(TOOLS[t](PICTURE), t) for t in heard))
    for item in ITEMS:
        plain, words = (generate(item, Policy(PROGRAMS.get), None, t, tau=0) for t in (TOOLS, in_words(TOOLS)))
        assert words.correct and [s.said() for s in words.steps] == [s.said() for s in plain.steps]


def test_the_papers_names_do_as_well_and_other_tools_are_left_alone():
    named = {"dav2": TOOLS["depth"], "ruler": len, "sam2": TOOLS["segment"], "trellis": TOOLS["top_down"]}
    words = in_words(named)
    assert list(words) == list(named) and words["ruler"] is len
    assert words["dav2"](PICTURE).tool == "dav2"
    assert words["dav2"](PICTURE).message == said(TOOLS, "depth") and "thing" not in said(TOOLS, "depth")


def test_a_picture_is_segmented_once_while_it_is_among_the_last_few():
    looks = []
    tools = TOOLS | {"segment": lambda picture: looks.append(1) or TOOLS["segment"](picture)}
    one, two = ITEMS[0].images[0], ITEMS[-1].images[0]
    words = in_words(tools)
    for name in (*NAMES, *NAMES):
        for picture in (one, two, one.copy()):
            words[name](picture)
    assert len(looks) == 2
    looks.clear()
    words = in_words(tools, keep=1)
    for picture in (one, two, one):
        words["depth"](picture)
    assert len(looks) == 3
    with pytest.raises(ValueError, match="keep is 0, wants a whole number of at least 1"):
        in_words(tools, keep=0)
    with pytest.raises(ValueError, match="wants a dict from names to functions of a picture"):
        in_words(["segment"])


def test_a_picture_may_come_as_its_file(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    look = lambda picture: TOOLS["segment"](read_image(picture))
    assert said({"segment": look}, "segment", tmp_path / "a.png") == said(TOOLS, "segment")


def test_nothing_is_said_where_nothing_is_found_and_not_where_nothing_is_named():
    empty = {"segment": lambda p: fake(), "depth": lambda p: fake("depth"), "top_down": lambda p: fake("top_down")}
    assert [said(empty, t) for t in empty] == [
        "from left to right: nothing", "from near to far: nothing", "from above: nothing"]  # fmt: skip
    drawn = TOOLS | {"top_down": lambda p: fake("top_down")}  # a drawing by somebody who names no objects
    assert said(drawn, "top_down") == "as it says"
    assert said({"top_down": drawn["top_down"]}, "top_down") == "as it says"
    silent = SimpleNamespace(tool="depth", picture=PICTURE, result={"mean": 3.0}, message="a map")
    out = in_words(TOOLS | {"depth": lambda p: silent})["depth"](PICTURE)
    assert (out.message, out.result) == ("a map", {"mean": 3.0})


def test_a_map_without_objects_has_those_that_are_outlined():
    flat = TOOLS["depth"](PICTURE).result.values
    tools = TOOLS | {"depth": lambda p: fake("depth", DepthMap(flat, True))}
    out = in_words(tools)["depth"](PICTURE)
    assert out.message.startswith("from near to far: ") and out.message.count(",") == 5 and "thing" not in out.message
    far = [o["depth"] for o in out.objects]
    assert far == sorted(far) and all(o["shape"] is None for o in out.objects)
    assert said({"depth": tools["depth"]}, "depth") == "as it says"  # nobody says where objects are
    assert said(tools | {"segment": lambda p: fake()}, "depth") == "from near to far: nothing"


def test_what_has_no_name_is_a_thing_and_what_has_no_place_is_found():
    some = (thing(50), thing(20, words=RED), thing(90, words=(None, None, "blue", None)), thing(10))
    assert said({"segment": lambda p: fake(found=some)}, "segment") == (
        "from left to right: thing, small red metal cube, thing, blue thing")  # fmt: skip
    assert said({"segment": lambda p: fake(found=(thing(words=RED), thing(9)))}, "segment") == (
        "found: small red metal cube, thing")  # fmt: skip
    tools = {"segment": lambda p: fake(found=(thing(20, words=RED),))}
    tools["depth"] = lambda p: fake("depth", (thing(90, 9.0), thing(22, 12.0), thing(50, 3.0)))
    assert said(tools, "depth") == "from near to far: thing, thing, small red metal cube"
    tools["depth"] = lambda p: fake("depth", (thing(90, 9.0), thing(22)))
    assert said(tools, "depth") == "found: thing, small red metal cube"


def test_alike_objects_are_named_each_and_hidden_ones_by_who_knows_of_them():
    twins = (thing(70, words=RED), thing(20, words=RED), thing(120, words=RED))
    assert said({"segment": lambda p: fake(found=twins)}, "segment").count("small red metal cube") == 3
    tools = {"segment": lambda p: fake(found=twins[:2])}  # the third is hidden behind something
    tools["depth"] = lambda p: fake("depth", tuple(thing(x, d) for x, d in ((20, 8.0), (70, 7.0), (120, 6.0))))
    assert said(tools, "depth") == "from near to far: thing, small red metal cube, small red metal cube"


def test_an_error_of_the_segmenter_is_said_by_the_tool_that_asked_it():
    def broken(picture):
        raise RuntimeError("out of memory")

    words = in_words(TOOLS | {"segment": broken})
    steps = iter([SHADE, DONE])
    trace = generate(ITEMS[0], lambda state: next(steps), None, words, tau=0)
    assert trace.accepted[0].observation.message == "depth failed: RuntimeError: out of memory"


def test_real_pictures_are_put_into_words():
    pytest.importorskip("torch")
    folder = data_root() / "clevr_humans"
    if not folder.is_dir():
        pytest.skip(f"{folder.name} not found under SPATIAL_NB_DATA")
    with open(folder / "questions.csv", encoding="utf-8") as file:
        paths = sorted({row["image_path"] for row in csv.DictReader(file)})[:3]
    for path in paths:
        picture = read_image(folder / path)
        heard = {t: look(picture) for t, look in in_words(toolset("clevr")).items()}
        names = {t: sorted(seen.message.partition(": ")[2].split(", ")) for t, seen in heard.items()}
        assert len(names["segment"]) >= 3 and all(len(n.split()) == 4 for n in names["segment"])
        assert names["segment"] == names["depth"] == names["top_down"]  # of one detector
        assert [s.message.partition(":")[0] for s in heard.values()] == [
            "from left to right", "from near to far", "from above"]  # fmt: skip


# --- texts and steps ----------------------------------------------------------------------------------------------


def test_a_transcript_has_the_form_that_models_learn():
    taken = ((LOOK, ToolOutput("segment", None, None, "from left to right: nothing")), (DONE, None))
    assert transcript("Is it?", ()) == "Question: Is it?\n"
    assert transcript("Is it?", taken) == (
        "Question: Is it?\n"
        '{"reasoning": "I look.", "action": "tool_call", "tool_name": "segment"}\n'
        "Tool output: from left to right: nothing\n"
        '{"reasoning": "So it is.", "action": "final_answer", "text": "yes"}\n'
    )
    assert judge_text("Is it?", taken[:1], DONE) == (
        f"{transcript('Is it?', taken[:1])}{DONE}\nIs this step right?\n")  # fmt: skip


def test_a_step_that_was_written_is_read_as_it_was():
    steps = [s for i in ITEMS for s in generate(i, Policy(PROGRAMS.get), None, TOOLS, tau=0).steps]
    steps += [Step('She said "{no}" — \\ é 立方体', "final_answer", text='{"a": 1}')]
    for step in steps:
        for text in (str(step), f"Well:\n```json\n{step}\n```\nthat is all", json.dumps(step.said())):
            assert read_step(text, NAMES).said() == step.said()
    two = f"{LOOK}\n{SHADE}"
    assert read_step(two, NAMES) == SHADE  # the last one counts
    assert read_step(f'{LOOK} {{"a": 1}}', NAMES) == LOOK  # that is a step
    assert read_step('{"reasoning": "r", "action": "final_answer", "text": 6}', ()).text == "6"


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "no JSON object in ''"),
        ("the answer\nis 6", "no JSON object in 'the answer is 6'"),
        ("[1, 2]", "no JSON object in '[1, 2]'"),
        ('"yes"', "no JSON object in"),
        ('{"reasoning": "r", "action": "final_ans', "no JSON object in"),
        ("[" * 100_000, "no JSON object in"),
        ('{"a":' * 3000, "no JSON object in"),
        ("{}", "reasoning: Field required"),
        ('{"reasoning": "r"}', "action: Field required"),
        ('{"reasoning": "r", "action": "toolcall", "tool_name": "depth"}', "did you mean 'tool_call'?"),
        ('{"reasoning": "r", "action": ["tool_call"], "tool_name": "depth"}', "unknown action \"['tool_call']\""),
        ('{"reasoning": "r", "action": null}', "unknown action 'None'"),
        ('{"reasoning": "r", "action": "tool_call"}', "a tool_call wants a tool_name: segment, depth, top_down"),
        (
            '{"reasoning": "r", "action": "tool_call", "tool_name": "dept"}',
            "unknown tool 'dept': did you mean 'depth'?",
        ),
        ('{"reasoning": "r", "action": "tool_call", "tool_name": {"x": 1}}', "unknown tool \"{'x': 1}\""),
        ('{"reasoning": "r", "action": "final_answer", "text": " "}', "a final_answer wants a text"),
        ('{"reasoning": "r", "action": "final_answer", "text": [1]}', "text: "),
        ('{"reasoning": " ", "action": "final_answer", "text": "6"}', "reasoning is empty"),
        ('{"reasoning": "\\ud800", "action": "final_answer", "text": "6"}', ""),
        (None, "a step is text, not a NoneType"),
        (6, "a step is text, not a int"),
    ],
)
def test_a_text_that_is_no_step_is_refused_in_one_line(text, why):
    with pytest.raises(ValueError) as e:
        read_step(text, NAMES)
    assert why in str(e.value) and "\n" not in str(e.value) and 0 < len(str(e.value)) < 400


def test_without_tools_there_are_only_answers():
    with pytest.raises(ValueError, match=r"unknown tool 'segment': \(allowed: none\)"):
        read_step(str(LOOK), ())
    with pytest.raises(ValueError, match="action: Input should be 'final_answer'"):
        read_step('{"reasoning": "r", "action": "tool_call"}', ())
    assert read_step(str(LOOK), dict.fromkeys(NAMES)) == LOOK


# --- lockstep -----------------------------------------------------------------------------------------------------


def both(items, generator, tools, name="w", **how):
    "Traces one by one, and in lockstep by a writer that says the same."
    texts = {}

    def one(state):
        text = generator(state)
        texts[transcript(state.question, state.taken), state.item.id] = text
        return read_step(text, state.tools)

    one.name = name
    made = [generate(i, one, None, tools, tau=0, **dict(max_steps=8) | how) for i in items]
    by_text = {}
    for (told, _), text in texts.items():
        assert by_text.setdefault(told, text) == text  # the state alone says what comes
    return made, act(items, lambda told: [by_text[t] for t in told], tools, name=name, **how)


GARBAGE = ("", "I give up.", '{"action": "tool_call"}', str(LOOK).replace("segment", "segmnt"))


def clumsy(state):
    "A policy that plans badly, and sometimes writes what is no step."
    random = rng("garbage", transcript(state.question, state.taken))
    if random.random() < 0.1:
        return GARBAGE[int(random.integers(len(GARBAGE)))]
    if random.random() < 0.25:
        return str((LOOK, SHADE, DONE)[int(random.integers(3))])
    steps = generate(state.item, Policy(PROGRAMS.get), None, TOOLS, tau=0).steps
    return str(steps[min(state.index, len(steps) - 1)])


@pytest.mark.parametrize("how", [{}, dict(max_steps=2), dict(guard=None, max_steps=5), dict(guard=3)])
def test_the_traces_are_those_of_generate(how):
    ends = set()
    for tools in (TOOLS, in_words(TOOLS)):
        one, many = both([*ITEMS, ITEMS[3]], clumsy, tools, **how)
        assert one == many
        assert [t.settings for t in one] == [t.settings for t in many] and one[0].settings["generator"] == "w"
        ends |= {t.end for t in many}
    assert {"answered", "failed"} <= ends and ("max_steps" in ends) == (how.get("max_steps") == 2)
    stubborn = both(ITEMS[:2], lambda state: str(LOOK), TOOLS, **how)
    assert stubborn[0] == stubborn[1]
    cut = how.get("max_steps") == 2 or how.get("guard", 2) is None
    assert stubborn[1][0].end == ("max_steps" if cut else "loop")


def test_an_item_may_come_again_and_items_of_any_make_do(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    plain = SimpleNamespace(id="x", question="Is it?", images=[tmp_path / "a.png"], answer="yes")
    bare = SimpleNamespace(id=7, question="Is it?", images=[PICTURE], metadata={"from": "here"})
    items = [plain, ITEMS[0], bare, ITEMS[0], plain]
    one, many = both(items, lambda state: str((LOOK, SHADE, DONE)[state.index]), TOOLS)
    assert one == many and many[1] == many[3] and many[0] == many[4]
    assert [t.correct for t in many[:3]] == [True, ITEMS[0].answer == "yes", None] and many[2].metadata == {
        "from": "here"
    }


def test_a_picture_file_is_read_once(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "a.png")
    read, real = [], stg.read_image
    monkeypatch.setattr(stg, "read_image", lambda path: read.append(path) or real(path))
    item = SimpleNamespace(id="x", question="Is it?", images=[tmp_path / "a.png"], answer="yes")
    steps = iter([LOOK, SHADE, DONE])
    assert act([item], lambda told: [str(next(steps))], TOOLS)[0].correct and len(read) == 1


def test_a_missing_picture_fails_its_question_alone_and_is_not_asked_about(tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\n")
    items = [SimpleNamespace(id=f"x{k}", question="Where?", images=im, answer="yes")
             for k, im in enumerate(([], [tmp_path / "no.png"], [torn]))]  # fmt: skip
    one, many = both([*items, ITEMS[0]], lambda state: str(DONE), TOOLS)
    assert one == many and [t.end for t in many] == ["failed"] * 3 + ["answered"]
    asked = []
    act([*items, ITEMS[0]], lambda told: asked.extend(told) or [str(DONE)] * len(told), TOOLS)
    assert asked == [f"Question: {ITEMS[0].question}\n"]


def test_each_round_asks_for_the_open_questions_in_their_order_and_nothing_twice():
    lengths, rounds, calls = [1, 3, 2, 3], [], []
    items = [Item(f"i{k}", f"Is it {k}?", [PICTURE], True, "yes_no") for k in range(4)]
    tools = {t: lambda p, t=t: calls.append((t, len(rounds))) or TOOLS[t](p) for t in NAMES}

    def write(told):
        rounds.append(told)
        out = []
        for text in told:
            k, index = int(text.partition("?")[0][-1]), text.count("Tool output")
            out.append(str(DONE if index == lengths[k] - 1 else (LOOK, SHADE)[index]))
        return out

    made = act(items, write, tools)
    assert [[int(t.partition("?")[0][-1]) for t in told] for told in rounds] == [[0, 1, 2, 3], [1, 2, 3], [1, 3]]
    assert [len(t.steps) for t in made] == lengths and [t.id for t in made] == ["i0", "i1", "i2", "i3"]
    assert calls == [("segment", 1)] * 3 + [("depth", 2)] * 2  # lazily, and once for each call
    for told in rounds:
        assert all(t.endswith("\n") and t.startswith("Question: ") for t in told)
    assert rounds[2][0].splitlines()[2] == f"Tool output: {TOOLS['segment'](PICTURE).message}"


def test_a_tool_that_fails_says_so_is_not_tried_again_and_the_trace_goes_on():
    calls = []

    def broken(image):
        calls.append(1)
        raise RuntimeError(f"out of\nmemory {len(calls)}")

    steps = [LOOK, SHADE, DONE]
    write = lambda told: [str(steps[t.count("Tool output")]) for t in told]
    trace = act(ITEMS[:1], write, TOOLS | {"segment": broken})[0]
    assert trace.end == "answered" and len(calls) == 1
    assert trace.accepted[0].observation.message == "segment failed: RuntimeError: out of memory 1"
    calls.clear()
    one = lambda state: steps[state.index]
    one.name = "model"
    assert trace == generate(ITEMS[0], one, None, TOOLS | {"segment": broken}, tau=0, max_steps=8)

    def full(image):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        act(ITEMS[:1], write, TOOLS | {"segment": full})


def test_an_unknown_tool_ends_the_trace_with_its_nearest_name():
    trace = act(ITEMS[:1], lambda told: [str(LOOK).replace('"segment"', '"segmnt"')], TOOLS)[0]
    assert trace.end == "failed" and trace.attempts[0].step is None and trace.correct is False
    assert trace.why.startswith("no step: unknown tool 'segmnt': did you mean 'segment'?")


def test_no_items_no_texts_no_steps():
    never = lambda told: pytest.fail("asked for nothing")
    assert act([], never, TOOLS) == [] and act(iter(()), never, {}, bar="x") == []
    made = act(ITEMS[:2], lambda told: [None] * len(told), TOOLS, bar="acting")
    assert {t.why for t in made} == {"no step: a step is text, not a NoneType"}
    assert act(ITEMS[:2], lambda told: np.array([str(DONE)] * len(told)), {})[0].end == "answered"


def test_an_error_of_the_writer_is_the_callers():
    def spent(told):
        raise BudgetSpent("the budget is spent")

    with pytest.raises(BudgetSpent):
        act(ITEMS[:2], spent, TOOLS)


@pytest.mark.parametrize(
    "more, error, why",
    [
        (dict(write=7), TypeError, r"^write is '7' \(a int\), wants a function of texts"),
        (
            dict(write=lambda told: told[:1]),
            ValueError,
            "write gave 1 texts for 2 questions, wants a list",
        ),
        (dict(write=lambda told: "ab"), ValueError, "write gave one text for 2 questions"),
        (dict(tools=["segment"]), ValueError, "tools are .*, wants a dict from names to functions"),
        (dict(tools={"segment": 5}), ValueError, "wants a dict from names to functions"),
        (dict(items=["x"]), TypeError, "item is 'x' .* without id, wants an Item"),
        (dict(max_steps=0), ValueError, "max_steps is 0"),
        (dict(guard=1), ValueError, "guard is 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(more, error, why):
    with pytest.raises(error, match=why) as e:
        act(**dict(items=ITEMS[:2], write=lambda told: [str(DONE)] * len(told), tools=TOOLS) | more)
    assert "\n" not in str(e.value)


# --- the judge ----------------------------------------------------------------------------------------------------

STATE = State(ITEMS[0], PICTURE, ((LOOK, observed(TOOLS["segment"](PICTURE))),), NAMES)


@pytest.mark.parametrize("p, rating", [(0, 1), (0.25, 3.25), (0.5, 5.5), (np.float32(1), 10), (-3, 1), (1.2, 10)])
def test_a_chance_is_put_on_the_scale_of_ratings(p, rating):
    asked = []
    judged = Judge(lambda texts: asked.extend(texts) or [p], calls=3)(STATE, DONE)
    assert judged.rating == rating and judged.calls == 3 and judged.rating_justification
    assert judged.regeneration_needed == bool(judged.suggested_improvement) == (rating < 5.5)
    assert asked == [judge_text(ITEMS[0].question, STATE.taken, DONE)] and asked[0].endswith("\nIs this step right?\n")


@pytest.mark.parametrize("got", [[math.nan], [math.inf], [], [0.5, 0.5], [None], ["yes"], None, 0.5])
def test_a_score_that_is_no_finite_number_is_an_error(got):
    with pytest.raises(ValueError, match="judge gave .* for a step, wants one finite number") as e:
        Judge(lambda texts: got)(STATE, DONE)
    assert "\n" not in str(e.value)
    with pytest.raises(TypeError, match="score is '5'"):
        Judge(5)
    with pytest.raises(ValueError, match="calls is -1"):
        Judge(lambda texts: [1], calls=-1)
    with pytest.raises(ValueError, match="threshold=1.5: allowed is from 0 to 1"):
        Judge(lambda texts: [1], threshold=1.5)


def test_a_judge_says_what_to_do_better_below_its_own_threshold():
    for p, again in ((0.79, True), (0.8, False), (0.81, False)):
        judged = Judge(lambda texts: [p], threshold=0.8)(STATE, DONE)
        assert judged.rating == 1 + 9 * p
        assert judged.regeneration_needed == bool(judged.suggested_improvement) == again


def test_with_a_judge_that_knows_the_truth_nothing_wrong_is_accepted():
    known, policy = {}, Policy(PROGRAMS.get, truth=TRUTH, errors={"perception": 0.2, "relation": 0.2, "answer": 0.1})

    def noted(state):
        step = policy(state)
        known[judge_text(state.question, state.taken, step)] = step.facts["correct"]
        return step

    judge = Judge(lambda texts: [float(known[t]) for t in texts], name="knows")
    for tools in (TOOLS, in_words(TOOLS)):
        made = generate_all(ITEMS, noted, judge, tools, tau=5.5, alpha=12, guard=None, after="drop").traces
        tries = [a for t in made for a in t.attempts]
        assert any(not a.accepted for a in tries) and {a.step.facts["correct"] for a in tries if a.accepted} == {True}
        assert {a.step.facts["correct"] for a in tries if not a.accepted} == {False}
        assert all(t.correct and t.end == "answered" for t in made)
        assert made[0].settings["verifier"] == "knows" and all(a.rating.calls == 1 for a in tries)
    blind = Judge(lambda texts: [0.0])
    made = generate_all(ITEMS[:3], noted, blind, TOOLS, tau=5.5, alpha=1, guard=None, after="drop").traces
    assert {t.end for t in made} == {"dropped"}
