"""What ships: the tiny model loads as any checkpoint does, is small, sees, and does not know what the stages teach."""

import json
import subprocess
import sys

import numpy as np
import pytest

from spatial_nb import clevr, detector, spatialite
from spatial_nb.core import data_root, input_hash, read_record, root, shipped
from spatial_nb.scores import best_constant, score

pytest.importorskip("torch")
LABELS = data_root() / "clevr_humans"
needs_labels = pytest.mark.skipif(not (LABELS / "objects.jsonl").is_file(), reason=f"no {LABELS.name}/objects.jsonl")
RECORDS = root() / "data" / "records" / "small"


def place(name):
    try:
        return shipped(name)
    except FileNotFoundError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def vlm():
    from spatial_nb import models

    return models.load(place("tiny-vlm"))


def ask(vlm, items):
    from spatial_nb.models import generate

    return [score(i, t).value for i, t in zip(items, generate(vlm, items, max_new_tokens=24), strict=True)]


@pytest.mark.parametrize("name, most", [("detector", 4e6), ("tiny-vlm", 16e6), ("imagery-parent", 16e6)])
def test_weights_that_ship_are_small_and_have_a_card(name, most):
    folder = place(name)
    assert sum(f.stat().st_size for f in folder.glob("*.safetensors")) <= most
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".pth")]
    assert "license: apache-2.0" in (folder / "README.md").read_text()


def test_the_tiny_model_loads_with_the_plain_classes_of_transformers():
    code = (
        "import spatial_nb.models; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
        f"m = M.from_pretrained({str(place('tiny-vlm'))!r}); p = P.from_pretrained({str(place('tiny-vlm'))!r}); "
        "print(type(m).__name__, type(p).__name__, sum(x.numel() for x in m.parameters()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == ["Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"]
    assert 1_000_000 < int(said[2]) <= 4_000_000


MADE_BY = {"00_detector": "detector", "05_tiny_vlm": "tiny-vlm", "38_imagery_parent": "imagery-parent"}


@pytest.mark.parametrize("stage, name", MADE_BY.items())
def test_the_record_is_of_the_weights_that_ship(stage, name):
    assert read_record(RECORDS / f"{stage}.json")["ships"][name]["hash"] == input_hash(name)


def test_the_lineage_is_of_the_weights_that_ship(vlm):
    lineage = json.loads((place("tiny-vlm") / "lineage.json").read_text())
    assert lineage["model"] == vlm.hash


def by_type(items, values):
    "The mean of `values` for each type of question."
    found = {}
    for item, value in zip(items, values, strict=True):
        found.setdefault(item.metadata["question_type"], []).append(value)
    return {k: sum(v) / len(v) for k, v in found.items()}


def test_it_sees_pictures_that_no_record_has_seen(vlm):
    items = list(clevr.dataset("test", 4711, 98, per_scene=14))
    assert min(by_type(items, ask(vlm, items)).values()) > 0.75, "far below what its record says"


@needs_labels
def test_it_sees_real_pictures(vlm):
    items = clevr.read_labelled(LABELS, per_picture=7)[:98]
    assert min(by_type(items, ask(vlm, items)).values()) > 0.75, "far below what its record says"


@needs_labels
@pytest.mark.parametrize("views, least", [(1, 0.975), (2, 0.985)])
def test_the_detector_reads_real_pictures(views, least):
    place("detector")
    rows = clevr.read_objects(LABELS)
    found = detector.detect([detector.open_picture(r["path"]) for r in rows], views=views)
    counts = detector.detection_counts(found, [r["objects"] for r in rows])
    assert counts["f1"] > 0.99, "below what its record says"
    assert min(counts[a] / counts["matched"] for a in detector.GROUPS) > least


def test_it_does_not_know_what_the_stages_teach(vlm):
    kinds = ["relate_query", "distance", "direction", "boxes"]
    items = list(clevr.dataset("test", 4711, 40, kinds, per_scene=20))
    items += spatialite.dataset("cube_rolling", "test", 4711, 10, modality="TQA")[:]
    found, constant = by_type(items, ask(vlm, items)), best_constant(items).by_type
    assert all(found[kind] < constant[kind] + 0.25 for kind in found), (found, constant)


def test_the_parent_of_imagery_repeats_states_and_knows_no_move():
    from spatial_nb import models

    parent, metrics = models.load(place("imagery-parent")), read_record(RECORDS / "38_imagery_parent.json")["metrics"]
    for task in spatialite.TASKS:
        asked = list(spatialite.dataset(task, "test", 4711, 12, modality="TQA", steps=(3, 8)))
        texts = models.generate(parent, asked, max_new_tokens=160)
        solutions = [spatialite.solution(i) for i in asked]
        right = np.mean([t.split("\n")[0] == s.split("\n")[0] for t, s in zip(texts, solutions, strict=True)])
        assert right >= metrics[f"words/{task}"]["mean"] - 0.3, (task, right, "far below what its record says")
        assert not any(t.strip() == s for t, s in zip(texts, solutions, strict=True)), "it has seen states change"
