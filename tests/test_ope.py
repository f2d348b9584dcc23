"""Off-policy estimates beside the exact values of a small decision process."""

import numpy as np
import pytest

from unplugged import ope

HORIZON, STATES, ACTIONS, DISCOUNT = 4, 3, 2, 0.9


def process():
    """Transitions [S, A, S], rewards [S, A], probability to end after each decision."""
    rng = np.random.default_rng(0)
    return (
        rng.dirichlet(np.ones(STATES), (STATES, ACTIONS)),
        rng.normal(size=(STATES, ACTIONS)),
        0.2,
    )


def policies():
    """The policy to judge and the one that was recorded, [S, A] each."""
    return np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]]), np.array(
        [[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]]
    )


def exact(policy, discount):
    """Q [T, S, A] and V [T + 1, S] of a policy at each step, by going back from the last."""
    move, reward, end = process()
    v, q = [np.zeros(STATES)], []
    for _ in range(HORIZON):
        q.append(reward + discount * (1 - end) * move @ v[-1])
        v.append((policy * q[-1]).sum(axis=1))
    return np.array(q[::-1]), np.array(v[::-1])


def record(rng, episodes, target, behavior, guess=None):
    """Episodes under the recorded policy, all that the estimates need; each begins in state 0."""
    move, reward, end = process()
    state, alive = np.zeros(episodes, int), np.ones(episodes, bool)
    rows = []
    for t in range(HORIZON):
        u = rng.random((3, episodes))
        action = (u[0] > behavior[state, 0]).astype(int)
        ratio = target[state, action] / behavior[state, action]
        q, v = (None, None) if guess is None else (guess[0][t, state, action], guess[1][t, state])
        rows.append((alive.copy(), reward[state, action], ratio, q, v))
        below = move[state, action].cumsum(axis=1)
        alive &= u[1] >= end
        state = np.minimum((u[2][:, None] > below).sum(axis=1), STATES - 1)
    alive, *columns = (np.array(x).T if x[0] is not None else None for x in zip(*rows))
    flat = [None if x is None else x[alive] for x in columns]
    ends = None if guess is None else np.zeros(episodes)
    return ope.Log(alive.sum(axis=1), *flat, ends)


@pytest.mark.parametrize("discount", [DISCOUNT, 1.0])
def test_estimates_find_the_exact_value(discount):
    target, behavior = policies()
    q, v = exact(target, discount)
    rough = q + 0.3 * np.random.default_rng(1).normal(size=q.shape)  # a guess that is off
    guess = rough, (target * rough).sum(axis=2)
    log = record(np.random.default_rng(2), 20_000, target, behavior, guess)
    np.testing.assert_allclose(ope.importance(log, discount), v[0, 0], atol=0.03)
    np.testing.assert_allclose(ope.doubly_robust(log, discount), v[0, 0], atol=0.03)
    own = exact(behavior, discount)[1][0, 0]
    np.testing.assert_allclose(ope.mean_return(log, discount), own, atol=0.03)
    same = log._replace(ratio=np.ones_like(log.ratio))
    np.testing.assert_allclose(ope.importance(same, discount), ope.mean_return(log, discount))
    assert ope.effective(same) == pytest.approx(20_000)
    assert 2_000 < ope.effective(log) < 20_000


def test_doubly_robust_with_the_true_values_varies_least():
    target, behavior = policies()
    guess = exact(target, DISCOUNT)
    guess = guess[0], guess[1][:HORIZON]
    found = {ope.importance: [], ope.doubly_robust: []}
    for seed in range(100):
        log = record(np.random.default_rng(seed), 100, target, behavior, guess)
        for estimate, of in found.items():
            of.append(estimate(log, DISCOUNT)[0])
    assert np.std(found[ope.doubly_robust]) < 0.7 * np.std(found[ope.importance])
    np.testing.assert_allclose(np.mean(found[ope.doubly_robust]), guess[1][0, 0], atol=0.03)


@pytest.mark.parametrize("estimate", [ope.importance, ope.doubly_robust])
def test_intervals_by_resampled_episodes_cover(estimate):
    target, behavior = policies()
    q, v = exact(target, DISCOUNT)
    guess = q, v[:HORIZON]
    covered = []
    for seed in range(200):
        log = record(np.random.default_rng(seed), 150, target, behavior, guess)
        low, high = ope.interval(estimate(log, DISCOUNT, ope.resampled(150, 200, seed)))
        covered.append(low <= v[0, 0] <= high)
    assert 0.89 <= np.mean(covered) <= 0.99


def test_a_case_by_hand(monkeypatch):
    """Two episodes, one of them cut off, all steps at once and one at a time."""
    log = ope.Log(
        lengths=np.array([2, 1]), reward=np.array([1.0, 2.0, 4.0]),
        ratio=np.array([2.0, 0.5, 1.0]), q=np.array([0.5, 1.0, 3.0]),
        v=np.array([1.0, 2.0, 3.0]), v_end=np.array([0.0, 5.0]),
    )  # fmt: skip
    # Weights: step 0 (2, 1) over 3; step 1 (1, 1) over 2, the shorter keeps its own.
    wis = (2 * 1 + 1 * 4) / 3 + 0.5 * (1 * 2 + 0) / 2
    robust = (1 + 3) / 2 + (2 * 0.5 + 1 * 1) / 3  # step 0
    robust += 0.5 * ((2 * 2 + 1 * 5) / 3 + (1 * (2 - 1)) / 2)  # step 1, v_end of the shorter
    for block in (ope._BLOCK, 1):
        monkeypatch.setattr(ope, "_BLOCK", block)
        np.testing.assert_allclose(ope.importance(log, 0.5), wis)
        np.testing.assert_allclose(ope.doubly_robust(log, 0.5), robust)
        twice = np.array([[1, 1], [2, 0]])
        alone = log._replace(lengths=log.lengths[:1], v_end=log.v_end[:1])
        np.testing.assert_allclose(ope.importance(log, 0.5, twice)[1], ope.importance(alone, 0.5))
    np.testing.assert_allclose(ope.mean_return(log, 0.5), (2 + 4) / 2)
    np.testing.assert_allclose(ope.effective(log), (1 + 1) ** 2 / 2)


def test_a_policy_that_the_log_never_follows_has_no_estimate():
    log = ope.Log(np.array([1, 1]), np.array([1.0, 1.0]), np.array([0.0, 0.0]))
    assert np.isnan(ope.importance(log, 0.9)).all() and ope.effective(log) == 0.0
    assert np.isnan(ope.interval(ope.importance(log, 0.9))).all()
    some = log._replace(ratio=np.array([0.0, 1.0]))
    found = ope.importance(some, 0.9, ope.resampled(2, 100, 0))
    assert 15 < np.isnan(found).sum() < 35  # Resamples without the second.
    assert np.isnan(ope.interval(found)).all()
    assert ope.interval(np.array([np.nan, *np.arange(39.0)])) == pytest.approx((0.95, 37.05))
    with pytest.raises(ValueError, match="needs the log's q, v and v_end"):
        ope.doubly_robust(log, 0.9)


def test_long_episodes_do_not_overflow():
    rng = np.random.default_rng(0)
    ratio = np.exp(rng.normal(scale=3.0, size=4_000))
    log = ope.Log(np.array([2_000, 2_000]), np.ones(4_000), ratio)
    np.testing.assert_allclose(ope.importance(log, 1.0), 2_000)
    assert 1.0 <= ope.effective(log) <= 2.0
    # Beside the first episode the others' weights are nothing; alone they count.
    ends, ratio = np.zeros(3), np.array([1e200, 1e200, 1e-200, 1e-200, 2e-200, 1e-200])
    guess = np.ones(6)
    log = ope.Log(np.array([2, 2, 2]), np.arange(6.0), ratio, guess, guess, ends)
    counts = np.array([[0, 2, 1], [1, 1, 1]])
    few = ope.Log(np.array([2, 2]), np.arange(2.0, 6.0), ratio[2:], guess[:4], guess[:4], ends[:2])
    for estimate in (ope.importance, ope.doubly_robust):
        found = estimate(log, 0.9, counts)
        np.testing.assert_allclose(found[0], estimate(few, 0.9, counts[:1, 1:])[0])
        np.testing.assert_allclose(found[1], estimate(log, 0.9)[0])
    # (2 * 1e-200 * 2 + 2e-200 * 4) / 4e-200, and the second step in the same shares.
    np.testing.assert_allclose(ope.importance(log, 1.0, counts[:1]), [3.0 + 4.0])


def test_how_often_like_states_saw_what_the_policy_does():
    rng = np.random.default_rng(0)
    logged = np.concatenate([rng.normal(0, 0.1, (100, 2)), rng.normal(9, 0.1, (100, 2))])
    action = np.repeat([0, 1], 100)
    states = np.array([[0.0, 0.0], [9.0, 9.0], [0.0, 0.0]])
    policy = np.array([[1.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
    np.testing.assert_allclose(ope.seen(states, policy, logged, action), [1.0, 0.0, 0.25])
    assert ope.differs(policy, np.array([0, 1, 1])) == pytest.approx(1 - 1.75 / 3)
