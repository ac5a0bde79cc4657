"""Critics of whole steps: exact where the values are known, and careful with what they are given."""

import numpy as np
import pytest
import torch

from spatial_nb.core import rng
from spatial_nb.offline_rl import Critic, Transitions, awr, cql, drawn, iql, returns, weights

# A line of five places; the goal is at the right end, and whoever walked mostly went left.
N, GOAL, GAMMA = 5, 4, 0.9
BEST = np.array([GAMMA**3, GAMMA**2, GAMMA, 1.0, 0.0])


def walks(seed=0, episodes=200, right=0.3):
    random, rows = rng("line", seed), []
    for e in range(episodes):
        i = int(random.integers(GOAL))
        for _ in range(40):
            a = int(random.random() < right)
            j = min(max(i + (1 if a else -1), 0), GOAL)
            rows.append((i, a, j, e))
            i = j
            if i == GOAL:
                break
    i, a, then, episode = np.array(rows).T
    here, every, done = np.eye(N), np.eye(2 * N).reshape(N, 2, -1), then == GOAL
    return i, a, Transitions(here[i], every[i, a], here[then], done.astype(float), done, episode, every[i])


def greedy(i, a, w):
    count = np.zeros((N, 2))
    np.add.at(count, (i, a), w)
    return count[:GOAL].argmax(1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("learn", [awr, lambda d, **k: iql(d, 0.9, **k), lambda d, **k: cql(d, 0.02, **k)])
def test_the_best_way_comes_from_walks_that_mostly_went_the_other_way(learn, seed):
    i, a, data = walks(seed, episodes=600, right=0.4)
    assert greedy(i, a, np.ones(len(i))).tolist() == [0, 0, 0, 0]  # what imitation does
    critic = learn(data, gamma=GAMMA, steps=600, batch=128, lr=0.03, seed=seed)
    assert greedy(i, a, weights(critic.advantage(data), beta=0.05)).tolist() == [1, 1, 1, 1]


def test_values_are_those_of_the_walker_and_of_the_best():
    i, a, data = walks(episodes=1500)
    mean = np.array([returns(data, GAMMA)[i == k].mean() for k in range(GOAL)])
    how = dict(gamma=GAMMA, steps=1500, lr=0.03)
    assert np.abs(awr(data, **how).value(np.eye(N))[:GOAL] - mean).max() < 0.05
    assert np.abs(iql(data, 0.99, **how).value(np.eye(N)) - BEST)[:GOAL].max() < 0.05
    low = iql(data, 0.5, **how).value(np.eye(N))[:GOAL]
    assert (low < BEST[:GOAL] - 0.02).all() or (low[0] < BEST[0] - 0.1)


def test_what_nobody_did_is_not_believed():
    one = np.eye(2)
    here, taken, end = np.ones((50, 1)), np.tile(one[0], (50, 1)), np.ones(50, bool)
    data = Transitions(here, taken, here, np.full(50, 0.5), end, np.arange(50), np.tile(one, (50, 1, 1)))

    def gap(careful):
        critic = cql(data, careful, steps=400, lr=0.05)
        taken, other = critic.lower(critic.q, torch.eye(2)).tolist()
        return taken - other

    assert gap(1.0) > gap(0.0) + 0.5


def test_the_same_seed_gives_the_same_critic():
    _, _, data = walks(episodes=20)
    a, b, c = (iql(data, steps=50, hidden=8, seed=s).value(data.state) for s in (1, 1, 2))
    assert (a == b).all() and (a != c).any()


def test_returns_stop_at_the_end_of_an_episode():
    state = np.eye(4)
    data = Transitions(
        state, state, state, np.array([1.0, 1, 1, 1]), np.array([0, 1, 0, 0], bool), np.array([0, 0, 1, 1])
    )
    assert returns(data, 0.5).tolist() == [1.5, 1.0, 1.5, 1.0]


def test_weights_and_rows():
    a = rng("weights").normal(size=200)
    w = weights(a, 0.5, most=10)
    assert w.sum() == pytest.approx(1) and (np.diff(w[np.argsort(a)]) >= -1e-15).all()
    assert w.max() / np.median(w) <= 10 / np.exp(np.median(a) / 0.5) + 1e-6
    n = 5000
    count = np.bincount(drawn(w, n, 1), minlength=200)
    assert count.sum() == n and (np.abs(count - n * w) < 1 + 1e-6).all()
    assert (drawn(w, 50, 1) == drawn(w, 50, 1)).all() and (drawn(w, 50, 1) != drawn(w, 50, 2)).any()
    assert weights(np.array([1e9, -1e9])).tolist() == [1.0, 0.0]
    assert drawn(np.array([1.0]), 3, "one").tolist() == [0, 0, 0]


def but(data, **changed):
    return Transitions(**vars(data) | changed)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda d: iql(d, expectile=1.0), "expectile=1.0: allowed is between 0 and 1"),
        (lambda d: iql(d, steps=0), "steps=0"),
        (lambda d: awr(d, lr=0.0), "lr=0.0"),
        (lambda d: weights(np.zeros(3), beta=0), "beta=0"),
        (lambda d: cql(but(d, others=None)), "others is None"),
        (lambda d: Transitions(*(x[:0] for x in list(vars(d).values())[:6])), "0 transitions"),
        (lambda d: but(d, action=d.action[:-1]), "action has"),
        (lambda d: but(d, reward=d.reward * np.nan), "reward holds values"),
        (lambda d: cql(but(d, possible=np.zeros((len(d), 2), bool))), "transition 0 has no possible step"),
    ],
)
def test_bad_input_is_named(call, says):
    _, _, data = walks(episodes=2)
    with pytest.raises(ValueError, match=says):
        call(data)


def test_heads_start_at_nothing():
    critic = Critic(3, 4, hidden=16)
    assert (critic.value(np.random.default_rng(0).normal(size=(5, 3))) == 0).all()
