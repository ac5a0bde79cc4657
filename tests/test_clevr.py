"""Data sets of rendered pictures: what holds across seeds, orders, processes and files."""

import os
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spatial_nb import clevr
from spatial_nb.core import content_hash, data_root, rng, write_jsonl
from spatial_nb.items import Item, from_parquet, leakage, to_parquet
from spatial_nb.questions import KINDS, SEE
from spatial_nb.render import render
from spatial_nb.scenes import ATTRIBUTES, boxes, canonical, split_of

SEEDS = (0, 1, 2, 3, 41, 42, 43, 2**31 - 1, 2**31, -1)


def same(a: Item, b: Item) -> bool:
    return a == b and [im.tobytes() for im in a.images] == [im.tobytes() for im in b.images]


def test_a_scene_can_only_be_in_the_split_of_its_canonical_form():
    forms = {split: set() for split in clevr.SPLITS}
    for seed in SEEDS:  # neighbours too
        for split in clevr.SPLITS:
            for i in range(4):
                scene = clevr.scene_of(split, seed, i)
                assert split_of(scene) == split
                forms[split].add(canonical(scene))
    # by construction disjoint: a form has one split. So nothing but the assertion above can fail here
    assert {split: len(f) for split, f in forms.items()} == dict.fromkeys(clevr.SPLITS, 4 * len(SEEDS))
    assert len(set.union(*forms.values())) == 12 * len(SEEDS)


def test_the_split_of_a_scene_does_not_depend_on_how_it_is_written():
    scene = clevr.scene_of("test", 5, 0)
    again = type(scene)(scene.objects[::-1], scene.camera, "another name")
    assert split_of(again) == "test" and canonical(again) == canonical(scene)


@pytest.mark.parametrize("kinds", [None, ["relate", "count", "boxes", "distance_compare"]])
def test_an_item_depends_on_its_key_alone(kinds):
    known = clevr.dataset("train", seed=3, n=9, kinds=kinds, per_scene=3, size=(120, 80))
    first = list(known)
    other = clevr.dataset("train", seed=3, n=500, kinds=(kinds or list(SEE))[::-1], per_scene=3, size=(120, 80))
    clevr._picture.cache_clear(), clevr._draw.cache_clear()
    for k in random.Random(0).sample(range(9), 9):
        assert same(other[k], first[k])
    assert known[-1].id == first[-1].id and [i.id for i in known[2:8:3]] == [first[2].id, first[5].id]


def test_the_number_of_workers_changes_no_byte(tmp_path):
    items = clevr.dataset("validation", seed=1, n=12, size=(120, 80))
    clevr._picture.cache_clear(), clevr._draw.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(items.__getitem__, reversed(range(12))))[::-1]
    clevr._picture.cache_clear(), clevr._draw.cache_clear()
    assert all(map(same, threaded, clevr.dataset("validation", seed=1, n=12, size=(120, 80), workers=5)[:]))
    clevr._picture.cache_clear(), clevr._draw.cache_clear()
    assert all(map(same, threaded, items))
    one = clevr.pictures("train", 1, 3, tmp_path / "one", workers=1)
    three = clevr.pictures("train", 1, 3, tmp_path / "three", workers=3)
    assert all((one[k] == three[k]).all() for k in one)


def test_two_processes_make_the_same_bytes():
    code = (
        "from spatial_nb import clevr, items; from spatial_nb.questions import KINDS\n"
        "for i in clevr.dataset('test', seed=7, n=len(KINDS), kinds=KINDS, per_scene=6, size=(240, 160)):\n"
        "    print(i.id, i.question, i.answer, i.options, sorted(i.metadata.items()), items.content_id(i))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": h}, capture_output=True, check=True
        ).stdout
        for h in ("1", "2")
    ]
    assert said[0] == said[1] and said[0].count(b"\n") == len(KINDS)


def test_every_object_can_be_seen_and_hidden_ones_are_drawn_again():
    hidden = [i for i in range(50) if clevr._draw("train", 0, i, 0) is None]
    assert hidden  # else this tests nothing
    for i in (*hidden[:3], 0, 1, 2):
        scene = clevr.scene_of("train", 0, i)
        assert render(scene).visible(len(scene)).min() >= 0.75 * clevr.FLOOR
        assert scene.name.endswith(f"-{i}-1") == (i in hidden and clevr._draw("train", 0, i, 1) is not None)


def test_kinds_have_equal_shares_and_boxes_lie_in_the_picture():
    kinds = ["boxes", "relate", "query_color"]
    items = clevr.dataset("validation", n=15, kinds=kinds, size=(240, 160), per_scene=5)
    assert sorted(items.question(i)[1].question_type for i in range(15)) == sorted(5 * kinds)
    for i in range(0, 15):
        scene, q = items.question(i)
        if q.kind == "boxes":
            whole = boxes(scene, (240, 160)).round().astype(int).tolist()
            assert all(b["bbox_2d"] in whole for b in q.answer)


def test_a_leak_that_was_planted_is_found_and_nothing_else():
    train, test = (clevr.dataset(s, seed=4, n=6, size=(120, 80)) for s in ("train", "test"))
    assert not leakage(train, test)
    leak = Item("planted", train[2].question, train[2].images, train[2].answer, train[2].kind, train[2].options)
    found = leakage(train, [*test, leak])
    shared = {kind: list(things.values()) for kind, things in found.found.items() if things}
    assert shared == {"item": [([train[2].id], ["planted"])], "picture": [([train[2].id], ["planted"])]}
    with pytest.raises(ValueError, match=re.escape(train[2].id)):
        leakage(train, [*test, leak], fail=True)
    assert list(leakage(train, [*test, train[5]], pictures=False).found["canonical"].values())[0][0] == [train[5].id]


def test_items_survive_a_file(tmp_path):
    items = clevr.dataset("train", n=len(KINDS), kinds=KINDS, size=(120, 80), per_scene=5)
    back = from_parquet(to_parquet(items, tmp_path / "train.parquet"))
    assert all(map(same, back, items)) and len(back) == len(items)


def test_labelled_pictures_are_asked_the_same_kinds_as_rendered_ones(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(4):  # a folder laid out like the labelled real pictures, whose labels are exact
        scene = clevr.scene_of("test", 9, i)
        render(scene, (120, 80)).image.save(tmp_path / "images" / f"{i}.png")
        objects = [dict({k: getattr(o, k) for k in ATTRIBUTES}, x=1, y=1) for o in scene.objects]
        rows.append(dict(image=f"{i}.png", objects=objects))
    write_jsonl(tmp_path / "objects.jsonl", rows)
    labelled, rendered = clevr.read_labelled(tmp_path), list(clevr.dataset("test", n=21, size=(120, 80)))
    types = lambda items: {i.metadata["question_type"] for i in items}
    assert types(labelled) == types(rendered) == set(SEE)
    kind = {i.metadata["question_type"]: i.kind for i in rendered}
    assert all(i.kind == kind[i.metadata["question_type"]] for i in labelled)
    assert clevr.read_labelled(tmp_path) == labelled and len({i.id for i in labelled}) == len(labelled)


def test_real_pictures_are_asked_the_same_kinds_as_rendered_ones():
    folder = data_root() / "clevr_humans"
    if not (folder / "objects.jsonl").is_file():
        pytest.skip(f"{folder} not found (SPATIAL_NB_DATA)")
    items = clevr.read_labelled(folder, per_picture=len(SEE))
    assert {i.metadata["question_type"] for i in items} == set(SEE)
    assert {i.images[0].mode for i in items} == {"RGB"} and {i.images[0].size for i in items} == {(480, 320)}


def test_pictures_that_were_stopped_go_on_and_another_key_begins_anew(tmp_path):
    whole = {k: v.copy() for k, v in clevr.pictures("train", 2, 2, tmp_path).items()}
    (tmp_path / "mask.npy").unlink()  # as if it had been stopped before the arrays were there
    again = clevr.pictures("train", 2, 2, tmp_path)
    assert all((again[k] == whole[k]).all() for k in whole)
    other = clevr.pictures("train", 3, 2, tmp_path)
    assert content_hash(np.asarray(other["rgb"])) != content_hash(whole["rgb"])


def test_a_kind_that_no_scene_has_is_a_one_line_error(monkeypatch):
    monkeypatch.setattr(clevr, "questions", lambda *a: [])
    with pytest.raises(ValueError, match="no draw of scene train 0 0 has a question of kind 'relate'"):
        clevr.dataset("train", n=1, kinds=["relate"]).question(0)


def test_the_sampler_never_meets_the_key_of_another_scene():
    keys = [("train", 1, 11, 0), ("train", 11, 1, 0), ("train", 1, 1, 10), ("test", 1, 11, 0)]
    assert len({rng("clevr", clevr.VERSION, *k).integers(2**62) for k in keys}) == len(keys)
