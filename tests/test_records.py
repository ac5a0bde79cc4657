"""The committed records: every metric that comes from completions is computed again from the committed completions."""

import json

import numpy as np
import pytest

from spatial_nb import clevr
from spatial_nb.core import data_root, read_jsonl, root
from spatial_nb.questions import SEE
from spatial_nb.scores import score, summarize

RECORDS = sorted((root() / "data" / "records").glob("*/*.json"))


def read(stage):
    "The record of `stage` in the profile `small`, and the rows of its completions by name."
    place = root() / "data" / "records" / "small"
    file = place / f"{stage}.json"
    if not file.is_file():
        pytest.skip(f"no committed record of {stage}")
    record = json.loads(file.read_text())
    return record, {name: read_jsonl(place / about["path"]) for name, about in record["completions"].items()}


def same(metric, values, interval=None):
    "Whether `metric` of a record has these values, to the digits that it keeps."
    np.testing.assert_allclose(metric["values"], values, atol=1e-9)
    np.testing.assert_allclose(metric["mean"], np.mean(values), atol=1e-9)
    if interval:
        np.testing.assert_allclose(metric["interval"], interval, atol=1e-9)


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_record_says_where_it_comes_from(path):
    record = json.loads(path.read_text())
    assert record["verdict"] and record["parameters"]["profile"] == path.parent.name
    assert record["machine"]["seconds"] > 0
    for name, m in record["metrics"].items():
        assert len(m["values"]) == len(m["seeds"]), name
        if m["interval"]:
            assert m["interval"][0] <= m["mean"] <= m["interval"][1], name


def labelled(reader, **how):
    folder = data_root() / "clevr_humans"
    return reader(folder, **how) if folder.is_dir() else []


def test_what_the_tiny_model_sees_is_in_its_completions():
    record, said = read("05_tiny_vlm")
    p = record["parameters"]
    sets = {"rendered": list(clevr.dataset("test", p["seed"], 14 * p["test_pictures"], per_scene=14, size=None))}
    sets["real"] = labelled(clevr.read_labelled, per_picture=14)[: 14 * p["real_pictures"] or None]
    checked = 0
    for name, items in sets.items():
        for variant, label in (("full", "sees"), ("blank", "gray")):
            texts = {r["id"]: r["text"] for r in said.get(f"{name}-{variant}", ())}
            for kind in SEE:
                those = [i for i in items if i.metadata["question_type"] == kind]
                if not those:
                    continue
                s = summarize([score(i, texts[i.id]) for i in those], cluster=[i.metadata["scene"] for i in those])
                same(record["metrics"][f"{label}/{name}/{kind}"], [s.mean], s.interval)
                checked += 1
    assert checked >= 2 * len(SEE)
