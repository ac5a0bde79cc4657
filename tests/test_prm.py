"Process reward models where the truth is known: what they find, what they must not find, and what they claim of it."

import warnings

import numpy as np
import pytest
from scipy.special import expit

torch = pytest.importorskip("torch", reason="the training packages are not installed")

from spatial_nb.core import rng  # noqa: E402
from spatial_nb.prm import _platt, calibration, features, fit, quality  # noqa: E402
from spatial_nb.probes import Reading  # noqa: E402

torch.set_num_threads(1)


def noisy(seed, n=1500, d=8, weight=1.0, base=1.0):
    "Steps, whether they are right, and the probability with which they are."
    random = rng("prm test", seed)
    x = random.normal(size=(n, d))
    p = expit(base + weight * (2 * x[:, 0] - x[:, 1]))
    return x, random.random(n) < p, p


@pytest.mark.parametrize("hidden", [0, 32])
def test_what_can_be_told_apart_is(hidden):
    x, right, _ = noisy(0, weight=100, base=0.0)
    new, truth, _ = noisy(1, weight=100, base=0.0)
    found = quality(fit(x, right, hidden=hidden)(new), truth)
    assert found["AUC"] > 0.985 and found["Brier score"] < 0.05
    assert found["false accepts"] < 0.1 and found["false rejects"] < 0.1


def test_a_network_finds_what_no_line_divides():
    random = rng("prm ring")
    x, new = (random.normal(size=(1500, 2)) for _ in range(2))
    inside = lambda x: (x**2).sum(1) < 1.4
    auc = {h: quality(fit(x, inside(x), hidden=h)(new), inside(new))["AUC"] for h in (0, 32)}
    assert auc[32] > 0.97 and auc[0] < 0.65


@pytest.mark.parametrize("seed", range(3))
def test_of_useless_features_nothing_is_claimed(seed):
    x, right, _ = noisy(seed, n=800, d=100, weight=0, base=1.2)
    new, truth, _ = noisy(seed + 10, n=2000, d=100, weight=0, base=1.2)
    p = fit(x, right, steps=300, seed=seed)(new)
    found = quality(p, truth)
    assert abs(found["AUC"] - 0.5) < 0.05
    assert np.abs(p - expit(1.2)).mean() < 0.08 and found["calibration error"] < 0.08
    assert found["Brier score"] < truth.mean() * (1 - truth.mean()) + 0.01


@pytest.mark.parametrize("hidden", [0, 32])
def test_probabilities_mean_what_they_say(hidden):
    x, right, _ = noisy(2, n=4000)
    new, truth, p = noisy(3, n=4000)
    model = fit(x, right, hidden=hidden)
    assert np.abs(model(new) - p).mean() < 0.05
    table = calibration(model(new), truth)
    error = np.sqrt(table["share right"] * (1 - table["share right"]) / table.n)
    gap = (table["mean p"] - table["share right"]).abs()
    assert (gap < 0.04 + 3 * error)[table.n > 0].all(), table
    assert quality(model(new), truth)["Brier score"] < quality(p, truth)["Brier score"] + 0.01


def by_group(seed, n=60, each=8, d=12):
    "Steps of questions, all right or all wrong; features say which question it is and nothing else."
    random = rng("prm groups", seed)
    code, right = random.normal(size=(n, d)), random.random(n) < 0.5
    group = np.repeat(np.arange(n), each)
    return code[group] + 0.01 * random.normal(size=(n * each, d)), right[group], group


def test_knowing_the_question_is_not_knowing_the_step():
    x, right, group = by_group(0, n=200)
    new, truth, _ = by_group(1, n=400)
    apart, mixed = fit(x, right, groups=group), fit(x, right)
    assert quality(mixed(x), right)["AUC"] > 0.95, "the questions must be known by heart, or this test shows nothing"
    for model in (apart, mixed):
        assert abs(quality(model(new), truth)["AUC"] - 0.5) < 0.12
    assert quality(apart(new), truth)["Brier score"] < 0.29
    assert quality(mixed(new), truth)["Brier score"] > 0.35, "steps of one question on both sides look like success"
    assert apart.trust < mixed.trust / 3


def test_groups_are_never_divided_and_may_have_any_names():
    from spatial_nb.prm import _held_out

    _, right, group = by_group(2)
    for seed in range(20):
        held = _held_out(group, right, 0.2, seed)
        assert not set(group[held]) & set(group[~held]) and len(set(group[held])) == 12
        assert set(right[held]) == set(right[~held]) == {False, True}
    named = np.array([f"question {g}" for g in group])
    assert _held_out(named, right, 0.2, 0).sum() == held.sum()
    order = rng("prm order").permutation(len(group))  # which groups are held out depends on no order of rows
    assert (_held_out(group[order], right[order], 0.2, 19) == held[order]).all()


def test_few_groups_are_divided_so_that_both_sides_have_both():
    from spatial_nb.prm import _held_out

    right, group = np.array([1, 1, 0, 0], bool), np.arange(4)  # one group held out would hold one class
    held = _held_out(group, right, 0.2, 0)
    assert held.sum() == 2 and right[held].sum() == 1


def test_the_same_seed_gives_the_same_model_and_no_other_random_number_changes():
    x, right, _ = noisy(4, n=200)
    torch.manual_seed(0)
    before, models = torch.get_rng_state(), [fit(x, right, steps=50, seed=s) for s in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    a, b, c = (m(x) for m in models)
    assert (a == b).all() and (a != c).any()


def test_a_feature_that_never_varied_is_not_looked_at():
    x, right, _ = noisy(5, n=300)
    x = np.hstack([x, np.full((300, 1), 0.1, np.float32), np.zeros((300, 1))])
    model, other = fit(x, right, steps=50), x.copy()
    other[:, -2:] = 1e6
    assert (model(x) == model(other)).all()


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_platts_numbers_are_those_that_the_probabilities_were_made_with(scale):
    random = rng("platt")
    raw = random.normal(size=20000) * 2
    right = random.random(20000) < expit(-0.7 + 0.5 * raw)
    base, trust = _platt(raw * scale, right)
    assert base == pytest.approx(-0.7, abs=0.1) and trust * scale == pytest.approx(0.5, abs=0.05)
    assert _platt(raw * scale, ~(raw > 0))[1] == 0  # what is the wrong way round is not believed
    assert np.isfinite(_platt(raw * scale, raw > 0)).all()  # and what is always right, not without end


def test_quality_by_hand_and_where_a_class_is_missing():
    p, truth = np.array([0.9, 0.8, 0.6, 0.4, 0.3, 0.1]), np.array([1, 1, 0, 1, 0, 0])
    assert list(quality(p, truth).values()) == pytest.approx([8 / 9, 0.145, 1.9 / 6, 1 / 3, 1 / 3])
    assert quality(p, truth, threshold=0.4)["false rejects"] == 0  # a step passes at the threshold
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(list(quality(p, np.ones(6)).values())).tolist() == [True, False, False, True, False]
        assert np.isnan(list(quality(p, np.zeros(6)).values())).tolist() == [True, False, False, False, True]
        assert np.isnan(list(quality([], []).values())).all()
        assert quality(np.full(4, 0.5), [0, 1, 0, 1])["AUC"] == 0.5
        assert quality([0.2, 0.7], [0, 1])["AUC"] == 1
    table = calibration([0, 0.05, 0.1, 0.55, 1], [0, 1, 0, 1, 1])
    assert list(table.index[:2]) == ["0 to 0.1", "0.1 to 0.2"] and table.n.tolist() == [3, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert table["share right"].iloc[0] == pytest.approx(1 / 3) and np.isnan(table["share right"].iloc[1])
    assert len(calibration([], [], bins=3)) == 3


def reading(logp, d=2):
    return Reading(np.zeros(d, np.float32), np.arange(d, dtype=np.float32), np.log(np.float32(logp)))


def test_features_are_surprise_and_the_state_after():
    x = features([reading([0.9, 0.05, 0.01]), reading([0.5])])
    assert x.dtype == np.float32 and x[:, 3:].tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(x[0, :3], [np.log(0.01), np.log([0.9, 0.05, 0.01]).mean(), np.log(3)], rtol=1e-5)
    np.testing.assert_allclose(x[1, :3], [np.log(0.5), np.log(0.5), 0], rtol=1e-5)


X, Y = rng("prm bad").normal(size=(20, 3)), np.arange(20) % 2


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: fit(X, Y[:-1]), r"labels has the shape \(19,\), x has 20 rows: wants as many"),
        (lambda: fit(X, Y, groups=Y[:-1]), r"groups has the shape \(19,\), x has 20 rows: wants as many"),
        (lambda: fit(X, Y * 0), "all 20 labels are 0, wants both 0 and 1"),
        (lambda: fit(X, Y + 0.5), "label 0 is 0.5, allowed: 0 or 1"),
        (lambda: fit(X, np.where(Y, np.nan, 0)), "label 1 is nan, allowed: 0 or 1"),
        (lambda: fit(X[:0], Y[:0]), "x has 0 rows, wants 1 or more"),
        (lambda: fit(X[:, 0], Y), r"x has the shape \(20,\), allowed: \(steps, features\)"),
        (lambda: fit(np.where(X == X[4, 1], np.inf, X), Y), "row 4 of x holds inf, allowed: finite numbers"),
        (lambda: fit(X, Y, groups=Y * 0), "held_out is 0.2, allowed: what leaves right and wrong steps on both sides"),
        (lambda: fit(X, Y, held_out=1.0), "held_out=1.0: allowed are"),
        (lambda: fit(X, Y, lr=0.0), "lr=0.0"),
        (lambda: fit(X, Y, hidden=-1), "hidden is -1, wants a whole number of at least 0"),
        (lambda: fit(X, Y, steps=0), "steps is 0"),
        (lambda: fit(X, Y, steps=5)(X[:, :2]), "x has 2 columns, allowed: 3, as in training"),
        (lambda: fit(X, Y, steps=5)(X * np.nan), "row 0 of x holds nan"),
        (lambda: quality([0.5, 1.5], [0, 1]), "p 1 is 1.5, allowed: from 0 to 1"),
        (lambda: quality([0.5, np.nan], [0, 1]), "p 1 is nan, allowed: from 0 to 1"),
        (lambda: quality([0.5], [0, 1]), r"labels has the shape \(2,\), p has 1 rows"),
        (lambda: quality([0.5], [2]), "label 0 is 2, allowed: 0 or 1"),
        (lambda: quality([0.5], [1], threshold=5), "threshold is 5, allowed: from 0 to 1"),
        (lambda: calibration([0.5], [1], bins=0), "bins is 0"),
        (lambda: features([]), "there are 0 readings, wants 1 or more"),
        (lambda: features([reading([1]), reading([1], 3)]), "reading 1 has a state of 3 numbers, the first one of 2"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says) as e:
        call()
    assert "\n" not in str(e.value)
