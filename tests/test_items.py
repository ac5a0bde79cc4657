"""What the notebook of `items` cannot hold: other readers of the files, many items, orders across processes."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from spatial_nb.core import rng
from spatial_nb.items import (
    Item,
    from_dataset,
    from_parquet,
    leakage,
    messages,
    mixture,
    read_image,
    shuffled,
    to_dataset,
    to_parquet,
    to_row,
)


def picture(i, size=(24, 16), mode="RGB"):
    pixels = rng("test items", i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def make(i, **other):
    about = dict(id=f"q{i}", question=f"Is there a cube {i}?", images=[picture(i)], answer=bool(i % 2), kind="yes_no")
    return Item(**(about | other))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode_come_back_pixel_for_pixel(mode, tmp_path):
    image = picture(0).convert("L").convert("I").convert("I;16") if mode == "I;16" else picture(0, mode=mode)
    item = make(0, images=[image])
    assert from_parquet(to_parquet([item], tmp_path / "a.parquet"))[0] == item


def test_plain_datasets_reads_our_parquet_with_pictures_and_chat(tmp_path):
    from datasets import Dataset

    items = [make(i) for i in range(3)]
    data = Dataset.from_parquet(str(to_parquet(items, tmp_path / "a.parquet", prompt="yes or no")), cache_dir=tmp_path)
    assert isinstance(data[0]["images"][0], Image.Image)
    assert data[0]["prompt"][0]["content"][-1]["text"] == "Is there a cube 0?\nyes or no"
    assert from_dataset(data) == items


def test_text_only_items_survive_beside_items_with_pictures():
    items = [make(0), make(1, images=[]), make(2, images=[picture(2), picture(3)])]
    assert from_dataset(to_dataset(items)) == items


def test_trl_takes_the_rows_as_they_are():
    models = pytest.importorskip("spatial_nb.models", reason="needs the training extra")
    assert models
    from trl.data_utils import prepare_multimodal_messages

    item = make(2, images=[picture(2), picture(3)])
    row = to_row(item)
    whole = prepare_multimodal_messages(row["prompt"] + row["completion"], images=row["images"])
    pictures = [p["image"] for m in whole for p in m["content"] if p["type"] == "image"]
    assert [p.tobytes() for p in pictures] == [p.tobytes() for p in item.images]
    assert whole[0]["content"][-1]["text"] == messages(item)[0]["content"][-1]["text"]


def test_truncated_picture_is_an_error_of_one_line_when_the_item_is_made(tmp_path):
    picture(0, (200, 200)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for image in (tmp_path / "cut.jpg", Image.open(tmp_path / "cut.jpg")):
        with pytest.raises(ValueError, match="cannot be decoded|cut.jpg") as e:
            make(0, images=[image])
        assert "\n" not in str(e.value) and "q0" in str(e.value)
    with pytest.raises(ValueError, match="cut.jpg"):
        read_image(tmp_path / "cut.jpg")


def test_lazy_lists_are_drawn_only_where_they_are_asked():
    class Lazy(list):
        asked = 0

        def __getitem__(self, i):
            Lazy.asked += 1
            return super().__getitem__(i)

    parts = {"a": (Lazy(make(i) for i in range(50)), 1), "b": (Lazy(make(i) for i in range(50, 100)), 1)}
    mixed = mixture(parts, 80, "lazy")
    assert Lazy.asked == 0 and len(mixed[10:20]) == 10 and Lazy.asked == 0
    assert mixed[3].id.startswith("q") and Lazy.asked == 1


def test_orders_do_not_depend_on_the_process():
    code = (
        "from spatial_nb.items import *;"
        "print(mixture({'a': (range(9), 1), 'b': (range(5), 2)}, 20, 's', 1).order, shuffled(range(9), 's').order)"
    )
    here = (mixture({"a": (range(9), 1), "b": (range(5), 2)}, 20, "s", 1).order, shuffled(range(9), "s").order)
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == f"{here[0]} {here[1]}"


def test_importing_items_brings_neither_torch_nor_datasets():
    code = "import sys, spatial_nb.items; print(sorted({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_picture_that_claims_to_be_huge_is_an_error_that_names_it(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"huge\.png' cannot be decoded: Image size"):
        read_image(tmp_path / "huge.png")


def test_leakage_sees_the_same_picture_in_another_file_format(tmp_path):
    picture(0).save(tmp_path / "a.png")
    picture(0).save(tmp_path / "a.bmp")
    here, there = make(0, images=[tmp_path / "a.png"]), make(1, images=[tmp_path / "a.bmp"])
    assert leakage([here], [there]).found["picture"]
    assert not leakage([here], [make(1)])
    with pytest.raises(ValueError, match="share 1 pictures"):
        leakage([here], [there], fail=True)
