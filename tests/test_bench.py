"Evaluation: files of answers that are continued, damaged and shared."

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training packages are not installed")

from PIL import Image  # noqa: E402

from spatial_nb import bench, models  # noqa: E402
from spatial_nb.core import read_jsonl  # noqa: E402
from spatial_nb.items import Item  # noqa: E402

torch.set_num_threads(1)
WORDS = ["What color is the cube? Is there a red sphere?", "red", "blue", "yes", "no"] * 4
EYES = dict(depth=1, hidden_size=32, intermediate_size=64, num_heads=2, window_size=64, fullatt_block_indexes=[0])
TEXT = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)


@pytest.fixture(scope="module")
def vlm():
    vlm = models.build_tiny(models.train_tokenizer(WORDS, 300), vision=EYES, text=TEXT)
    for p in vlm.model.parameters():
        if p.ndim > 1:
            p.data.mul_(10)  # answers that differ from item to item
    return vlm


@pytest.fixture(scope="module")
def items():
    rs = np.random.default_rng(0)
    pictures = [Image.fromarray(rs.integers(0, 255, (64, 96, 3), dtype=np.uint8)) for _ in range(4)]
    return [
        Item(
            f"q{n}",
            "Is there a red sphere?" + " red" * (n % 5),
            [pictures[n % 4]],
            n % 3 > 0,
            "yes_no",
            metadata={"scene": str(n % 4)},
        )
        for n in range(12)
    ]


HOW = dict(max_new_tokens=5, batch_size=4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_file_cut_anywhere_ends_with_the_same_answers(vlm, items, tmp_path, temperature):
    rows = bench.evaluate(vlm, items, tmp_path / "whole.jsonl", temperature=temperature, **HOW)
    assert len({r["text"] for r in rows}) > 3, "the answers must differ, or this test shows nothing"
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for part in (0.0, 0.1, 0.35, 0.6, 0.99):
        path = tmp_path / f"{part}.jsonl"
        path.write_bytes(whole[: int(part * len(whole))])
        again = bench.evaluate(vlm, items, path, temperature=temperature, **HOW)
        assert [r["text"] for r in again] == [r["text"] for r in rows]
        assert sorted(r["id"] for r in read_jsonl(path)) == sorted(r["id"] for r in rows)


def test_what_is_in_the_file_is_not_asked_again(items, tmp_path):
    asked = []

    def model(some):
        asked.extend(i.id for i in some)
        return ["yes"] * len(some)

    for n in (4, 12, 12):
        bench.evaluate(model, items[:n], tmp_path / "a.jsonl", name="yes", batch_size=4)
    assert asked == [i.id for i in items]


def test_another_model_variant_or_parameter_is_asked_and_kept_apart(vlm, items, tmp_path):
    path = tmp_path / "a.jsonl"
    bench.evaluate(vlm, items, path, **HOW)
    bench.evaluate(vlm, items, path, variant="blank", **HOW)
    bench.evaluate(vlm, items, path, prompt="red", **HOW)
    other = models.build_tiny(vlm.tokenizer, vision=EYES, text=TEXT, seed=1)
    bench.evaluate(other, items, path, **HOW)
    assert len(read_jsonl(path)) == 4 * len(items)


def test_an_item_that_has_changed_is_asked_again(vlm, items, tmp_path):
    path = tmp_path / "a.jsonl"
    bench.evaluate(vlm, items, path, **HOW)
    swapped = [Item("q0", items[0].question, items[1].images, items[0].answer, "yes_no"), *items[1:]]
    bench.evaluate(vlm, swapped, path, **HOW)
    assert len(read_jsonl(path)) == len(items) + 1


def test_blank_and_text_variants_do_not_see_the_picture(vlm, items, tmp_path):
    swapped = [Item(i.id, i.question, [items[n - 1].images[0]], i.answer, "yes_no") for n, i in enumerate(items)]
    for variant in ("blank", "text", "full"):
        a = bench.evaluate(vlm, items, tmp_path / "a.jsonl", variant=variant, **HOW)
        b = bench.evaluate(vlm, swapped, tmp_path / "b.jsonl", variant=variant, **HOW)
        assert ([r["text"] for r in a] == [r["text"] for r in b]) == (variant != "full")


def test_scores_come_from_the_file_alone(items, tmp_path):
    bench.evaluate(lambda some: ["no"] * len(some), items, tmp_path / "a.jsonl", name="no")
    assert [s.value for s in bench.score(tmp_path / "a.jsonl", items)] == [float(not i.answer) for i in items]


def test_a_folder_that_cannot_be_written_is_named(items, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        bench.evaluate(lambda some: ["no"] * len(some), items, tmp_path / "file" / "a.jsonl", name="no")
