"Models: what a notebook cannot hold (other processes, damaged files, a model whose answers differ)."

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training packages are not installed")

from PIL import Image  # noqa: E402

from spatial_nb import models  # noqa: E402
from spatial_nb.items import Item  # noqa: E402

torch.set_num_threads(1)
WORDS = ["What color is the cube? Is there a red sphere?", "red", "blue", "yes", "no"] * 4
EYES = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, window_size=64, fullatt_block_indexes=[1])
TEXT = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2)


def picture(seed, size=(96, 64)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def loud(seed=0):
    "A random model with large weights: its answers differ from question to question and from picture to picture."
    vlm = models.build_tiny(models.train_tokenizer(WORDS, 300), vision=EYES, text=TEXT, seed=seed)
    for p in vlm.model.parameters():
        if p.ndim > 1:
            p.data.mul_(10)
    return vlm


@pytest.fixture(scope="module")
def vlm():
    return loud()


@pytest.fixture(scope="module")
def items():
    pictures = [picture(0), picture(1, (160, 64)), picture(2)]
    shown = [[0], [0], [1], [0, 1], [], [2], [1, 0], []]
    return [
        Item(
            f"i{n}",
            "Is there a red sphere?" if n % 2 else "What color is the cube?",
            [pictures[k] for k in s],
            "red",
            "text",
        )
        for n, s in enumerate(shown)
    ]


def test_pictures_encoded_once_give_the_texts_of_the_stock_path(vlm, items):
    shared = models.generate(vlm, items, max_new_tokens=6, batch_size=3)
    stock = models.generate(vlm, items, max_new_tokens=6, batch_size=3, share=False)
    assert shared == stock
    assert len(set(shared)) > 3, "the answers must differ, or this test shows nothing"


def test_what_prompts_have_in_common_is_read_once(vlm):
    small, wide = picture(3), picture(4, (160, 64))
    asks = ["Is there a red sphere?", "What color is the cube?", "What?", "no no no?"]
    items = [
        Item(f"{k}{n}", q, shown, "red", "text")
        for k, shown in enumerate([[small], [wide], [wide, small]])
        for n, q in enumerate(asks)
    ]
    read, base = [], vlm.model.base_model.language_model
    hook = base.register_forward_pre_hook(lambda m, args, kw: read.append(kw["inputs_embeds"].shape), with_kwargs=True)
    try:
        shared = models.generate(vlm, items, max_new_tokens=6, batch_size=12)
        several = [n for rows, n, _ in read if n > 20]
        alone = models.generate(vlm, items, max_new_tokens=6, batch_size=1)
    finally:
        hook.remove()
    assert shared == alone == models.generate(vlm, items, max_new_tokens=6, share=False)
    assert read[0][0] == 3 and len(several) == 1, "three beginnings, read once"
    assert len(set(shared)) > 6, "the answers must differ, or this test shows nothing"


def test_batching_and_padding_do_not_change_answers(vlm, items):
    assert models.generate(vlm, items, 6, batch_size=8) == models.generate(vlm, items, 6, batch_size=1)


def test_answers_depend_on_the_picture(vlm, items):
    other = [Item(i.id, i.question, [picture(9, im.size) for im in i.images], "red", "text") for i in items if i.images]
    assert models.generate(vlm, other, 6) != models.generate(vlm, [i for i in items if i.images], 6)


def test_fast_vision_gives_the_same_bits_with_unequal_windows(vlm):
    px = vlm.processor.image_processor([picture(3, (112, 80)), picture(4, (240, 176))], return_tensors="pt")
    with torch.no_grad():
        stock = vlm.model.model.get_image_features(px["pixel_values"], px["image_grid_thw"]).pooler_output
        with models.fast_vision(vlm):
            fast = vlm.model.model.get_image_features(px["pixel_values"], px["image_grid_thw"]).pooler_output
    assert all(torch.equal(a, b) for a, b in zip(stock, fast, strict=True))


def test_predicted_picture_tokens_are_what_the_processor_makes(vlm):
    for size in ((96, 64), (480, 320), (101, 67), (33, 190), (1000, 700), (20, 20)):
        grid = vlm.processor.image_processor([picture(0, size)], return_tensors="pt")["image_grid_thw"][0]
        assert models.image_tokens(vlm, size) == int(grid.prod()) // vlm.processor.image_processor.merge_size**2, size


def test_a_cached_picture_is_not_encoded_again_and_other_eyes_do_not_use_it(vlm):
    cache = {}
    models.encode_images(vlm, [picture(0)], cache)
    models.encode_images(vlm, [picture(0)], cache)
    assert len(cache) == 1
    models.encode_images(loud(seed=1), [picture(0)], cache)
    assert len(cache) == 2


def test_adapter_switched_off_answers_as_the_base(items):
    base = loud()
    want = models.generate(base, items, 6)
    adapted = models.lora(base, rank=4)
    for name, p in adapted.model.named_parameters():
        if "lora_B" in name:
            p.data.normal_(generator=torch.Generator().manual_seed(0))
    changed = models.generate(adapted, items, 6)
    assert changed != want
    with models.adapter_off(adapted):
        assert models.generate(adapted, items, 6) == want
    assert models.generate(models.merge(adapted), items, 6) == changed


def test_plain_transformers_loads_a_saved_model_in_a_new_process(vlm, tmp_path):
    folder = models.save(vlm, tmp_path / "model")
    code = (
        "import spatial_nb.models, sys\n"
        "from transformers import AutoModelForImageTextToText as M, AutoProcessor as P\n"
        "m, p = M.from_pretrained(sys.argv[1]), P.from_pretrained(sys.argv[1])\n"
        "from PIL import Image\n"
        "parts = [{'type': 'image', 'image': Image.new('RGB', (96, 64))}, {'type': 'text', 'text': 'red?'}]\n"
        "chat, how = [{'role': 'user', 'content': parts}], dict(tokenize=True, return_dict=True, return_tensors='pt')\n"
        "x = p.apply_chat_template(chat, add_generation_prompt=True, **how)\n"
        "print(type(m).__name__, type(p).__name__, m(**x).logits.shape[-1], spatial_nb.models.Vlm(m, p).hash)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    want = f"Qwen2_5_VLForConditionalGeneration Qwen2_5_VLProcessor {len(vlm.tokenizer)} {vlm.hash}"
    assert done.stdout.strip() == want, done.stderr[-2000:]


def test_a_checkpoint_that_lacks_a_weight_is_refused(vlm, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = models.save(vlm, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    gone = next(k for k in weights if "down_proj" in k)
    save_file({k: v for k, v in weights.items() if k != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    for read in (lambda: models.load(folder, device="cpu"), lambda: models.load_weights(loud(), folder)):
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            read()


def test_a_damaged_picture_is_named(vlm, tmp_path):
    picture(0).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    with pytest.raises(ValueError, match="cut.png"):
        models.encode_images(vlm, [Image.open(tmp_path / "cut.png")])


def test_every_byte_survives_the_tokenizer(vlm):
    for text in ("".join(map(chr, range(32, 1024))), "  two\n\n\ttabs ", "\u4f60\u597d \U0001f600", "3.14 -5 1,200"):
        import unicodedata

        ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert vlm.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
