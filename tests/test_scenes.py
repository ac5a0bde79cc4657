"""Scenes, programs and questions: what holds across seeds, processes and files, and so cannot stand in one notebook."""

import json
import os
import re
import subprocess
import sys

import pytest

from spatial_nb.core import data_root, read_jsonl, rng
from spatial_nb.programs import execute
from spatial_nb.questions import KINDS, SEE, ask_see, questions, vocabulary
from spatial_nb.scenes import canonical, from_clevr, sample_scene, split_of, to_clevr

SPLITS = ("train", "validation", "test")


def test_no_scene_is_in_two_splits_whatever_the_seeds():
    forms = {split: set() for split in SPLITS}
    for seed in range(3):
        for split in SPLITS:
            for i in range(15):
                scene = sample_scene(rng("test", split, seed, i), n=3 + i % 4, split=split)
                assert split_of(scene) == split
                forms[split].add(canonical(scene))
    assert [len(f) for f in forms.values()] == [45, 45, 45]
    assert not forms["train"] & forms["test"] and not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]


def test_the_same_generator_gives_other_scenes_to_other_splits():
    assert len({canonical(sample_scene(rng("one key"), n=4, split=split)) for split in SPLITS}) == 3


def test_scenes_and_questions_are_the_same_in_every_process():
    code = (
        "from spatial_nb.core import rng; from spatial_nb.scenes import *; from spatial_nb.questions import *\n"
        "s = sample_scene(rng('process', 1)); print(canonical(s))\n"
        "for q in questions(s, rng('process', 2), n=40, synonyms=0.3): print(q.text, q.answer, q.options, q.program)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and len(said[0]) > 1000


def test_answers_have_the_type_of_their_kind_and_survive_json():
    types = dict(yes_no=bool, number=(int, float), text=str, choice=str, boxes=list)
    found = set()
    for i in range(20):
        for q in questions(sample_scene(rng("types", i)), rng("types", i, 1), n=len(KINDS)):
            found.add(q.question_type)
            assert isinstance(q.answer, types[q.kind]), q
            assert (q.kind == "number") <= (not isinstance(q.answer, bool)), q
            assert json.loads(json.dumps([q.answer, q.program])) == [q.answer, q.program]
            assert (q.options is not None) == (q.kind == "choice")
            if q.options:
                assert len(set(q.options)) == len(q.options) and q.answer in "ABCDEFGH"[: len(q.options)]
            if q.kind == "boxes":
                assert q.answer and all(set(b) == {"bbox_2d", "label"} and len(b["bbox_2d"]) == 4 for b in q.answer)
    assert found == set(KINDS)


def test_programs_written_by_the_published_dataset_run():
    scene = sample_scene(rng("published"), n=5)
    program = [
        dict(function="scene", inputs=[], value_inputs=[]),
        dict(function="filter_shape", inputs=[0], value_inputs=[scene[0].shape]),
        dict(function="count", inputs=[1], value_inputs=[]),
    ]
    assert execute(program, scene) == sum(o.shape == scene[0].shape for o in scene.objects)


def test_the_name_in_a_sight_question_fits_exactly_one_object():
    for i in range(10):
        scene = sample_scene(rng("unique", i))
        for q in ask_see(scene, rng("unique", i, 1), n=12):
            for k in q.objects:
                name = [n for n in q.program if n["type"].startswith("filter")]
                fits = [o for o in scene.objects if all(getattr(o, n["type"][7:]) in n["value_inputs"] for n in name)]
                assert fits == [scene[k]]


def _without(key):
    data = to_clevr(sample_scene(rng("file"), n=3))
    for o in data["objects"]:
        o.pop(key, None)
    data.pop(key, None)
    return data


@pytest.mark.parametrize(
    "data, says",
    [
        (dict(scenes=[]), "file of 0 scenes"),
        (dict(), "no objects"),
        (_without("shape"), "object 0 of the CLEVR scene lacks shape"),
        ({**_without("camera"), "objects": _without("pixel_coords")["objects"]}, "neither camera nor pixel_coords"),
        ({**_without(""), "objects": [{**_without("")["objects"][0], "color": "pink"}]}, "object color is 'pink'"),
        ({**_without(""), "objects": _without("")["objects"][:1] * 2}, "objects 0 and 1 overlap"),
    ],
)
def test_a_bad_scene_file_is_a_one_line_error(data, says):
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        from_clevr(data)
    assert "\n" not in str(e.value)


def test_labelled_real_pictures_are_asked_in_the_words_of_rendered_ones():
    path = data_root() / "clevr_humans" / "objects.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} not found (SPATIAL_NB_DATA)")
    words, found = set(vocabulary(SEE, synonyms=False)), set()
    for picture in read_jsonl(path):
        for q in ask_see(picture["objects"], rng("labelled", picture["image"]), n=20):
            found.add(q.question_type)
            said = f"{q.text} {q.answer if q.kind == 'text' else ''}"
            assert set(re.findall(r"[A-Za-z]+|[^\sA-Za-z]", said)) <= words, q.text
            assert q.value == execute(q.program, picture["objects"])
    assert found == set(SEE)
