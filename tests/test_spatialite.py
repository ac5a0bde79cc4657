"""SpatiaLite items: official answers derived again, splits that never meet, malformed files named by line."""

import json

import pytest

from spatial_nb.core import data_root, rng
from spatial_nb.puzzles import FACES, ROLLS, Cube
from spatial_nb.scores import score
from spatial_nb.spatialite import (
    COLORS,
    SYMMETRIES,
    Rolling,
    agreement,
    answer_only,
    canonical,
    dataset,
    overlap,
    read_official,
    read_simulation,
    rolling,
    simulate,
    split_of,
    transform,
)

OFFICIAL = data_root() / "spatialite" / "cube_rolling.jsonl"
needs_official = pytest.mark.skipif(not OFFICIAL.is_file(), reason=f"no {OFFICIAL}: set SPATIAL_NB_DATA")


def _any_question(*key) -> Rolling:
    draw = rng("test", "rolling", *key)
    colors = tuple(COLORS[j] for j in draw.permutation(6))
    path = tuple(list(ROLLS)[j] for j in draw.integers(0, 4, size=draw.integers(1, 16)))
    return Rolling(Cube(colors), path, FACES[draw.integers(6)])


@needs_official
@pytest.mark.parametrize("wording", ["official", "short"])
def test_every_official_answer_and_question_is_derived_again(wording):
    items = read_official(OFFICIAL, wording)
    for row in agreement(items):
        assert row["answers"] == row["questions"] == row["items"]
    assert len({i.id for i in items}) == len(items)
    for item in items:
        assert score(item, item.metadata["official_answer"]).value == 1
        assert score(item, simulate(item)).value == 1


def test_splits_never_share_a_canonical_form_whatever_the_seeds():
    forms = {
        split: {
            i.metadata["canonical"] for seed in seeds for i in dataset("cube_rolling", split, seed, 150, steps=(2, 4))
        }
        for split, seeds in (("train", (0, 1, 2)), ("validation", (0, 3)), ("test", (0, 5)))
    }
    assert not forms["train"] & forms["test"]
    assert not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]


def test_neighbouring_seeds_do_not_share_items():
    a, b = (dataset("cube_rolling", "train", seed, 200, steps=(9, 15)) for seed in (42, 43))
    assert not {i.metadata["canonical"] for i in a} & {i.metadata["canonical"] for i in b}


def test_symmetries_keep_answer_canonical_form_and_split():
    assert len({tuple(sorted(s.items())) for s in SYMMETRIES}) == 8
    for i in range(40):
        q = _any_question(i)
        for names in SYMMETRIES:
            other = transform(q, names)
            assert (other.answer, canonical(other), split_of(other)) == (q.answer, canonical(q), split_of(q))


def test_canonical_form_tells_different_questions_apart():
    """Equal canonical forms only where one of the eight symmetries makes one question of the other."""
    groups = {}
    for i in range(3000):
        draw = rng("test", "apart", i)
        start = Cube(tuple(COLORS[j] for j in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5])[draw.integers(2)]))
        q = Rolling(start, tuple(list(ROLLS)[j] for j in draw.integers(0, 4, size=2)), FACES[draw.integers(6)])
        groups.setdefault(canonical(q), set()).add(q)
    for form, questions in groups.items():
        one = next(iter(questions))
        assert questions <= {transform(one, names) for names in SYMMETRIES}, form


def test_simulation_text_round_trips_for_every_length():
    for steps in (1, 3, 8, 15, 20):
        for item in dataset("cube_rolling", "train", 0, 5, steps=(steps, steps)):
            said, q = read_simulation(simulate(item)), rolling(item)
            assert (said.path, said.face, said.answer, said.first) == (q.path, q.face, q.answer, item.metadata["first"])
            assert [s.colors for s in said.states] == [s.colors for s in q.states[1:]]
            assert simulate(item).endswith(answer_only(item))


@pytest.mark.parametrize("text", ["", "The top face is red.", "a right: red\nThe top face is red.", "red"])
def test_text_that_is_no_simulation_is_refused(text):
    with pytest.raises(ValueError, match="simulation"):
        read_simulation(text)


def test_wordings_ask_the_same_questions():
    short, official = (dataset("cube_rolling", "test", 3, 20, wording=w) for w in ("short", "official"))
    for a, b in zip(short, official, strict=True):
        assert rolling(a) == rolling(b) and a.answer == b.answer and a.id != b.id


def test_overlap_finds_a_question_in_disguise():
    training = dataset("cube_rolling", "train", 0, 50)
    assert overlap(training, training) == [i.id for i in training]
    assert overlap(dataset("cube_rolling", "test", 0, 50), training) == []


GOOD = {
    "question": "?",
    "answer": "After following the rolling path, the top face of the cube will be red.",
    "image": "cube_rolling_1(8steps).png",
    "task_type": "cube_rolling",
    "question_type": "descrip",
    "initial_state": {
        "initial_colors": dict(zip(FACES, COLORS, strict=True)),
        "rolling_path": ["right"],
        "test_face": "top",
    },
}
STATE = GOOD["initial_state"]


@pytest.mark.parametrize(
    "line, says",
    [
        ("{", "line 2: "),
        ("[]", "line 2: "),
        (json.dumps({k: v for k, v in GOOD.items() if k != "answer"}), "line 2: no field 'answer'"),
        (
            json.dumps(GOOD | {"task_type": "cube_roling"}),
            "line 2: task_type is 'cube_roling': did you mean 'cube_rolling'",
        ),
        (json.dumps(GOOD | {"initial_state": STATE | {"rolling_path": ["up"]}}), "line 2: path has a roll 'up'"),
        (json.dumps(GOOD | {"initial_state": STATE | {"rolling_path": []}}), "line 2: path has 0 rolls"),
        (json.dumps(GOOD | {"initial_state": STATE | {"test_face": "side"}}), "line 2: face is 'side'"),
        (
            json.dumps(GOOD | {"initial_state": STATE | {"initial_colors": dict.fromkeys(FACES, "red")}}),
            "line 2: cube colors are",
        ),
        (json.dumps(GOOD | {"initial_state": STATE | {"initial_colors": {"top": "red"}}}), "line 2: faces are"),
    ],
)
def test_a_malformed_official_line_is_named_by_file_and_line(tmp_path, line, says):
    file = tmp_path / "cube_rolling.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(ValueError) as e:
        read_official(file)
    assert says in str(e.value) and "cube_rolling.jsonl" in str(e.value) and "\n" not in str(e.value)
