"""Offline scores of a policy, where the right answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from conftest import NUM_ACTIONS, OBSERVATION, random_params
from test_runs import catch, spec  # noqa: F401
from unplugged import datasets, learner, methods, ope, runs, selection, windows

pytestmark = pytest.mark.slow


def chain():
    """Episodes of two steps: the first action decides the second state, which pays or not.

    Action 1 leads to state B, where action 2 is worth 4 and the others 0; any other leads
    to state C, where everything is worth 1. All pairs of actions are recorded.
    """
    where = {"A": 0, "B": 1, "C": 2, "end": 3}
    observation = np.eye(4, dtype=np.float32).reshape(4, *OBSERVATION)
    episodes = []
    for first in range(NUM_ACTIONS):
        for second in range(NUM_ACTIONS):
            middle = "B" if first == 1 else "C"
            pays = (4.0 if second == 2 else 0.0) if middle == "B" else 1.0
            episodes.append(
                {
                    "observation": observation[[where["A"], where[middle], where["end"]]],
                    "action": [first, second],
                    "reward": [0.5, pays],
                    "terminated": True,
                }
            )
    return datasets.from_episodes(episodes, {"num_actions": NUM_ACTIONS})


@pytest.mark.parametrize(
    "policy, value",
    [
        ([[1 / 3] * 3] * 4, 0.5 + 0.9 * (1 / 3 * 4 / 3 + 2 / 3)),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]], 0.5 + 0.9 * 4.0),
        ([[1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]], 0.5 + 0.9 * 1.0),
    ],
)
def test_fqe_finds_the_value_of_a_policy(model, policy, value):
    data = windows.store(chain())
    state = np.argmax(np.asarray(data.observation).reshape(-1, 4), axis=1)
    first = jnp.flatnonzero(state == 0)
    estimate = selection.fitted_q_evaluation(
        model, data, first, jnp.asarray(policy, jnp.float32)[state], jax.random.key(0),
        discount=0.9, updates=1_500, batch_size=32, learning_rate=0.01,
    )  # fmt: skip
    np.testing.assert_allclose(estimate, value, atol=0.15)


@pytest.mark.parametrize(
    "discount, updates, refreshed",
    [(0.9, 290, 10), (0.9, 299, 10), (0.9, 100, 3), (0.9, 7, 1), (0.997, 3_000, 3), (1.0, 50, 1)],
)
def test_fqe_looks_as_far_ahead_as_the_discount_lets_it(discount, updates, refreshed):
    assert ope.refreshes(discount, updates) == refreshed
    steps = updates // refreshed
    assert discount**steps <= 0.05 or refreshed == 1


def test_returns_to_go_end_with_their_episode(dataset):
    data = windows.store(dataset)
    found = ope.returns_to_go(data.reward, data.end, 0.9)
    np.testing.assert_allclose(found, datasets.returns_to_go(dataset, 0.9), rtol=1e-5, atol=1e-6)
    assert (np.asarray(found)[dataset.is_last] == 0.0).all()


def steady(pays, steps=60):
    """An episode that pays the same at each step, whatever is done."""
    return datasets.from_episodes(
        [
            {
                "observation": np.ones([steps + 1, *OBSERVATION], np.float32),
                "action": np.arange(steps) % NUM_ACTIONS,
                "reward": np.full(steps, pays),
                "terminated": False,
            }
        ],
        {"num_actions": NUM_ACTIONS},
    )


@pytest.mark.parametrize("pays", [1.0, 100.0])
def test_fqe_of_long_episodes_and_of_returns_beyond_the_bins(model, pays, monkeypatch):
    data = windows.store(steady(pays))
    policy = jnp.full([len(data.action), NUM_ACTIONS], 1 / NUM_ACTIONS)
    fit = functools.partial(
        ope.fit_q, model, data, policy, jax.random.key(0),
        discount=0.9, updates=600, batch_size=32, learning_rate=0.01,
    )  # fmt: skip

    def value(**options):
        critic = fit(**options)
        assert critic.unit == pytest.approx(10.0 * pays, rel=1e-5)  # Were it to go on.
        return ope.state_values(model, critic, data, policy, jnp.zeros(1, int))

    np.testing.assert_allclose(value(), 10.0 * pays, rtol=0.1)
    monkeypatch.setattr(ope, "_OF_LOG", 0.0)
    np.testing.assert_allclose(value(), 10.0 * pays, rtol=0.1)
    near = value(target_interval=300)  # Two looks ahead, the first of them at zeros.
    np.testing.assert_allclose(near, 1.9 * pays, rtol=0.05)


@pytest.mark.parametrize("pays", [1.0, 100.0])
def test_fqe_of_random_returns_is_their_mean(model, pays):
    """Half of the episodes pay: squashed bins would fit the mean of squashed returns."""
    one = {"observation": np.ones([2, *OBSERVATION], np.float32), "action": [0], "terminated": True}
    episodes = [{**one, "reward": [pays * (i % 2)]} for i in range(20)]
    data = windows.store(datasets.from_episodes(episodes, {"num_actions": NUM_ACTIONS}))
    policy = jnp.eye(NUM_ACTIONS)[jnp.zeros(len(data.action), int)]
    estimate = selection.fitted_q_evaluation(
        model, data, data.start, policy, jax.random.key(0),
        discount=0.9, updates=600, batch_size=512, learning_rate=1e-3,
    )  # fmt: skip
    np.testing.assert_allclose(estimate, pays / 2, rtol=0.05)


def test_fqe_begins_at_what_the_log_earned(model, monkeypatch):
    monkeypatch.setattr(ope, "_OF_LOG", 1.0)
    data = windows.store(chain())
    state = np.argmax(np.asarray(data.observation).reshape(-1, 4), axis=1)
    estimate = selection.fitted_q_evaluation(
        model, data, jnp.flatnonzero(state == 0), jnp.full([len(state), 3], 1 / 3),
        jax.random.key(0), discount=0.9, updates=1_000, batch_size=32, learning_rate=0.01,
    )  # fmt: skip
    returns = datasets.returns_to_go(chain(), 0.9)[state == 0]
    np.testing.assert_allclose(estimate, returns.mean(), atol=0.15)


def test_held_out_loss_is_the_training_loss_on_all_windows(model, small, dataset):
    learn = learner.Learner(model, methods.get("rosmo"), small)
    theta, target = random_params(model, 0), random_params(model, 1)
    data = windows.store(dataset)
    batch = windows.at(data, data.start, small.unroll_steps + small.td_steps + 1)
    expected, _ = learn.loss(theta, target, batch, jax.random.key(0))
    loss = selection.held_out_loss(learn, data)
    np.testing.assert_allclose(loss(theta, target), expected, rtol=1e-5)
    assert loss(theta, target) == loss(theta, target)


def test_every_checkpoint_is_scored(catch, tmp_path, monkeypatch):  # noqa: F811
    one = spec(catch, holdout=0.25, keep_checkpoints=True, seeds=[3, 4])
    frame = runs.train(one, tmp_path)
    assert (frame["holdout"] == 0.25).all()
    scored = selection.score(one, tmp_path, fqe_updates=5)
    assert scored[["seed", "update"]].to_numpy().tolist() == [[3, 20], [3, 40], [4, 20], [4, 40]]
    assert np.isfinite(scored[["holdout_loss", "fqe_return"]]).all().all()
    pd.testing.assert_frame_equal(scored, selection.score(one, tmp_path, fqe_updates=5))
    monkeypatch.setattr(selection, "_AT_ONCE", 7)  # Actions of few steps at a time are the same.
    few = selection.score(one, tmp_path, fqe_updates=5)
    np.testing.assert_allclose(few["fqe_return"], scored["fqe_return"], rtol=1e-4)
    both = frame.merge(scored, on=["seed", "update"])
    assert (both["mean_return_x"] == both["mean_return_y"]).all()


def test_a_critic_of_quantiles_is_trained_and_scored(catch, tmp_path):  # noqa: F811
    one = spec(catch, method="iqn", holdout=0.25, keep_checkpoints=True, seeds=[3], updates=20)
    runs.train(one, tmp_path)
    (scored,) = selection.score(one, tmp_path, fqe_updates=5).to_dict("records")
    assert scored["update"] == 20 and np.isfinite(scored["holdout_loss"])
    assert abs(scored["fqe_return"]) < 2.0  # Of catch's -1 to 1, by a critic of its own.


def test_nothing_held_out_is_trained_on(catch):  # noqa: F811
    one = spec(catch, fraction=0.5, holdout=0.25)
    whole = datasets.load(catch)
    train, held = runs.divide(one, whole)
    assert train.num_episodes == 15 and held.num_episodes == 5
    _, store, dataset = runs.build(one)
    assert datasets.checksum(dataset) == datasets.checksum(train)
    assert len(store.start) == 15 * 9
    assert runs.divide(spec(catch), whole)[1] is None


@pytest.mark.parametrize("changes", [{}, {"holdout": 0.2}, {"keep_checkpoints": True}])
def test_selection_needs_held_out_episodes_and_checkpoints(catch, tmp_path, changes):  # noqa: F811
    with pytest.raises(ValueError, match="holdout above 0 and keep_checkpoints"):
        selection.score(spec(catch, **changes), tmp_path, fqe_updates=5)
