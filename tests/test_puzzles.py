"""What the puzzles owe to the outside: other people's simulator, and the protocol that search and play rely on."""

import pickle
from itertools import product

import pytest

from spatial_nb.core import rng
from spatial_nb.puzzles import FACES, ROLLS, Cube, CubeRolling, Puzzle, play, shortest

DIE = Cube(("blue", "gray", "yellow", "green", "red", "black"))
PUZZLES = [(CubeRolling(goal=play(CubeRolling(), DIE, ("right", "back", "left"))[-1], board=(3, 3)), DIE)]
TO_TOP = {"front": ("back",), "right": ("left",), "back": ("front",), "left": ("right",), "bottom": ("front", "front")}


@pytest.mark.parametrize("puzzle, start", PUZZLES, ids=lambda v: getattr(v, "name", ""))
def test_every_puzzle_keeps_the_protocol(puzzle, start):
    assert isinstance(puzzle, Puzzle)
    before = hash(start)
    for move in puzzle.moves(start):
        after = puzzle.apply(start, move)
        assert after != start and hash(start) == before
        assert puzzle.read(puzzle.text(after)) == after
        assert all(set(s) == {"name", "color", "corners"} for s in puzzle.shapes(after))
    assert pickle.loads(pickle.dumps(start)) == start


@pytest.mark.parametrize("puzzle, start", PUZZLES, ids=lambda v: getattr(v, "name", ""))
def test_a_solution_reaches_the_goal_and_no_shorter_one_exists(puzzle, start):
    plan = puzzle.solve(start)
    assert puzzle.solved(play(puzzle, start, plan)[-1]) and len(plan) == puzzle.distance(start)
    for n in range(len(plan)):
        for moves in product(ROLLS, repeat=n):
            try:
                assert not puzzle.solved(play(puzzle, start, moves)[-1])
            except ValueError:
                continue


def test_rolling_agrees_with_reasoning_gym():
    """reasoning-gym turns a named side to the top; that is a roll away from that side (two for the bottom)."""
    gym = pytest.importorskip("reasoning_gym", reason="wants pip install reasoning-gym==0.1.25")
    items = gym.create_dataset("color_cube_rotation", seed=7, size=200, min_rotations=1, max_rotations=20)
    for item in items:
        m = item["metadata"]
        moves = [move for side in m["rotations"] for move in TO_TOP[side]]
        cube = Cube(tuple(m["initial_state"][f] for f in FACES))
        assert play(CubeRolling(), cube, moves)[-1][m["target_side"]] == item["answer"]


def test_random_walks_and_their_way_back_are_the_identity():
    back = {"right": "left", "left": "right", "front": "back", "back": "front"}
    for i in range(50):
        walk = [list(ROLLS)[j] for j in rng("test", "walk", i).integers(0, 4, size=12)]
        assert play(CubeRolling(), DIE, [*walk, *(back[m] for m in reversed(walk))])[-1] == DIE


def test_search_gives_up_at_its_limit_and_says_so():
    mirrored = Cube(("gray", "blue", *DIE.colors[2:]))
    with pytest.raises(ValueError, match="other positions"):
        CubeRolling(mirrored).solve(DIE)
    with pytest.raises(ValueError, match="first 1000 states"):
        shortest(CubeRolling(mirrored), DIE, limit=1000)


@pytest.mark.parametrize("board", [(0, 3), (3,), (2, -1)])
def test_a_board_without_cells_is_refused(board):
    with pytest.raises(ValueError, match="board is"):
        CubeRolling(board=board)
