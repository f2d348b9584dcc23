"""Actions that are not allowed are never aimed at, valued or taken."""

import dataclasses
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import random_params
from test_logged import ROLES, SMALL, table
from unplugged import (
    acting,
    datasets,
    environments,
    improvement,
    learner,
    logs,
    losses,
    methods,
    networks,
    policy,
    runs,
    windows,
)
from unplugged.model import transforms
from unplugged.model.actions import Discrete
from unplugged.runs import decisions, ope

ALLOWED = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]], np.float32)


def masked_spec(method="rosmo", **more):
    return runs.Spec(
        dataset="x", benchmark="logged", environment="x", holdout=0.5, method=method,
        overrides={**SMALL, "num_simulations": 8, **more},
    )  # fmt: skip


def states(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(np.concatenate([rng.normal(size=(4, 5)), ALLOWED], axis=1), jnp.float32)


def test_all_allowed_is_as_without_masks():
    """The same parameters, and the same improved policies."""
    one = masked_spec()
    plain = one.learner((5,), Discrete(3)).model
    model = one.learner((5,), Discrete(3, masked=True)).model
    params = random_params(plain, 0)
    assert jax.tree.structure(params) == jax.tree.structure(model.init(jax.random.key(0)))
    free = states().at[:, 5:].set(1.0)
    for operator in (improvement.one_step, improvement.mcts):
        found = []
        for of, observation in ((plain, free[:, :5]), (model, free)):
            root = improvement.root_of(of, params, of.represent(params, observation))
            found.append(operator(of, params, root, jax.random.key(1), one.settings))
        np.testing.assert_allclose(found[0].policy, found[1].policy, rtol=1e-6)
        np.testing.assert_allclose(found[0].value, found[1].value, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["step", "node"])
def test_no_selector_takes_what_is_not_allowed(ties):
    for method, selectors in [
        ("mzu", [name for name in acting.SELECTORS if name not in ("implicit", "constrained")]),
        ("iqn", ["implicit"]), ("bcq", ["constrained"]),
    ]:  # fmt: skip
        one = masked_spec(method, ties=ties)
        learn = one.learner((5,), Discrete(3, masked=True))
        params = random_params(learn.model, 3)
        for selector in selectors:
            found = acting.SELECTORS[selector](
                learn.model, params, states(), jax.random.key(0), one.settings
            )
            assert (np.asarray(found)[ALLOWED == 0] == 0.0).all(), selector
            np.testing.assert_allclose(np.sum(found, axis=1), 1.0, rtol=1e-5)
        q = decisions.expected(learn)(params, states()).action_values
        assert (np.isneginf(q) == (ALLOWED == 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["step", "node"])
def test_targets_of_a_noisy_search_keep_to_it(ties):
    one = masked_spec("mzu", ties=ties)
    model = one.learner((5,), Discrete(3, masked=True)).model
    params = random_params(model, 0)
    for operator in (improvement.mcts, improvement.gumbel, improvement.one_step_sampled):
        root = improvement.root_of(model, params, model.represent(params, states()))
        found = operator(model, params, root, jax.random.key(1), one.settings)
        assert (np.asarray(found.policy)[ALLOWED == 0] == 0.0).all(), operator


def masked_table():
    """As `table`; on ward a the drug was forbidden where it was not taken."""
    rows = table()
    high = (rows["ward"] == "b") | (rows["drug"] == "high")
    return rows.assign(may_high=high, may_none=True)


def raised(model, by=9.0):
    """The model, with a higher reward or return of what is not allowed."""

    def dynamics(params, state, action):
        logits, following = model.dynamics(params, state, action)
        allowed = state[..., -model.num_actions :]
        forbidden = 1.0 - jnp.sum(jax.nn.one_hot(action, model.num_actions) * allowed, axis=-1)
        return logits + by * forbidden[..., None] * jnp.linspace(0, 1, logits.shape[-1]), following

    return dataclasses.replace(model, dynamics=dynamics)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["rosmo", "mzu", "cql", "crr", "bcq", "iqn", "cql_qr", "rem", "bc"]
)
def test_losses_are_finite_and_no_gradient_comes_from_masks(tmp_path, method):
    masks = {"none": "may_none", "high": "may_high"}
    dataset = logs.from_table(masked_table(), **ROLES, allowed=masks)
    one = masked_spec(method)
    learn = one.learner(dataset.observation_shape, dataset.actions, datasets.moments(dataset))
    store = windows.store(dataset)
    assert store.observation.shape[1] == 5
    params = random_params(learn.model, 1)
    batch = windows.at(store, store.start[:40], sum(learn.method.window(one.settings)) + 1)

    @jax.jit  # One program, so that what is forbidden could make the only difference.
    def found(by):
        other = dataclasses.replace(learn, model=raised(learn.model, by))
        return jax.value_and_grad(other.loss, has_aux=True)(
            params, params, batch, jax.random.key(0)
        )

    (loss, _), gradient = found(0.0)
    assert abs(float(loss)) < 1e6  # `MASKED` would show.
    assert all(np.isfinite(x).all() and np.abs(x).max() < 1e6 for x in jax.tree.leaves(gradient))
    # Maxima, sums and weights over actions are over what is allowed.
    assert found(9.0)[0][0] == loss


def test_cql_pays_for_what_is_allowed_alone():
    one = masked_spec("cql", td_steps=1)
    learn = one.learner((5,), Discrete(3, masked=True))
    params, model = random_params(learn.model, 1), learn.model
    action = np.array([1, 2, 2, 0])
    batch = windows.Windows(
        observation=jnp.stack([states(), states(1)]), action=jnp.stack([action, action]),
        reward=jnp.zeros([2, 4]), discount=jnp.ones([2, 4]), real=jnp.ones([2, 4], bool),
        known=jnp.ones([2, 4], bool),
    )  # fmt: skip
    _, parts = jax.jit(learn.loss)(params, params, batch, jax.random.key(0))
    state = model.represent(params, states())
    q = np.asarray(model.support.scalar(losses.critic_logits(model, params, state)))
    gaps = [
        np.log(np.exp(row[mask == 1]).sum()) - row[a] for row, mask, a in zip(q, ALLOWED, action)
    ]
    np.testing.assert_allclose(parts["conservative"], np.mean(gaps), rtol=1e-5)


def test_fitted_values_are_of_what_is_allowed_alone():
    """A policy that is allowed, and a critic that values highly what is not."""
    model = masked_spec().model((5,), Discrete(3, masked=True))
    params, policy = random_params(model, 1), ALLOWED / ALLOWED.sum(axis=1, keepdims=True)
    bins = transforms.Atoms(model.support.num_bins, 2.0 / (model.support.num_bins - 1))  # -1 to 1
    even = dataclasses.replace(model, support=bins)
    q = 3.0 * np.asarray(losses.critic_values(even, params, model.represent(params, states())))
    data = types.SimpleNamespace(observe=lambda index: states()[index])
    critic = ope.Fitted(params, jnp.float32(3.0))
    found = ope.state_values(raised(model), critic, data, jnp.asarray(policy), jnp.arange(4))
    wanted = [(p[p > 0] * row[p > 0]).sum() for p, row in zip(policy, q)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.slow
def test_a_run_and_its_policy_keep_to_the_masks(tmp_path):
    pytest.importorskip("flatbuffers")
    masks = {"none": "may_none", "high": "may_high"}
    rows = masked_table()
    datasets.save(logs.from_table(rows, **ROLES, allowed=masks), tmp_path / "clinic.npz")
    one = runs.Spec(
        dataset=str(tmp_path / "clinic.npz"), benchmark="logged", environment="clinic",
        holdout=0.25, overrides=SMALL, updates=2, eval_every=2,
    )  # fmt: skip
    assert one.form() == ((3,), Discrete(2, masked=True))
    frame = runs.train(one, tmp_path / "run")
    assert np.isfinite(frame["holdout_loss"]).all()
    assert runs.programs(one)["training"]
    agent = policy.load(policy.save(tmp_path / "run", tmp_path / "agent"))
    decided = agent.act(rows)
    forbidden = ~rows["may_high"].to_numpy()
    assert forbidden.any() and (decided.action[forbidden] == "none").all()
    assert np.isneginf(decided.action_values[forbidden, 0]).all()
    with pytest.raises(ValueError, match="row 0 allows no action"):
        agent.act(rows.assign(may_high=False, may_none=False))
    assert agent.act([0.0, 1.0, 0.0, 0.0, 1.0]).action == "none"
    with pytest.raises(policy.PolicyError, match="observation 0 allows no action: its last 2"):
        agent.act([0.0, 1.0, 0.0, 0.0, 0.0])


@pytest.mark.slow
def test_environments_that_tell_what_is_allowed(tmp_path):
    """Taxi's info has a mask; recorded beside the steps, it is kept to in evaluations."""
    world = gymnasium.make("Taxi-v4", max_episode_steps=20)
    rng, episodes = np.random.default_rng(0), []
    for seed in range(3):
        state, info = world.reset(seed=seed)
        one = {"observation": [np.eye(500)[state]], "allowed": [info["action_mask"]],
               "action": [], "reward": [], "probability": [], "terminated": False}  # fmt: skip
        for _ in range(20):
            mask = info["action_mask"]
            action = int(rng.choice(6, p=mask / mask.sum()))
            state, reward, _, _, info = world.step(action)
            one["observation"].append(np.eye(500)[state])
            one["allowed"].append(info["action_mask"])
            one["action"].append(action)
            one["reward"].append(reward)
            one["probability"].append(1 / mask.sum())
        episodes.append(one)
    facts = {"environment": "Taxi-v4", "num_actions": 6}
    dataset = datasets.from_episodes(episodes, facts)
    assert dataset.allowed.shape == (63, 6) and dataset.probability.shape == (63,)
    datasets.save(dataset, tmp_path / "taxi.npz")
    one = runs.Spec(
        dataset=str(tmp_path / "taxi.npz"), benchmark="gymnasium_masked", environment="Taxi-v4",
        method="bc", overrides=SMALL, updates=1, eval_every=1, eval_episodes=1,
    )  # fmt: skip
    assert one.form() == ((500,), Discrete(6, masked=True))
    assert np.isfinite(runs.train(one, tmp_path / "run")["mean_return"]).all()
    with pytest.raises(datasets.DatasetError, match="6 discrete actions with masks, the env"):
        runs.build(dataclasses.replace(one, benchmark="gymnasium"))
    with pytest.raises(ValueError, match=r"no info\['action_mask'\] but"):
        environments.make("gymnasium_masked", "CartPole-v1", seed=0).reset()
    with pytest.raises(ValueError, match="vectors and Discrete actions"):
        environments.make("gymnasium_masked", "Pendulum-v1", seed=0)
    for changes, message in [
        ({"allowed": [1]}, "20 actions, and allowed is not of L . 1 steps"),
        ({"allowed": None}, "some episodes have allowed and some have not"),
        ({"probability": np.zeros(20)}, "probability is 0.0 at step 42"),
    ]:
        with pytest.raises(datasets.DatasetError, match=message):
            datasets.from_episodes([*episodes[:2], {**episodes[2], **changes}], facts)


def test_masks_are_for_vectors():
    one = masked_spec()
    with pytest.raises(ValueError, match=r"vectors and the network mlp, not for \[2, 2\] and mlp"):
        one.learner((2, 2), Discrete(3, masked=True))
    dataset = logs.from_table(
        masked_table(), **ROLES, allowed={"none": "may_none", "high": "may_high"}
    )
    images = dataclasses.replace(dataset, observation=dataset.observation[:, None])
    with pytest.raises(datasets.DatasetError, match="masks are for observations that are vectors"):
        windows.store(images)
    assert networks.MASKED < -1e8 and methods.get("rosmo") and learner.Learner
