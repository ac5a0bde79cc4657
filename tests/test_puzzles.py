"""What the puzzles owe to the outside: other people's simulator, and the protocol that search and play rely on."""

import pickle

import numpy as np
import pytest

from spatial_nb.core import rng
from spatial_nb.puzzles import (
    FACES,
    ROLLS,
    SIDES,
    TURNED,
    TURNS,
    Blocks,
    Cube,
    CubeRolling,
    MentalRotation,
    MoveBox,
    Polycube,
    Puzzle,
    Room,
    RubiksCube,
    Stickers,
    WoodSlide,
    play,
    shortest,
)
from spatial_nb.search import pulls

DIE = Cube(("blue", "gray", "yellow", "green", "red", "black"))
CHAIR = Polycube(((0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0)), ("red", "blue", "green", "gray", "yellow"))
ROOM = Room(("######", "#..T.#", "#.B#.#", "#.S..#", "######"))
BOARD = Blocks(((1, 1, 2, 2), (1, 1, 3, 3), (0, 0, 4, 5), (6, 7, 8, 8), (6, 7, 9, 9)))
FRESH = Stickers.solved(("red", "orange", "green", "blue", "yellow", "grey"))
PUZZLES = [
    (CubeRolling(goal=play(CubeRolling(), DIE, ("right", "back", "left"))[-1], board=(3, 3)), DIE),
    (RubiksCube(), play(RubiksCube(), FRESH, ("R", "U3", "F2"))[-1]),
    (MentalRotation(play(MentalRotation(), CHAIR, ("x", "y", "z"))[-1]), CHAIR),
    (MoveBox(), ROOM),
    (WoodSlide(play(WoodSlide(), BOARD, ("1d", "2l", "2l", "3u"))[-1]), BOARD),
]
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
    near = {start}
    for _ in range(len(plan)):
        assert not any(map(puzzle.solved, near))
        near |= {puzzle.apply(s, m) for s in near for m in puzzle.moves(s)}


def test_turns_agree_with_magiccube_sticker_for_sticker():
    magiccube = pytest.importorskip("magiccube", reason="wants pip install magiccube==0.3.0")
    letters = dict(zip("WROGBY", ("white", "red", "orange", "green", "blue", "yellow"), strict=True))
    theirs = dict(up="U", down="D", left="L", right="R", front="F", back="B")

    def ours(cube):
        "Their cube as our state."
        faces = {f.name: cube.get_face_flat(f) for f in magiccube.cube_base.Face}
        return Stickers(tuple(tuple(letters[c.name] for c in faces[theirs[side]]) for side in SIDES))

    for i in range(100):
        walk = [list(TURNS)[j] for j in rng("test", "turns", i).integers(0, 18, size=1 + i % 20)]
        cube = magiccube.Cube(3)
        start = ours(cube)
        cube.rotate(" ".join(m.replace("3", "'") for m in walk))
        assert play(RubiksCube(), start, walk)[-1] == ours(cube)


def test_1023_polycubes_of_seven_cubes_are_different_and_not_only_mirrored():
    def one(cells):
        every = np.array(cells) @ TURNED.transpose(0, 2, 1)
        every -= every.min(1, keepdims=True)
        return min(tuple(sorted(map(tuple, body))) for body in every.tolist())

    bodies, counts = {((0, 0, 0),)}, []
    for _ in range(7):
        counts.append(len(bodies))
        steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
        more = {(b, tuple(np.add(c, d).tolist())) for b in bodies for c in b for d in steps}
        bodies = {one([*b, c]) for b, c in more if c not in b} if len(counts) < 7 else bodies
    assert counts == [1, 1, 2, 8, 29, 166, 1023]


def test_the_classic_takes_81_moves_when_a_block_may_slide_on():
    "Many unit slides of one block in a row count as one move; equal blocks need not be told apart."
    shape = {1: "I", 3: "I", 4: "I", 6: "I", 2: "O", 5: "H", 7: "o", 8: "o", 9: "o", 10: "o"}
    puzzle = WoodSlide()

    def alike(s):
        firsts = {v: (y, x) for y in range(4, -1, -1) for x in range(3, -1, -1) if (v := s.rows[y][x])}
        return frozenset((shape[v], cell) for v, cell in firsts.items())

    def slid_on(s):
        "All states that one block reaches alone."
        for b in shape:
            held, edge = {s}, [s]
            while edge:
                here = edge.pop()
                for d in "udlr":
                    rows = puzzle._slid(here, b, d)
                    if rows and (new := Blocks(rows)) not in held:
                        held.add(new)
                        edge.append(new)
            yield from held - {s}

    start = Blocks(((1, 2, 2, 3), (1, 2, 2, 3), (4, 5, 5, 6), (4, 7, 8, 6), (9, 0, 0, 10)))
    layer, seen, moves = [start], {alike(start)}, 0
    while not any(("O", (3, 1)) in alike(s) for s in layer):
        new = {alike(n): n for s in layer for n in slid_on(s)}
        layer, moves = [n for k, n in new.items() if k not in seen], moves + 1
        seen |= set(new)
    assert moves == 81


def test_forward_and_backward_search_agree_on_random_rooms():
    for i in range(60):
        draw = rng("test", "rooms", i)
        inner = draw.choice(list("...#"), size=(4, 4))
        cells = draw.permutation(16)[:3]
        inner.flat[cells] = list("SBT")
        room = Room(("######", *("#" + "".join(r) + "#" for r in inner), "######"))
        far = pulls(np.array([c != "#" for c in "".join(room.rows)]), 6, np.array(room.targets))
        far = far[room.person, room.boxes[0]]
        if far < 0:
            with pytest.raises(ValueError, match="no way"):
                MoveBox().solve(room)
        else:
            assert MoveBox().distance(room) == far == len(shortest(MoveBox(), room))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Blocks(((1, 1), (0, 3))), "without a gap"),
        (lambda: Blocks(((1, 0, 1),)), "block 1 covers 2 cells"),
        (lambda: Blocks(((1, 1),)), "no empty cell"),
        (lambda: Blocks(()), "rows of one length"),
        (lambda: Room(("####", "#SB#", "####")), "1 boxes and 0 targets"),
        (lambda: Room(("#####", "#SBT.", "#####")), "wall all around"),
        (lambda: Room(("#####", "#SxT#", "#####")), "a room has 'x'"),
        (lambda: Stickers((("red",) * 9,) * 6), "'red' is on 54 stickers"),
        (lambda: Stickers((("red",) * 8,) * 6), "9 on each of 6"),
        (lambda: Polycube((), ()), "0 cells"),
    ],
)
def test_an_impossible_state_is_refused_in_one_line(make, says):
    with pytest.raises(ValueError) as e:
        make()
    assert says in str(e.value) and "\n" not in str(e.value)


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
