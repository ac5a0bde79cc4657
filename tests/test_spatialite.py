"""SpatiaLite items: official answers derived again, splits that never meet, malformed files named by line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spatial_nb.core import data_root, rng
from spatial_nb.items import gold, to_parquet
from spatial_nb.puzzle_questions import COLORS, SYMMETRIES, Pushing, Rolling, Sliding, Viewing
from spatial_nb.puzzles import (
    FACES,
    MIRRORED,
    ROLLS,
    SIDES,
    VIEWS,
    Blocks,
    Cube,
    MentalRotation,
    Polycube,
    Room,
    Stickers,
    play,
    shortest,
)
from spatial_nb.scores import best_constant, chance, score
from spatial_nb.spatialite import (
    LEVELS,
    TASKS,
    agreement,
    agrees,
    analyse,
    dataset,
    overlap,
    question,
    read_official,
    situation,
    solve,
    split_of,
    walks,
)
from spatial_nb.trajectories import one_line, read_trajectory, same_state, solution

FOLDER = data_root() / "spatialite"
needs_official = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}: set SPATIAL_NB_DATA")
every_task = pytest.mark.parametrize("task", TASKS)


@needs_official
@every_task
@pytest.mark.parametrize("wording", ["official", "short"])
def test_every_official_answer_is_derived_again(task, wording):
    items = read_official(FOLDER / f"{task}.jsonl", wording)
    assert [i.id for i in items if not agrees(i)] == []
    assert sum(r["agree"] for r in agreement(items)) == len(items) == len({i.id for i in items})
    for item in items:
        assert score(item, str(solve(item))).value == 1
        if item.kind == "actions":
            assert item.metadata["optimal_moves"] == len(solve(item)) and item.metadata["answer_type"] == "executive"
        else:
            assert score(item, str(item.metadata["official_answer"])).value == 1


@needs_official
def test_official_final_states_of_rubiks_cubes_are_ours_sticker_for_sticker():
    for item in read_official(FOLDER / "rubiks_cube.jsonl"):
        line = next(
            r
            for r in map(json.loads, (FOLDER / "rubiks_cube.jsonl").read_text().splitlines())
            if r["image"] == item.metadata["image"]
        )
        assert question(item).end == Stickers(tuple(tuple(sum(line["final_state"][s], [])) for s in SIDES))


@needs_official
def test_official_pictures_stand_where_they_are_and_are_drawn_where_not():
    items = read_official(FOLDER / "move_box.jsonl", modality="VTQA", images=FOLDER / "images" / "move_box")
    assert [i.images[0].size for i in items[:8]] == [(572, 572)] * 8
    assert all(len(i.images) == 1 for i in items) and items[-1].images[0].size != (572, 572)


@every_task
def test_the_perfect_answer_scores_one_and_a_wrong_one_none(task):
    items = dataset(task, "validation", 11, 40, modality="TQA")
    for item in items:
        q = question(item)
        assert score(item, q.said).value == score(item, str(solve(item))).value == 1
        assert score(item, solution(q)).value == 1
        assert score(item, "").value == score(item, "I cannot tell.").value == 0
    one_of_six = {"cube_rolling": 1, "rubiks_cube": np.mean([i.kind == "text" for i in items])}.get(task, 0)
    assert float(chance(items)) == pytest.approx(one_of_six / 6) and float(best_constant(items)) < 0.5


@every_task
def test_an_item_depends_on_seed_and_index_alone(task):
    a, b = dataset(task, "train", 5, 30, modality="TQA"), dataset(task, "train", 5, 9, modality="TQA")
    assert list(a[:9]) == list(b) and a[3] == a[3] and a[-1] == a[29]
    assert a[0].id != dataset(task, "train", 6, 1, modality="TQA")[0].id
    with pytest.raises(IndexError):
        a[30]


@every_task
def test_difficulty_bounds_steps(task):
    for name, (low, high) in LEVELS[task].items():
        items = dataset(task, "train", 1, 25, name, modality="TQA")
        assert all(low <= i.metadata["steps"] <= high for i in items)


@every_task
def test_splits_never_share_a_canonical_form_whatever_the_seeds(task):
    low = min(a for a, _ in LEVELS[task].values())
    forms = {
        split: {
            i.metadata["canonical"]
            for s in seeds
            for i in dataset(task, split, s, 60, steps=(low, low + 3), modality="TQA")
        }
        for split, seeds in (("train", (0, 1, 2)), ("validation", (0, 3)), ("test", (0, 5)))
    }
    assert not forms["train"] & forms["test"]
    assert not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]


@pytest.mark.parametrize("task", ["cube_rolling", "mental_rotation", "move_box", "wood_slide"])
def test_neighbouring_seeds_do_not_share_items_but_by_chance(task):
    a, b = (dataset(task, "train", seed, 100, "hard", modality="TQA") for seed in (42, 43))
    assert len({i.metadata["canonical"] for i in a} & {i.metadata["canonical"] for i in b}) <= 3


@pytest.mark.parametrize("task", ["move_box", "wood_slide"])
def test_optima_are_proven_by_another_search(task):
    for item in dataset(task, "test", 2, 8, "easy", modality="TQA"):
        q = question(item)
        assert len(shortest(q.puzzle, q.start)) == item.metadata["optimal_moves"] == len(item.answer)


def _twins(q) -> list:
    "`q` in disguise: the same question for another naming of sides, other numbers of blocks."
    if isinstance(q, Rolling):
        colors = dict(zip(FACES, q.start.colors, strict=True))
        return [
            Rolling(
                Cube(tuple({names[f]: c for f, c in colors.items()}[f] for f in FACES)),
                tuple(names[m] for m in q.path),
                names[q.face],
            )
            for names in SYMMETRIES
        ]
    if isinstance(q, Viewing):
        sides = {"front": (0, 0, 1), "back": (0, 0, -1), "left": (-1, 0, 0), "right": (1, 0, 0)}
        sides |= {"top": (0, 1, 0), "bottom": (0, -1, 0)}
        name = {v: k for k, v in sides.items()}
        return [
            Viewing(
                Polycube(tuple(map(tuple, (np.array(q.start.cells) @ m.T + 3).tolist())), q.start.colors),
                name[tuple((m @ np.array(sides[q.view])).tolist())],
            )
            for m in MIRRORED
        ]
    if isinstance(q, Pushing):
        grid = np.array([list(r) for r in q.start.rows])
        turned = [np.rot90(g, k) for g in (grid, grid.T) for k in range(4)]
        return [Pushing(Room(tuple("".join(r) for r in g))) for g in turned]
    if isinstance(q, Sliding):
        ids = np.array([0, 4, 7, 1, 9, 2, 3, 5, 8, 6])
        a, b = (ids[np.array(x.rows)] for x in (q.start, q.goal))
        turned = [(np.rot90(x, k), np.rot90(y, k)) for x, y in ((a, b), (a.T, b.T)) for k in range(4)]
        return [Sliding(*(Blocks(tuple(map(tuple, x.tolist()))) for x in pair)) for pair in turned]
    swap = {"left": "right", "right": "left"}
    start = Stickers.solved([q.start[swap.get(s, s)][4] for s in SIDES])
    path = [swap.get({"L": "left", "R": "right"}.get(m[0], ""), m[0])[0].upper() for m in q.path]
    path = [p + {"": "3", "2": "2", "3": ""}[m[1:]] for p, m in zip(path, q.path, strict=True)]
    spot = None if q.spot is None else 3 * (q.spot // 3) + 2 - q.spot % 3
    return [q, replace(q, start=start, path=path, side=swap.get(q.side, q.side), spot=spot)]


@every_task
def test_a_question_in_disguise_keeps_form_split_and_length_of_its_answer(task):
    for item in dataset(task, "train", 21, 12, modality="TQA"):
        q = question(item)
        for twin in _twins(q):
            assert (twin.form(), split_of(twin)) == (q.form(), item.metadata["split"])
            if q.kind == "actions":
                assert len(twin.answer) == len(q.answer)
            else:
                assert twin.answer == q.answer


@every_task
def test_another_question_has_another_form(task):
    items = dataset(task, "train", 22, 60, modality="TQA")
    by_form = {}
    for item in items:
        by_form.setdefault(item.metadata["canonical"], []).append(question(item))
    for same in by_form.values():
        assert all(q.steps == same[0].steps for q in same)
    assert len(by_form) > 20


@every_task
def test_trajectories_are_the_simulators_and_read_back(task):
    for item in dataset(task, "train", 3, 15, modality="TQA"):
        q = question(item)
        steps, said = read_trajectory(q.puzzle, solution(q))
        said_lines, true = ([one_line(q.puzzle, s) for s in some] for some in ([s.state for s in steps], q.states))
        assert said_lines == true
        assert score(item, f"Answer: {said}").value == 1


@every_task
def test_one_planted_fault_is_named_with_class_and_step(task):
    for item in dataset(task, "train", 4, 12, modality="TQA"):
        q = question(item)
        assert analyse(item, solution(q)).failure is None
        lines = solution(q).split("\n")
        for k in range(len(q.path) + 1):
            others = [*q.states, *(q.puzzle.apply(q.states[k], m) for m in q.puzzle.moves(q.states[k]))]
            other = next(s for s in others if not same_state(q.puzzle, s, q.states[k]))
            faulty = [*lines]
            faulty[k] = f"{lines[k].split(':')[0]}: {one_line(q.puzzle, other)}"
            found = analyse(item, "\n".join(faulty))
            assert (found.failure, found.step) == ("transformation" if k else "perception", k)
        if q.kind == "actions":
            found = analyse(item, solution(q, q.path[:-1]) if len(q.path) > 1 else "Answer: ")
            assert found.failure == ("strategy" if len(q.path) > 1 else "unstated") and not found.right


def test_an_illegal_plan_leaves_the_official_denominator_and_is_wrong_in_ours():
    room = dataset("move_box", "train", 0, 1, "easy", modality="TQA")[0]
    blocked = next(d for d in "udlr" if d not in question(room).puzzle.moves(question(room).start))
    said = score(room, str([blocked, *solve(room)]))
    assert (said.value, said.outcome.official, said.outcome.illegal) == (0, None, 1)
    longer = score(room, str([*solve(room), "u", "d"]))
    assert (longer.value, longer.outcome.extra, longer.outcome.reached) == (1, 2, len(solve(room)))


def test_modalities_show_or_tell_the_state():
    for task in TASKS:
        told, both, shown = (dataset(task, "test", 1, 2, modality=m)[0] for m in ("TQA", "VTQA", "VQA"))
        assert (len(told.images), len(both.images), len(shown.images)) == (0, 1, 1)
        assert told.question == both.question and len(shown.question) < len(told.question)
        assert told.answer == both.answer == shown.answer


def test_pictures_are_the_same_bytes_again(tmp_path):
    for k in range(2):
        to_parquet(dataset("wood_slide", "train", 0, 3, size=240), tmp_path / f"{k}.parquet")
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


@every_task
def test_walks_write_down_every_state(task):
    for item in walks(task, "train", 3, 12, steps=(1, 9)):
        q = question(item)
        steps, said = read_trajectory(q.puzzle, gold(item))
        assert (steps[0].move, said) == ("start", None)
        assert [s.move for s in steps[1:]] == item.metadata["moves"] and 1 <= len(steps) - 1 <= 9
        true = [one_line(q.puzzle, s) for s in play(q.puzzle, q.start, item.metadata["moves"])]
        assert [one_line(q.puzzle, s.state) for s in steps] == true
        assert true[0] in item.question
        if task in ("cube_rolling", "rubiks_cube"):  # so that a check of training data meets what was walked
            assert q.path == tuple(item.metadata["moves"])
        else:
            assert split_of(q) == "train"


def test_walks_depend_on_their_arguments_only():
    assert walks("move_box", "train", 1, 9)[5] == walks("move_box", "train", 1, 6)[5]
    assert walks("move_box", "train", 1, 9)[5] != walks("move_box", "train", 2, 9)[5]
    with pytest.raises(ValueError, match="wants fewest <= most"):
        walks("move_box", "train", 1, 9, steps=(4, 3))
    with pytest.raises(IndexError, match="walk 9 of 9"):
        walks("move_box", "train", 1, 9)[9]


@every_task
def test_a_situation_is_start_and_moves_whatever_is_asked(task):
    items = dataset(task, "train", 0, 30, modality="TQA")
    assert len({situation(i) for i in items}) >= 28
    q = question(items[0])
    others = dict(
        cube_rolling=lambda: [replace(q, face=f) for f in FACES],
        rubiks_cube=lambda: [replace(q, spot=k, color=None, side=s) for k in (0, 5) for s in ("up", "back")],
        mental_rotation=lambda: [replace(q, view=v) for v in VIEWS],
    ).get(task, lambda: [q])()
    assert {
        situation(replace(items[0], metadata=items[0].metadata | {"initial_state": o.state()})) for o in others
    } == {situation(items[0])}


@every_task
def test_overlap_finds_a_question_in_disguise(task):
    training = dataset(task, "train", 0, 40, modality="TQA")
    assert overlap(training, training) == [i.id for i in training]
    assert overlap(dataset(task, "test", 0, 40, modality="TQA"), training) == []


def test_canonical_forms_of_rolling_tell_different_questions_apart():
    """Equal canonical forms only where one of the eight symmetries makes one question of the other."""
    groups = {}
    for i in range(3000):
        draw = rng("test", "apart", i)
        start = Cube(tuple(COLORS[j] for j in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5])[draw.integers(2)]))
        q = Rolling(start, tuple(list(ROLLS)[j] for j in draw.integers(0, 4, size=2)), FACES[draw.integers(6)])
        groups.setdefault(q.form(), set()).add(q)
    for form, questions in groups.items():
        one = next(iter(questions))
        assert questions <= set(_twins(one)), form


def test_a_turned_body_is_the_same_question_seen_from_where_its_side_went():
    body = Polycube(((0, 0, 0), (1, 0, 0), (0, 1, 0)), ("red", "blue", "green"))
    turned = MentalRotation().apply(body, "y")
    assert Viewing(body, "left").form() == Viewing(turned, "front").form() != Viewing(body, "top").form()


def test_no_question_about_a_cube_is_answered_by_its_center():
    asked = [question(i) for i in dataset("rubiks_cube", "train", 8, 300, modality="TQA")]
    assert {q.spot for q in asked if q.color is None} == {0, 1, 2, 3, 5, 6, 7, 8}
    assert np.mean([q.answer == 0 for q in asked if q.color]) < 0.35


def test_rooms_of_medium_difficulty_are_longer_than_easy_ones():
    steps = [
        [i.metadata["steps"] for i in dataset("move_box", "train", 8, 200, d, modality="TQA")]
        for d in LEVELS["move_box"]
    ]
    easy, medium, hard = map(np.median, steps)
    assert easy < medium < hard


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
ROOM = {"task_type": None, "environment_type": "moving_box", "question": "?", "answer": "1", "image": "a/b.jpg"}
BOARD = {"task_type": "wood_slide", "question": "?", "answer": "", "image": "w.png"}


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
        (
            json.dumps(ROOM | {"initial_state": {"map": ["#####", "#SB##", "##.T#", "#####"]}}),
            "line 2: this room has no way",
        ),
        (json.dumps(ROOM | {"initial_state": {"map": ["####", "#SB#", "####"]}}), "line 2: a room has 1 persons"),
        (
            json.dumps(BOARD | {k: {"map": [[1, 0], [0, 1]]} for k in ("initial_state", "final_state")}),
            "line 2: block 1 covers 2 cells",
        ),
        (
            json.dumps(BOARD | {"initial_state": {"map": [[1, 2, 0]]}, "final_state": {"map": [[2, 1, 0]]}}),
            "line 2: these blocks have no way",
        ),
        (
            json.dumps(BOARD | {"initial_state": {"map": [[1, 2, 0]]}, "final_state": {"map": [[1, 0, 0]]}}),
            "line 2: start and goal have different blocks",
        ),
    ],
)
def test_a_malformed_official_line_is_named_by_file_and_line(tmp_path, line, says):
    file = tmp_path / "cube_rolling.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    with pytest.raises(ValueError) as e:
        read_official(file)
    assert says in str(e.value) and "cube_rolling.jsonl" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: dataset("sokoban", "train", 0, 3), "task is 'sokoban'"),
        (lambda: dataset("move_box", "training", 0, 3), "did you mean 'train'"),
        (lambda: dataset("move_box", "train", 0, 3, "impossible"), "difficulty is 'impossible'"),
        (lambda: dataset("move_box", "train", 0, 3, modality="text"), "modality is 'text'"),
        (lambda: dataset("move_box", "train", 0, 3, style="fancy"), "style is 'fancy'"),
        (lambda: dataset("move_box", "train", 0, 0), "n is 0"),
        (lambda: dataset("move_box", "train", 0, 3, "easy", steps=(3, 4)), "give one of them"),
        (lambda: dataset("cube_rolling", "train", 0, 3, steps=(9, 8)), "fewest <= most"),
    ],
)
def test_an_impossible_dataset_is_refused_in_one_line(call, says):
    with pytest.raises(ValueError) as e:
        call()
    assert says in str(e.value) and "\n" not in str(e.value)
