"What each word of a step repeats: it was said before, it says the same, and drills say what is so."

import re
from dataclasses import replace

import pytest
from PIL import Image

from spatial_nb import acting, tools
from spatial_nb.chains import FORMS, chain
from spatial_nb.core import rng
from spatial_nb.items import Item
from spatial_nb.policy import Policy
from spatial_nb.programs import World
from spatial_nb.scenes import ATTRIBUTES, sample_scene
from spatial_nb.spatialtracegen import generate
from spatial_nb.trace_sources import drill, step_pieces

NAMES = {w for words in ATTRIBUTES.values() for w in words}
SIDES = {"left of": (0, True), "right of": (0, False), "in front of": (1, True), "behind": (1, False)}


def traces(errors, form="steps"):
    "Traces of chains about a few scenes, with tools that speak in words."
    for k in range(12):
        scene = sample_scene(rng("test sources", k), n=5)
        q = chain(scene, rng("test sources", k, "q"), k % 4, form=form)
        if q is None:
            continue
        heard = acting.in_words(tools.toolset(tools.Oracle(scene)))
        world = World(scene)
        generator = Policy(parse=lambda _, p=q.program: p, truth=lambda _, w=world: w, errors=errors)
        item = Item(f"q{k}", q.text, [Image.new("RGB", (480, 320))], q.answer, q.kind, q.options and list(q.options))
        yield generate(item, generator, None, heard, tau=0, seed=k)


def steps(trace):
    before = ()
    for a in trace.accepted:
        yield trace.question, before, a.step
        before = (*before, (a.step, a.observation))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("errors", [0.0, 0.15])
def test_pieces_spell_what_a_model_reads_and_writes_and_look_back(form, errors):
    n = 0
    for trace in traces(errors, form):
        for question, before, step in steps(trace):
            state, said = step_pieces(question, before, step)
            assert "".join(p.text for p in state) == acting.transcript(question, before)
            assert "".join(p.text for p in said) == str(step)
            place = {p.name: k for k, p in enumerate(state + said)}
            for k, p in enumerate(state + said):
                assert p.of is None or place[p.of] < k or p.text.strip() in ",;.", (p, trace.id)
                n += p.of is not None
    assert n > 500


def test_every_name_in_a_step_without_mistakes_comes_from_somewhere():
    "The words of objects in claims and plans; those of an answer from the last claim."
    for trace in traces(0.0):
        for question, before, step in steps(trace):
            state, said = step_pieces(question, before, step)
            text = {p.name: k for k, p in enumerate(state + said)}
            names = [p for p in said if p.text.strip() in NAMES]
            assert names and all(p.of for p in names), [p.text for p in names if not p.of]
            for p in names:  # the same word, or the last one of an object that has it
                at = text[p.of]
                assert p.text.strip() in [w.text.strip() for w in (state + said)[max(0, at - 3) : at + 1]]


def test_the_next_item_of_the_plan_is_found_across_a_call():
    trace = next(t for t in traces(0.0) if [s.tool for s in t.steps][:2] == ["segment", "depth"])
    *_, last = steps(trace)
    state, said = step_pieces(*last)
    text = {p.name: k for k, p in enumerate(state + said)}
    first = next(p for p in said if p.text == " things")
    assert first.of and first.by and all(text[b] < text[first.name] for b in first.by)
    plan = trace.steps[0].reasoning.removeprefix("I look for ").split(". Next")[0].split("; ")
    done = trace.steps[1].reasoning.count(";") - 1  # claims after the list, each an item of the plan
    upto = "".join(p.text for p in state[: text[first.of]])
    assert upto.endswith(plan[done] + ";") and plan[done + 1].startswith("things ")


def run(lists, claims):
    "Whether each claim is so; what is beside, or picked, is kept for the next."
    them, out = None, []
    for claim in claims:
        head, _, tail = claim.partition(": ")
        if m := re.fullmatch(r"things (left of|right of|in front of|behind) the (.+)", head):
            which, before = SIDES[m[1]]
            at = lists[which].index(m[2])
            them = lists[which][:at] if before else lists[which][at + 1 :]
            out.append(tail == (", ".join(them) or "none"))
        elif m := re.fullmatch(r"the number of them is (\d+)", claim):
            out.append(int(m[1]) == len(them))
            them = None
        elif head == "whether there are any":
            out.append(tail == ("yes" if them else "no"))
            them = None
        elif m := re.fullmatch(r"the (\w+) of the (.+) is (\w+)", claim):
            out.append(m[2].split()[list(ATTRIBUTES).index(m[1])] == m[3])
        elif m := re.fullmatch(r"the (.+?)( among them)? is the (.+)", claim):
            some, wanted = them if m[2] else lists[-1], set(m[1].split()) - {"thing"}
            out.append([o for o in some if wanted <= set(o.split())] == [m[3]])
            them = None
        elif head.endswith("among them"):
            wanted = {w.removesuffix("s") for w in head.removesuffix(" among them").split()} - {"thing"}
            them = [o for o in them if wanted <= set(o.split())]
            out.append(tail == (", ".join(them) or "none"))
        else:
            out.append(claim == ", ".join(lists[-1]))
    return out


def test_drills_say_what_is_so():
    kinds = set()
    for k in range(300):
        asked, said = ("".join(p.text for p in part) for part in drill(rng("test drill", k), (1, 7)))
        lists = [line.split(": ", 2)[2].split(", ") for line in asked.splitlines() if line.startswith("Tool output: ")]
        claims = said.partition(" shows ")[2].removesuffix(".").split("; ")
        lists = lists * 2 if len(lists) == 1 else lists
        assert all(run(lists, claims)), (asked, said)
        plan = asked.splitlines()[0].removeprefix("Instructions: ").removesuffix(".").split("; ")
        assert len(plan) == len(claims) - (claims[0] == ", ".join(lists[-1]))
        kinds |= {re.sub(r"(the|of|than) .*", "", p) for p in plan}
        assert sorted(lists[0]) == sorted(lists[1]) and len(set(lists[0])) == len(lists[0])
    assert len(kinds) > 6


def test_bad_sizes_are_named():
    for bad in (dict(objects=(0, 3)), dict(orders=(4, 3))):
        with pytest.raises(ValueError, match=rf"{next(iter(bad))} is \({next(iter(bad.values()))[0]}"):
            drill(rng("x"), **bad)
    with pytest.raises(
        ValueError, match=r"objects is \(3, 16\), wants at most 15: among more, three words may tell none"
    ):
        drill(rng("x"), objects=(3, 16))
    for k in range(20):
        most = "".join(p.text for p in drill(rng("x", k), objects=(15, 15))[0]).splitlines()[1]
        assert len(set(most.partition(": from ")[2].partition(": ")[2].split(", "))) == 15


def test_a_step_of_another_form_is_spelled_all_the_same():
    [trace] = [t for k, t in enumerate(traces(0.0)) if k == 1]
    for said in ('I "think"\nso', "segment shows nothing. Next, depth.", " ; ", "I look for . Next, segment."):
        step = replace(trace.steps[0], reasoning=said)
        state, pieces = step_pieces(trace.question, [], step)
        assert "".join(p.text for p in pieces) == str(step)
