"""What the puzzles owe to the outside: other people's simulator, and the protocol that search and play rely on."""

import colorsys
import pickle
from collections import Counter

import numpy as np
import pytest

from spatial_nb.core import rng
from spatial_nb.puzzle_pictures import PAINT, SOLID_PAINT, STICKER_PAINT, WOOD, mask, picture
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


PATH = ("right", "front", "right", "right", "front")
SCRAMBLED = play(RubiksCube(), FRESH, ("R", "U3", "F2", "L", "D", "B3", "U2", "R3"))[-1]
L_SHAPE = Polycube(((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)), ("red", "yellow", "blue", "green"))
SHOWN = dict(
    cube_rolling=(DIE, PATH),
    rubiks_cube=(SCRAMBLED,),
    move_box=(ROOM,),
    wood_slide=(BOARD, play(WoodSlide(), BOARD, ("1d", "2l"))[-1]),
    mental_rotation=(L_SHAPE,),
)


def masked(task, size=None):
    "Pixels of a picture, its mask, and the words."
    return np.array(picture(task, *SHOWN[task], size=size)), *mask(task, *SHOWN[task], size=size)


@pytest.mark.parametrize("size", [None, 211])
@pytest.mark.parametrize("task", SHOWN)
def test_a_mask_has_the_size_of_its_picture_and_a_word_for_every_number(task, size):
    pixels, at, words = masked(task, size)
    assert at.shape == pixels.shape[:2] and at.dtype == np.int8
    assert at.min() == -1 and at.max() == len(words) - 1


@pytest.mark.parametrize("cube, hidden", [(SCRAMBLED, 0), (FRESH, 2)], ids=["scrambled", "solved"])
def test_a_sticker_has_the_pixels_of_its_paint_and_there_are_no_others(cube, hidden):
    "The solved cube, as in the benchmark, hides a sticker of the left and one of the lower plate."
    pixels = np.array(picture("rubiks_cube", cube, size=384))
    at, words = mask("rubiks_cube", cube, size=384)
    assert words == [c for side in cube.faces for c in side]
    paints = np.array([STICKER_PAINT["gray" if w == "grey" else w] for w in words])
    seen = sorted(set(at.ravel().tolist()) - {-1})
    assert len(seen) == 54 - hidden
    for i in seen:  # half of its pixels or more have the paint, the rest are lines and letters
        assert np.median(pixels[at == i], 0).tolist() == paints[i].tolist(), (i, words[i])
    pure = (pixels[:, :, None] == np.unique(paints, axis=0)).all(-1).any(-1)
    assert pure.sum() > 10_000 and (at[pure] >= 0).all() and (paints[at[pure]] == pixels[pure]).all()


def test_stickers_of_one_side_lie_in_its_plate_row_by_row():
    "Up and front are seen twice, right side up; the number grows to the right of the picture and to its front."
    at, _ = mask("rubiks_cube", SCRAMBLED, size=384)
    middle = np.array([np.argwhere(at == i).mean(0) for i in range(54)]).reshape(6, 3, 3, 2)  # (y, x)
    front = middle[SIDES.index("front")]
    assert (np.diff(front[..., 0], axis=0) > 0).all() and (np.diff(front[..., 1], axis=1) > 0).all()
    up = middle[SIDES.index("up")].sum(-1)  # down and to the right at once
    assert (np.diff(up, axis=1) > 0).all()


def test_the_cells_of_a_room_tile_it():
    pixels, at, words = masked("move_box", 480)
    assert "".join(words) == "".join(ROOM.rows)
    ys, xs = np.nonzero(at >= 0)
    inside = at[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    px = inside.shape[1] // 6
    assert (inside == np.arange(30).reshape(5, 6).repeat(px, 0).repeat(px, 1)).all() and px > 60
    tiles = {}
    for i, c in enumerate(words):
        tiles.setdefault(c, set()).add(pixels[at == i].tobytes())
    assert all(len(t) == 1 for t in tiles.values()) and len(set.union(*tiles.values())) == 5  # # . B S T
    assert set(tiles["."].pop()) == {255}


def test_the_cells_of_both_boards_have_the_paint_of_their_blocks():
    pixels, at, words = masked("wood_slide")
    start, goal = SHOWN["wood_slide"]
    assert words == [str(v) for s in (start, goal) for r in s.rows for v in r] and start != goal
    for i, w in enumerate(words):
        [(paint, _)] = Counter(map(tuple, pixels[at == i].tolist())).most_common(1)
        assert paint == (WOOD[(int(w) - 1) % 7] if w != "0" else (255, 255, 255)), (i, w)
    middle = np.array([np.argwhere(at == i).mean(0) for i in range(40)]).reshape(2, 5, 4, 2)
    assert (np.diff(middle[..., 0], axis=1) > 0).all() and (np.diff(middle[..., 1], axis=2) > 0).all()
    assert middle[0, ..., 1].max() < middle[1, ..., 1].min()


def test_the_pixels_of_a_cube_have_its_hue_in_all_views():
    pixels, at, words = masked("mental_rotation")
    assert words == list(L_SHAPE.colors)
    hue = lambda rgb: colorsys.rgb_to_hsv(*rgb)[0]
    apart = lambda a, b: min(abs(a - b), 1 - abs(a - b))
    inner = at >= 0  # and so are the neighbors: a pixel on an edge is a mixture
    for axis in (0, 1):
        for by in (-1, 1):
            inner &= np.roll(at, by, axis) == at
    seen = Counter(zip(at[inner].tolist(), map(tuple, pixels[inner].tolist())))
    for i, rgb in seen:
        assert min(words, key=lambda w: apart(hue(SOLID_PAINT[w]), hue(rgb))) == words[i], (words[i], rgb)
    assert all(sum(n for (j, _), n in seen.items() if j == i) > 1000 for i in range(4))


def test_a_cube_inside_of_others_has_no_pixels():
    block = Polycube(tuple((x, y, z) for x in range(3) for y in range(3) for z in range(3)), ("red",) * 27)
    at, _ = mask("mental_rotation", block, size=400)
    assert set(range(27)) - set(at.ravel().tolist()) == {block.cells.index((1, 1, 1))}


def test_the_cells_of_a_path_lie_on_its_band_in_order():
    pixels, at, words = masked("cube_rolling")
    assert words == [*PATH, "end"] and set(at.ravel().tolist()) == {-1, 1, 2, 3, 4, 5}  # the cube stands on cell 0
    band = (107, 149, 185)
    assert all(np.median(pixels[at == i], 0).tolist() == list(band) for i in range(1, 6))
    assert (at[(pixels == band).all(-1)] >= 0).all()
    middle = [np.argwhere(at == i).mean(0) for i in range(1, 6)]
    for (y, x), (y1, x1), move in zip(middle, middle[1:], PATH[1:]):
        assert (x1 - x > 20 and abs(y1 - y) < 5) if move == "right" else (y1 - y > 10 and abs(x1 - x) < 20)
    for name in ("red", "blue", "green"):  # of the cube
        assert (at[(pixels == PAINT[name]).all(-1)] == -1).all() and (pixels == PAINT[name]).all(-1).any()
    flag = (pixels[..., 0] > pixels[..., 2]) & (np.arange(len(pixels)) > middle[0][0])[:, None]  # red below the cube
    assert flag.sum() > 20 and (at[flag] == -1).all()


def test_the_last_visit_of_a_cell_counts():
    at, words = mask("cube_rolling", DIE, ("front", "right", "left", "front"))
    assert words == ["front", "right", "left", "front", "end"] and set(at.ravel().tolist()) == {-1, 2, 3, 4}


@pytest.mark.parametrize(
    "args, says",
    [
        (("movebox", ROOM), "no pictures for the task 'movebox': did you mean 'move_box'?"),
        (("cube_rolling", DIE, ["front"] * 127), "the state has 128 entries, a mask shows at most 127"),
        (("move_box", Room(("#" * 12, "#SBT.......#", *["#" * 12] * 9))), "132 entries"),
        (("cube_rolling", DIE, ["up"]), "roll 1 of the path is 'up'"),
    ],
)
def test_what_has_no_mask_says_why(args, says):
    with pytest.raises(ValueError) as e:
        mask(*args)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_127_entries_fit_into_a_mask():
    at, words = mask("cube_rolling", DIE, ["front"] * 126, size=640)
    assert len(words) == 127 and at.max() == 126
