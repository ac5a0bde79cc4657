"What a model makes of an answer that it is given: the same alone and in a batch, and the model is left as it was."

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training packages are not installed")

from PIL import Image  # noqa: E402

from spatial_nb import models  # noqa: E402
from spatial_nb.items import Item  # noqa: E402
from spatial_nb.probes import read_along  # noqa: E402

torch.set_num_threads(1)
WORDS = ["What color is the cube? Is there a red sphere?", "red", "blue", "yes", "no"] * 4
EYES = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, window_size=64, fullatt_block_indexes=[1])
TEXT = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)
END = "<|im_end|>"


def picture(seed, size=(96, 64)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def vlm():
    "A random model with larger weights: what it makes of one answer is not what it makes of another."
    vlm = models.build_tiny(models.train_tokenizer(WORDS, 300), vision=EYES, text=TEXT)
    for p in vlm.model.parameters():
        if p.ndim > 1:
            p.data.mul_(4)
    return vlm


PICTURES = [picture(0), picture(1, (160, 64)), picture(2)]
SHOWN = [[], [0], [], [1], [0, 1], [], [2], [1, 0], [], []]
TEXTS = [
    "red",
    "red " * 20,
    "",
    "yes, the cube\n",
    "no",
    "blue sphere " * 9,
    "12.5 ∠",
    " red",
    "red" + END + "blue",
    "a",
]


@pytest.fixture(scope="module")
def items():
    asks = ["Is there a red sphere?", "What color is the cube?"]
    return [Item(f"i{n}", asks[n % 2], [PICTURES[k] for k in s], "red", "text") for n, s in enumerate(SHOWN)]


def alone(vlm, item, text, **how):
    "States and log-probabilities by the stock processor and model, and the best log-probability of each place."
    before, images = models.prompt_text(vlm, item, **how), list(item.images) or None
    n = vlm.processor(text=[before], images=images, return_tensors="pt")["input_ids"].shape[1]
    inputs = vlm.processor(text=[before + text + END], images=images, return_tensors="pt")
    with torch.no_grad():
        out = vlm.model(**inputs, output_hidden_states=True)
    states, logp = out.hidden_states[-1][0], out.logits[0, n - 1 : -1].log_softmax(-1)
    said = logp.gather(1, inputs["input_ids"][0, n:, None])[:, 0]
    return states[n - 1].numpy(), states[-2].numpy(), said.numpy(), logp.amax(-1).numpy()


@pytest.mark.parametrize("size", [1, 4, 16])
def test_each_answer_is_read_as_if_alone(vlm, items, size):
    readings = read_along(vlm, items, TEXTS, batch_size=size)
    for item, text, r in zip(items, TEXTS, readings, strict=True):
        before, after, logp, _ = alone(vlm, item, text)
        assert [a.dtype for a in (r.before, r.after, r.logp)] == [np.float32] * 3
        for got, want in ((r.before, before), (r.after, after), (r.logp, logp)):
            np.testing.assert_allclose(got, want, atol=1e-4)
        assert r.lowest == pytest.approx(logp.min(), abs=1e-4) and r.mean == pytest.approx(logp.mean(), abs=1e-4)
    assert np.ptp([r.mean for r in readings]) > 0.5, "the answers must differ, or this test shows nothing"


def test_of_an_empty_answer_only_the_end_is_read(vlm, items):
    [r] = read_along(vlm, items[:1], [""])
    assert r.logp.shape == (1,) and (r.before == r.after).all()


def test_system_and_prompt_stand_where_they_stand_when_it_is_asked(vlm, items):
    how = dict(system="Be brief.", prompt="One word.")
    [r], [plain] = read_along(vlm, items[:1], ["red"], **how), read_along(vlm, items[:1], ["red"])
    np.testing.assert_allclose(r.logp, alone(vlm, items[0], "red", **how)[2], atol=1e-4)
    assert np.abs(r.logp - plain.logp).max() > 1e-2


def test_what_it_wrote_itself_is_the_best_of_each_place():
    vlm = models.load("imagery-parent", device="cpu")
    colors = ["red blue green", "top bottom left right front", "small large", "red red blue grey orange blue green"]
    items = [Item(f"i{n}", f"Say it: {c}", [], c, "text") for n, c in enumerate(colors)]
    said = models.generate(vlm, items, 32)
    assert len(set(said)) == len(colors)
    for item, text, r in zip(items, said, read_along(vlm, items, said), strict=True):
        np.testing.assert_allclose(r.logp, alone(vlm, item, text)[3], atol=1e-4)
    false = [t.replace(t.split()[2], "yellow", 1) for t in said]
    assert all(f.lowest < r.lowest for f, r in zip(read_along(vlm, items, false), read_along(vlm, items, said)))


def test_more_items_than_are_sorted_together_come_back_in_order(vlm, items, monkeypatch):
    whole = read_along(vlm, items, TEXTS)
    monkeypatch.setattr("spatial_nb.probes.GROUP", 3)
    for a, b in zip(whole, read_along(vlm, items, TEXTS, batch_size=2), strict=True):
        np.testing.assert_allclose(a.logp, b.logp, atol=1e-4)


def test_an_adapter_is_read_with_and_without(items):
    base = models.build_tiny(models.train_tokenizer(WORDS, 300), vision=EYES, text=TEXT)
    want = read_along(base, items[:2], TEXTS[:2])
    adapted = models.lora(base, rank=2)
    for name, p in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    got = read_along(adapted, items[:2], TEXTS[:2])
    with models.adapter_off(adapted):
        off = read_along(adapted, items[:2], TEXTS[:2])
    for a, b, c in zip(want, got, off, strict=True):
        assert np.abs(a.logp - b.logp).max() > 1e-2
        np.testing.assert_allclose(a.logp, c.logp, atol=1e-4)


def test_the_model_is_left_as_it_was(vlm, items):
    vlm.model.train()
    vlm.model.model.visual.eval()  # as a trainer with frozen eyes has it
    modes, grads, before = [m.training for m in vlm.model.modules()], torch.is_grad_enabled(), vlm.hash
    try:
        read_along(vlm, items, TEXTS)
        with pytest.raises(ValueError):
            read_along(vlm, items[:2], ["red", "<|image_pad|>"])
        assert [m.training for m in vlm.model.modules()] == modes
        assert torch.is_grad_enabled() == grads and vlm.hash == before
        assert all(p.requires_grad and p.grad is None for p in vlm.model.parameters())
        assert models.generate(vlm, items[1:2], 2)  # the eyes are its own again
    finally:
        vlm.model.eval()


@pytest.mark.parametrize(
    "texts, how, says",
    [
        (["red"], {}, "texts has 1 rows, items has 2: wants as many"),
        (["red", None], {}, "text 1 is None, allowed: a text"),
        (["red", "a <|image_pad|>"], {}, r"item 'i1': the answer holds <\|image_pad\|>, allowed: text only"),
        (["red", "red"], dict(batch_size=0), "batch_size is 0, wants a whole number of at least 1"),
    ],
)
def test_bad_input_is_named(vlm, items, texts, how, says):
    with pytest.raises(ValueError, match=says) as e:
        read_along(vlm, items[:2], texts, **how)
    assert "\n" not in str(e.value)


def test_pictures_for_a_model_that_takes_them_elsewhere_are_an_error(vlm, items, monkeypatch):
    monkeypatch.setattr(vlm.model.config, "model_type", "other")
    with pytest.raises(ValueError, match="is a other, allowed with pictures: qwen2_vl, qwen2_5_vl"):
        read_along(vlm, items[:2], TEXTS[:2])
    assert read_along(vlm, items[:1], TEXTS[:1]) and read_along(vlm, [], []) == []


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same(items):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    vlm = models.build_tiny(models.train_tokenizer(WORDS, 300), vision=EYES, text=TEXT)
    want = read_along(vlm, items, TEXTS)
    vlm.model.to("cuda")
    for a, b in zip(want, read_along(vlm, items, TEXTS), strict=True):
        np.testing.assert_allclose(a.logp, b.logp, atol=1e-3)
