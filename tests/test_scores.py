"""What the notebook of `scores` cannot hold: golds of every kind, other processes, the original metric bit for bit."""

import math
import subprocess
import sys

import numpy as np
import pytest

from spatial_nb.core import rng
from spatial_nb.items import Item, gold
from spatial_nb.scores import best_constant, chance, iou, majority, mra, paired, score, score_boxes, summarize

GARBAGE = [
    "",
    None,
    " \n",
    "qxv zzkw ~~",
    "lorem ipsum",
    "{}",
    "[]",
    "<think>",
    "<answer></answer>",
    "🙂",
    "I don't know.",
]


def golds(kind, n=60):
    "random gold answers with their options"
    draw = rng("test scores", kind)
    for _ in range(n):
        options = None
        if kind == "choice":
            options = [f"thing {j}" for j in range(int(draw.integers(2, 27)))]
            answer = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[int(draw.integers(len(options)))]
        elif kind == "number":
            answer = float(draw.choice([-1, 1]) * 10 ** draw.uniform(-7, 9))
            answer = [answer, round(answer), round(answer, 2)][int(draw.integers(3))]
        elif kind == "yes_no":
            answer = bool(draw.integers(2))
        elif kind == "text":
            answer = " ".join(
                draw.choice(["red", "large", "rubber", "cube", "left", "of", "B", "12"], draw.integers(1, 5))
            )
        elif kind == "boxes":
            corners = draw.uniform(0, 100, (int(draw.integers(1, 6)), 4))
            corners[:, 2:] = corners[:, :2] + 1 + corners[:, 2:]
            answer = [
                {"bbox_2d": c.round(2).tolist(), "label": str(draw.choice(["cube", "red ball", ""]))} for c in corners
            ]
        else:
            moves = [["u", "d", "l", "r"], ["up", "left"], ["R2", "F'", "U"], ["3u", "4r"]][int(draw.integers(4))]
            answer = [str(o) for o in draw.choice(moves, draw.integers(1, 9))]
        yield answer, options


@pytest.mark.parametrize("kind", ["choice", "number", "yes_no", "text", "boxes", "actions"])
def test_scorer_gives_gold_one_and_garbage_zero(kind):
    for i, (answer, options) in enumerate(golds(kind)):
        item = Item(f"{kind}{i}", "What?", [], answer, kind, options)
        for form in ("{}", "<think>Wait: A? No, 7. Yes, up.</think>\n<answer>{}</answer>", "<s> {}</s>"):
            assert score(item, form.format(gold(item))).value == 1, (answer, form)
        for text in GARBAGE:
            assert score(item, text).value == 0, (answer, text)


def test_official_mra_is_the_published_code_bit_for_bit():
    draw = rng("test mra")
    pred, true = draw.uniform(0, 20, 5000).round(1), draw.uniform(0.1, 20, 5000).round(1)
    lines = int((0.95 - 0.5) / 0.05 + 2)
    original = (np.abs(pred - true)[:, None] / true[:, None] <= 1 - np.linspace(0.5, 0.95, lines)).mean(1)
    assert [mra(p, t) for p, t in zip(pred, true)] == pytest.approx(original.tolist(), abs=1e-12)


@pytest.mark.parametrize("mode", ["official", "fixed"])
def test_mra_falls_with_the_error_and_never_rewards_the_wrong_sign(mode):
    for true in (-7.3, -1, 0, 0.2, 3, 10):
        values = [mra(true + e, true, mode) for e in np.linspace(0, 3 * abs(true) + 2, 50)]
        assert values[0] == 1 and values[-1] == 0 and values == sorted(values, reverse=True)
    assert mra(-3, 3, mode) == mra(3, -3, mode) == 0


def test_iou_is_symmetric_and_agrees_with_counted_pixels():
    draw = rng("test iou")
    for _ in range(50):
        a, b = (np.sort(draw.integers(0, 30, (2, 2)), axis=0).ravel().tolist() for _ in range(2))
        grid = np.zeros((2, 30, 30), bool)
        for layer, (x1, y1, x2, y2) in zip(grid, (a, b)):
            layer[y1:y2, x1:x2] = True
        pixels = grid.all(0).sum() / max(grid.any(0).sum(), 1) if grid[0].any() and grid[1].any() else 0
        assert iou(a, b) == iou(b, a) == pytest.approx(pixels)


@pytest.mark.parametrize("match", ["f1", "iou"])
def test_more_boxes_than_there_are_cost(match):
    true = [{"bbox_2d": [0, 0, 10, 10], "label": "cube"}]
    spray = true + [{"bbox_2d": [i, 0, i + 10, 10], "label": "cube"} for i in range(1, 100)]
    assert score_boxes(spray, true, match) < 0.05 < score_boxes(true, true, match)


def test_intervals_and_p_values_are_the_same_in_another_process():
    code = (
        "from spatial_nb.scores import *; a = [i % 3 == 0 for i in range(90)]; b = [i % 4 == 0 for i in range(90)];"
        "c = [i // 5 for i in range(90)]; print(summarize(a, c).interval, paired(a, b, c))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert len(runs) == 1


def test_order_of_items_changes_nothing():
    draw = rng("test order")
    values, scenes = draw.random(200), draw.integers(0, 40, 200)
    other = draw.permutation(200)
    a, b = summarize(values, scenes), summarize(values[other], scenes[other])
    assert (a.n, a.clusters, a.unparsed) == (b.n, b.clusters, b.unparsed)
    assert (a.mean, a.se, *a.interval) == pytest.approx((b.mean, b.se, *b.interval), abs=0.01)


def test_scenes_of_items_are_clusters_unless_told_otherwise():
    items = [Item(f"q{i}", "Is it?", [], True, "yes_no", metadata={"scene": f"s{i // 4}"}) for i in range(40)]
    scores = [score(item, "yes" if i // 4 % 2 else "no") for i, item in enumerate(items)]
    assert summarize(scores).clusters == 10
    assert summarize(scores, cluster=range(40)).clusters == 40
    assert summarize(scores).se > 1.5 * summarize(scores, cluster=range(40)).se
    assert paired(scores, scores).clusters == 10
    with pytest.raises(ValueError, match="q0.*q1|same items"):
        paired(scores, scores[1:] + scores[:1])


@pytest.mark.parametrize("baseline", [chance, best_constant, majority])
def test_baselines_do_not_depend_on_order_and_stay_within_zero_and_one(baseline):
    items = []
    for kind in ("choice", "number", "yes_no", "text", "boxes", "actions"):
        items += [Item(f"{kind}{i}", "?", [], a, kind, o) for i, (a, o) in enumerate(golds(kind, 20))]
    assert baseline(items) == pytest.approx(baseline(items[::-1]))
    assert all(0 <= v <= 1 for v in baseline(items).by_type.values())
    assert best_constant(items) >= majority(items) - 1e-12


def test_unparsed_is_counted_and_scores_zero():
    item = Item("n", "How many?", [], 3, "number")
    got = summarize([score(item, t) for t in ("3", "none of them", "", "between 2 and 4")])
    assert (got.mean, got.unparsed) == (0.25, 0.75)
    assert math.isfinite(got.se)


def test_importing_scores_brings_no_torch():
    code = "import sys, spatial_nb.scores; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
