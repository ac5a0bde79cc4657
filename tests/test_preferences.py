"Preferences: what DPO is paid for is what we compute, and a killed run gives the result of one that is not."

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the training packages are not installed")
pytest.importorskip("trl", reason="the training packages are not installed")

from test_training import ITEMS, SEEN, fresh, killed, same  # noqa: E402

from spatial_nb import models, sft  # noqa: E402
from spatial_nb.preferences import Pair, margins, pair_rows, train  # noqa: E402

from transformers import TrainerCallback  # noqa: E402 # isort: skip  (after models, which makes torchvision importable)

TEXT = [i for i in ITEMS if not i.images]
ANSWERS = (("red", "blue"), ("red cube", "no"), ("green", "yes, a red sphere"))  # of different lengths
PAIRS = [Pair(item, *ANSWERS[n % 3]) for n, item in enumerate(TEXT * 2)]
SHOWN = [Pair(item, *ANSWERS[n % 3]) for n, item in enumerate(SEEN[:4])]
DPO = dict(lr=1e-2, steps=6, batch=3, save_every=2, seed=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "An undisturbed run."
    return train(fresh(), PAIRS, tmp_path_factory.mktemp("runs") / "whole", **DPO)


def alone(model, row):
    "Log probability of the answer of `row`, in a forward pass of its own, from all logits."
    ids = torch.tensor([row.prompt + row.answer])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    start = len(row.prompt) - 1
    return logs[range(start, start + len(row.answer)), row.answer].sum()


def padded(model, rows):
    "The same of all rows in one pass, the shorter ones filled up on the right with a token that is none of padding."
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), 65)
    mask = torch.zeros_like(ids)
    for k, r in enumerate(rows):
        ids[k, : len(r)], mask[k, : len(r)] = torch.tensor(r.prompt + r.answer), 1
    with torch.no_grad():
        logs = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    return torch.stack([logs[k, range(len(r.prompt) - 1, len(r) - 1), r.answer].sum() for k, r in enumerate(rows)])


class Look(TrainerCallback):
    "Log probabilities of `rows` after each step: without padding, and with it."

    def __init__(self, rows):
        self.rows, self.seen = rows, []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append((torch.stack([alone(model, r) for r in self.rows]), padded(model, self.rows)))


def test_prompt_is_what_is_asked_and_answers_end_as_fine_tuning_ends_them():
    vlm = fresh()
    rows, n = pair_rows(vlm, PAIRS).rows, len(PAIRS)
    for k, pair in enumerate(PAIRS):
        prompt = models.prompt_ids(vlm, models.prompt_text(vlm, pair.item), [])
        for row, text in ((rows[k], pair.chosen), (rows[n + k], pair.rejected)):
            assert list(row.prompt) == prompt
            assert list(row.answer) == models.answer_ids(vlm, pair.item, text)


def test_the_first_loss_is_log_2_for_the_reference_is_the_policy(whole):
    first = whole.history[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_the_chosen_become_more_probable_than_the_rejected(whole):
    before, after = margins(fresh(), PAIRS), margins(whole.vlm, PAIRS)
    assert all(b > a + 1 for a, b in zip(before, after, strict=True))
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    assert whole.history[-1]["rewards/accuracies"] == 1


def test_reward_margins_are_differences_of_summed_log_probabilities(tmp_path):
    vlm, beta, n = fresh(), 0.3, len(PAIRS)
    rows = pair_rows(vlm, PAIRS).rows
    look = Look(rows)
    before = torch.stack([alone(vlm.model, r) for r in rows])
    run = train(vlm, PAIRS, tmp_path / "run", **DPO | dict(batch=n, beta=beta, warmup=0.0), callbacks=[look])
    for step, (bare, wide) in zip(run.history[1:], look.seen):  # a step logs what it found, which the one before left
        torch.testing.assert_close(bare, wide, rtol=0, atol=1e-4)
        for now in (bare, wide):
            rewards = beta * (now - before)
            assert step["rewards/margins"] == pytest.approx((rewards[:n] - rewards[n:]).mean().item(), abs=1e-4)
            assert step["rewards/chosen"] == pytest.approx(rewards[:n].mean().item(), abs=1e-4)
            assert step["logps/rejected"] == pytest.approx(now[n:].mean().item(), abs=1e-4)
            loss = -torch.nn.functional.logsigmoid(rewards[:n] - rewards[n:]).mean()
            assert step["loss"] == pytest.approx(loss.item(), abs=1e-4)
    now = look.seen[-1][0]
    for batch in (1, 4):
        assert margins(run.vlm, PAIRS, batch) == pytest.approx((now[:n] - now[n:]).tolist(), abs=1e-4)


def test_sft_weight_adds_the_loss_of_fine_tuning_on_the_chosen(tmp_path):
    vlm, n = fresh(), len(PAIRS)
    chosen = pair_rows(vlm, PAIRS).rows[:n]
    nll = -sum(alone(vlm.model, r) for r in chosen).item() / sum(len(r.answer) for r in chosen)
    run = train(vlm, PAIRS, tmp_path / "run", **DPO | dict(batch=n, sft_weight=0.5, steps=1))
    assert run.losses[0] == pytest.approx(math.log(2) + 0.5 * nll, abs=1e-4)


MODES = [{}, dict(sft_weight=0.5, batch=2), dict(muon=1e-2)]


@pytest.mark.parametrize("how", MODES, ids=str)
def test_killed_run_ends_bit_for_bit_as_one_never_killed(whole, tmp_path, how):
    a = train(fresh(), PAIRS, tmp_path / "whole", **DPO | how) if how else whole
    same(a, killed(train, PAIRS, tmp_path / "killed", (1, 3, 5), **DPO | how))
    assert not how or a.vlm.hash != whole.vlm.hash


def test_pairs_with_and_without_pictures_in_one_run(tmp_path):
    how = DPO | dict(steps=3, batch=4)
    a = train(fresh(), SHOWN + PAIRS[:4], tmp_path / "whole", **how)
    same(a, killed(train, SHOWN + PAIRS[:4], tmp_path / "killed", (2,), **how))
    assert a.losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert models.eyes_hash(a.vlm) == models.eyes_hash(fresh())
    blind = [replace(p, item=replace(p.item, images=[])) for p in SHOWN]
    assert margins(a.vlm, SHOWN) != pytest.approx(margins(a.vlm, blind), abs=1e-3)


def test_training_leaves_the_model_as_transformers_made_it(whole):
    assert "forward" not in whole.vlm.model.__dict__ and not whole.vlm.model.training
    assert whole.lineage["parent"] == fresh().hash
    assert whole.lineage["model"] == models.load(whole.folder, device="cpu").hash


def test_the_same_call_gives_the_result_and_another_one_is_refused(whole):
    out = whole.folder.parent
    same(whole, train(fresh(), PAIRS, out, **DPO))
    with pytest.raises(ValueError, match="another run .params.beta: 0.1 there, 0.2 here"):
        train(fresh(), PAIRS, out, **DPO | dict(beta=0.2))
    with pytest.raises(ValueError, match="another run .data: "):
        train(fresh(), [replace(PAIRS[0], chosen="green"), *PAIRS[1:]], out, **DPO)
    with pytest.raises(ValueError, match="another run .data: .*method: dpo there, sft here"):
        sft.train(fresh(), TEXT, out, lr=1e-2, steps=6, batch=3)


BAD = [
    (dict(lr=0), "lr=0,"),
    (dict(lr=-1e-3), "lr=-0.001,"),
    (dict(steps=0), "steps=0,"),
    (dict(schedule="cosin"), "schedule='cosin': "),
    (dict(beta=0), "beta=0: allowed is a number above 0"),
    (dict(beta=float("nan")), "beta=nan: "),
    (dict(sft_weight=-1), "sft_weight=-1: allowed is 0 or more"),
    (dict(muon=-1), "muon=-1: "),
    (dict(clip=0), "clip=0: "),
    (dict(batch=0), "batch=0: allowed is 1 or more"),
    (dict(save_every=0), "save_every=0: allowed is 1 or more"),
    (dict(max_length=20), r"item 'i0, pair 0, chosen' has \d+ tokens .* allowed: max_length=20"),
    (dict(pairs=[]), "there are no pairs"),
    (dict(pairs=[PAIRS[0], ("a", "b", "c")]), "pair 1 is a tuple, wants a Pair"),
]


@pytest.mark.parametrize(("change", "says"), BAD, ids=lambda x: str(x)[:30])
def test_bad_input_is_an_error_of_one_line_before_anything_is_written(tmp_path, change, says):
    with pytest.raises(ValueError, match=says) as e:
        train(fresh(), **dict(pairs=PAIRS, out=tmp_path / "run") | DPO | change)
    assert "\n" not in str(e.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("chosen", "rejected", "says"),
    [("", "blue", "chosen is ''"), ("red", " \n", "rejected is ' "), ("red", None, "rejected is None"),
     ("red", "red", "chosen and rejected are both 'red', allowed are two that differ")],
)  # fmt: skip
def test_a_pair_wants_two_texts_that_differ(chosen, rejected, says):
    with pytest.raises(ValueError, match=f"pair of item 'i0': {says}"):
        Pair(TEXT[0], chosen, rejected)
    with pytest.raises(ValueError, match="the item of a pair is 'i0', wants an Item"):
        Pair("i0", "red", "blue")
