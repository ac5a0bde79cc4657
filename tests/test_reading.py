"""Lessons as tokens: what repeats something is told where it stands, and a killed training ends as one that was not."""

import numpy as np
import pytest
import torch

from spatial_nb import models, reading
from spatial_nb.core import read_jsonl
from spatial_nb.puzzle_pictures import mask, picture
from spatial_nb.reading import Lesson, Piece, View, row, token_entries
from spatial_nb.spatialite import TASKS, dataset

EYES = dict(
    depth=2, hidden_size=32, intermediate_size=64, num_heads=2, window_size=64, fullatt_block_indexes=[1], patch_size=8
)
WORDS = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2)


@pytest.fixture(scope="module")
def vlm():
    return models.build_tiny([" red up one two three red"] * 30, vision=EYES, text=WORDS)


def test_a_piece_repeats_the_last_of_its_name(vlm):
    asked = Piece("From"), Piece(" red", "x"), Piece(" up", "y")
    told = Piece("one"), Piece(" red", "x"), Piece(" two", "x"), Piece(" three", "x"), Piece(" up", "y")
    r = row(vlm, Lesson(asked, told))
    sources = [
        (vlm.tokenizer.decode(r.ids[k + 1]), vlm.tokenizer.decode([r.ids[j] for j in look])) for k, look in r.sources
    ]
    assert sources == [(" red", " red"), (" two", " red"), (" three", " two"), (" up", " up")]
    assert vlm.tokenizer.decode(r.ids[r.begin :]) == "one red two three up<|im_end|>"


def test_pieces_of_another_length_have_no_source(vlm):
    r = row(vlm, Lesson((Piece("From"), Piece(" red", "x")), (Piece(" red up", "x"),)))
    assert r.sources == ()


@pytest.mark.parametrize("task", TASKS)
def test_the_tokens_of_a_picture_show_its_entries(vlm, task):
    q = dataset(task, "train", 0, 1, steps=(3, 5)).draw(0)[0]
    image, (of_pixel, words) = picture(task, *q.drawn, size=288), mask(task, *q.drawn, size=288)
    features = models.encode_images(vlm, [image])[0]
    entry = token_entries(of_pixel, features.grid)
    assert entry.size == len(features.tokens) and entry.max() < len(words)
    whole = np.asarray(entry)[entry >= 0]
    assert len(whole) and set(whole.tolist()) <= set(np.unique(of_pixel).tolist())
    shown = int(whole[0])
    r = row(vlm, Lesson((Piece("What?"),), (Piece("red", entry=shown),), View(features, entry)))
    looks = {j for _, look in r.sources for j in look}
    assert looks and all(r.ids[j] == vlm.processor.image_token_id for j in looks)


def test_a_killed_training_ends_as_one_that_was_not(vlm, tmp_path):
    start = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    draw = lambda random: Lesson((Piece(" red", "x"),), (Piece(" " + random.choice(["red", "up"]), "x"),))

    def trained(folder, until=None):
        vlm.model.load_state_dict(start)
        seen = []

        def some(random):
            if until and len(read_jsonl(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []) >= until:
                raise KeyboardInterrupt
            seen.append(1)
            return draw(random)

        reading.train_reading(vlm, some, folder, "test", steps=6, tokens=20, save_every=2, workers=1)
        return {k: v.clone() for k, v in vlm.model.state_dict().items()}

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", until=4)
    again = trained(tmp_path / "cut")
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    assert any(not torch.equal(whole[k], start[k]) for k in whole)


def test_a_reader_names_what_tokens_say(vlm):
    reader = reading.EntryReader(4, ["red", "up"])
    entry = np.array([[0, 1], [1, -1]], np.int8)
    assert reader.index(entry, ["up", "red"]).tolist() == [2, 1, 1, 0]
    with torch.no_grad():
        reader.map.weight[1, 0] = reader.map.weight[2, 1] = 5.0
    tokens = torch.zeros(4, 4)
    tokens[0, 1] = tokens[1, 0] = tokens[2, 0] = 1
    view = View(models.Features((1, 4, 4), tokens), entry)
    assert reader.read(view, 3) == ["up", "red", None]
