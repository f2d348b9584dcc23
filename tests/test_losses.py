import dataclasses
import itertools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

import numpy_reference as reference
from conftest import NUM_ACTIONS, OBSERVATION, make_episode, random_params
from unplugged import datasets, improvement, learner, losses, methods, objectives, windows

METADATA = {"num_actions": NUM_ACTIONS, "environment": "toy"}


def imagined_actions(key, window, unroll_steps):
    """The actions that the learner unrolls with: random where none was recorded."""
    action_key, _ = jax.random.split(key)
    at_random = jax.random.randint(
        action_key, window.action[: unroll_steps + 1].shape, 0, NUM_ACTIONS
    )
    return np.where(window.real[: unroll_steps + 1], window.action[: unroll_steps + 1], at_random)


def windows_of(episodes, starts, length):
    data = windows.store(datasets.from_episodes(episodes, METADATA))
    offsets = np.cumsum([0] + [len(e["action"]) + 1 for e in episodes])
    return windows.at(data, jnp.array([offsets[e] + s for e, s in starts]), length)


@pytest.fixture
def episodes():
    rng = np.random.default_rng(1)
    return [
        make_episode(rng, 8, terminated=True),
        make_episode(rng, 4, terminated=True),
        make_episode(rng, 4, terminated=False),
    ]


# Windows inside an episode, over a true end, and over a truncation.
STARTS = [(0, 0), (0, 3), (0, 6), (0, 7), (1, 0), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_rosmo_loss_equals_numpy(model, small, episodes):
    theta, target = random_params(model, 0), random_params(model, 1)
    key = jax.random.key(5)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    learn = learner.Learner(model, methods.get("rosmo"), small)
    total, parts = jax.jit(learn.loss)(theta, target, batch, key)
    actions = imagined_actions(key, batch, small.unroll_steps)
    numpy_models = [reference.Model(p, NUM_ACTIONS, small.num_bins) for p in (theta, target)]
    expected = [
        reference.window_loss(*numpy_models, episodes[e], s, actions[:, i], small, regularize=True)
        for i, (e, s) in enumerate(STARTS)
    ]
    for name in parts:
        mean = np.mean([window[name] for window in expected])
        np.testing.assert_allclose(parts[name], mean, rtol=2e-4, err_msg=name)
        assert mean > 0.0
    np.testing.assert_allclose(
        total,
        parts["policy"] + 0.25 * parts["value"] + parts["reward"] + 0.2 * parts["behavior"],
        rtol=1e-6,
    )


def test_mzu_loss_equals_numpy_with_targets_of_a_direct_mctx_call(model, small, episodes):
    theta, target = random_params(model, 2), random_params(model, 3)
    key = jax.random.key(6)
    length = small.unroll_steps + small.td_steps + 1
    batch = windows_of(episodes, STARTS, length)
    learn = learner.Learner(model, methods.get("mzu"), small)
    total, parts = jax.jit(learn.loss)(theta, target, batch, key)

    # mctx called directly, on every step of every window, as one batch.
    flat = batch.observation.reshape(-1, *OBSERVATION)
    state = model.represent(target, flat)
    policy_logits, value_logits = model.predict(target, state)

    def recurrent(params, key, action, state):
        reward_logits, state = model.dynamics(params, state, action)
        policy_logits, value_logits = model.predict(params, state)
        step = mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full(action.shape, small.discount),
            prior_logits=policy_logits,
            value=model.support.scalar(value_logits),
        )
        return step, state

    root = mctx.RootFnOutput(
        prior_logits=policy_logits, value=model.support.scalar(value_logits), embedding=state
    )
    _, improve_key = jax.random.split(key)
    output = mctx.muzero_policy(target, improve_key, root, recurrent, small.num_simulations)
    policy = np.asarray(output.action_weights).reshape(length, -1, NUM_ACTIONS)
    value = np.asarray(output.search_tree.node_values[:, 0]).reshape(length, -1)

    actions = imagined_actions(key, batch, small.unroll_steps)
    numpy_models = [reference.Model(p, NUM_ACTIONS, small.num_bins) for p in (theta, target)]
    expected = []
    for i, (e, start) in enumerate(STARTS):

        def searched(step, i=i, start=start):
            at = step - start
            return (policy[at, i], value[at, i]) if 0 <= at < length else (None, np.nan)

        expected.append(
            reference.window_loss(
                *numpy_models,
                episodes[e],
                start,
                actions[:, i],
                small,
                regularize=False,
                operator=searched,
            )
        )
    for name in parts:
        mean = np.mean([window[name] for window in expected])
        np.testing.assert_allclose(parts[name], mean, rtol=2e-4, err_msg=name)
    assert "behavior" not in parts
    np.testing.assert_allclose(
        total, parts["policy"] + 0.25 * parts["value"] + parts["reward"], rtol=1e-6
    )


def test_bc_loss_is_the_mean_negative_log_likelihood(model, small, episodes):
    theta = random_params(model, 4)
    batch = windows_of(episodes, STARTS, 1)
    total, _ = learner.Learner(model, methods.get("bc"), small).loss(
        theta, theta, batch, jax.random.key(0)
    )
    numpy_model = reference.Model(theta, NUM_ACTIONS, small.num_bins)
    expected = [
        -np.log(
            reference.softmax(
                numpy_model.predict(numpy_model.represent(episodes[e]["observation"][s]))[0]
            )[episodes[e]["action"][s]]
        )
        for e, s in STARTS
    ]
    np.testing.assert_allclose(total, np.mean(expected), rtol=1e-4)


def test_n_step_returns_at_a_true_end_by_hand():
    # An episode of three transitions with rewards 1, 2, 4; gamma 1/2, n = 2; all values 8.
    episode = {
        "observation": np.zeros([4, 1]),
        "action": [0, 0, 0],
        "reward": [1.0, 2.0, 4.0],
        "terminated": True,
    }
    batch = windows_of([episode], [(0, 0)], 7)
    returns = losses.n_step_returns(
        batch.reward, losses.step_discounts(batch, 0.5), jnp.full([7, 1], 8.0), 2
    )
    # z0 = 1 + 2/2 + 8/4; z1 = 2 + 4/2, the end; z2 = 4; then the absorbing state.
    np.testing.assert_allclose(returns[:, 0], [4.0, 4.0, 4.0, 0.0, 0.0])
    np.testing.assert_array_equal(batch.absorbing[:, 0], [0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(batch.known[:, 0], [1] * 7)


def test_n_step_returns_at_a_truncation_by_hand():
    episode = {
        "observation": np.zeros([4, 1]),
        "action": [0, 0, 0],
        "reward": [1.0, 2.0, 4.0],
        "terminated": False,
    }
    batch = windows_of([episode], [(0, 0)], 7)
    value = jnp.array([0.0, 0.0, 0.0, 8.0, 8.0, 8.0, 8.0])[:, None]  # o_3 repeats
    returns = losses.n_step_returns(batch.reward, losses.step_discounts(batch, 0.5), value, 2)
    # z1 = 2 + 4/2 + 8/4; z2 = 4 + 8/2; at the last observation the value itself.
    np.testing.assert_allclose(returns[:4, 0], [2.0, 6.0, 8.0, 8.0])
    np.testing.assert_array_equal(batch.absorbing[:, 0], [0] * 7)
    np.testing.assert_array_equal(batch.known[:, 0], [1, 1, 1, 1, 0, 0, 0])


def test_one_step_target_equals_enumeration(model, small, dataset):
    target = random_params(model, 7)
    observation = dataset.observation[:9]
    root = improvement.root_of(model, target, model.represent(target, observation))
    improved = improvement.one_step(model, target, root, jax.random.key(0), small)
    numpy_model = reference.Model(target, NUM_ACTIONS, small.num_bins)
    for i, o in enumerate(observation):
        p, adv = reference.one_step_target(numpy_model, o, small.discount)
        np.testing.assert_allclose(improved.policy[i], p, rtol=1e-4)
        np.testing.assert_allclose(
            improved.action_values[i] - improved.value[i], adv, rtol=1e-3, atol=1e-4
        )


def test_both_advantages_of_the_dataset_action_agree(model, small, dataset):
    target = random_params(model, 8)
    root = improvement.root_of(model, target, model.represent(target, dataset.observation))
    improved = improvement.one_step(model, target, root, jax.random.key(0), small)
    action = jnp.asarray(dataset.action)
    both = [
        advantage(model, target, root, improved, losses.Recorded(action, *[None] * 3), small)
        for advantage in (losses.lookahead_advantage, losses.dynamics_advantage)
    ]
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5)
    assert (np.asarray(both[0]) > 0).any() and (np.asarray(both[0]) < 0).any()


def test_search_equals_a_direct_mctx_call_without_noise(model, small, dataset):
    params = random_params(model, 9)
    root = improvement.root_of(model, params, model.represent(params, dataset.observation))
    key = jax.random.key(3)
    ours = improvement.search(model, params, root, key, small, noise=False)

    def recurrent(params, key, action, state):
        reward_logits, state = model.dynamics(params, state, action)
        policy_logits, value_logits = model.predict(params, state)
        value = model.support.scalar(value_logits)
        return mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full_like(value, small.discount),
            prior_logits=policy_logits,
            value=value,
        ), state

    direct = mctx.muzero_policy(
        params, key, root, recurrent, small.num_simulations, dirichlet_fraction=0.0
    )
    np.testing.assert_array_equal(ours.action, direct.action)
    np.testing.assert_array_equal(ours.action_weights, direct.action_weights)
    np.testing.assert_array_equal(ours.search_tree.node_values, direct.search_tree.node_values)
    deeper = dataclasses.replace(small, num_simulations=8, search_depth=1)
    shallow = improvement.search(model, params, root, key, deeper, noise=False)
    # With depth 1 no node below the root's children is ever made.
    assert set(np.unique(shallow.search_tree.parents)) <= {-1, 0}


@pytest.mark.parametrize("ties", ["step", "node"])
@pytest.mark.parametrize("rescale", ["siblings", "tree", None])
def test_search_equals_a_plain_one(model, small, dataset, ties, rescale):
    params, observation = random_params(model, 9), dataset.observation[:12]
    root = improvement.root_of(model, params, model.represent(params, observation))
    chosen = small.override({"num_simulations": 9, "ties": ties, "rescale_values": bool(rescale)})
    how = {"stretch": improvement.over_tree} if rescale == "tree" else {}
    found = improvement.search(model, params, root, jax.random.key(3), chosen, noise=False, **how)
    plain = reference.Model(params, NUM_ACTIONS, small.num_bins)
    for i, one in enumerate(observation):
        visits, value = reference.search(plain, one, small.discount, 9, rescale=rescale)
        np.testing.assert_allclose(found.action_weights[i], visits / 9, atol=1e-6)
        np.testing.assert_allclose(found.search_tree.node_values[i, 0], value, rtol=1e-3)


def test_ties_of_nodes_are_broken_at_random_and_its_noise_is_mixed_in(model, small, dataset):
    """Heads at zero: every action alike, so that noise alone decides."""
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    states = model.represent(params, jnp.repeat(dataset.observation[:1], 300, axis=0))
    root = improvement.root_of(model, params, states)
    chosen = small.override({"num_simulations": 1, "ties": "node"})

    def first(key, noise):
        found = improvement.search(model, params, root, jax.random.key(key), chosen, noise=noise)
        assert set(np.unique(found.action_weights)) == {0.0, 1.0}
        return np.argmax(found.action_weights, axis=-1)

    counts = np.bincount(first(0, False), minlength=NUM_ACTIONS)
    assert counts.min() > 70  # 100 each, standard deviation 8
    assert (first(0, False) != first(0, True)).any() and (first(0, False) != first(1, False)).any()


def test_recorded_advantage_by_hand(model, small):
    root = improvement.root_of(model, random_params(model, 0), jnp.ones([3, 5]))
    root = root.replace(value=jnp.array([1.0, 1.0, 2.0]))
    recorded = losses.Recorded(
        jnp.array([0, 1, 2]),
        reward=jnp.array([0.5, 3.0, 0.0]),
        discount=jnp.array([0.9, 0.0, 0.9]),  # the second ends the episode
        next_value=jnp.array([2.0, 100.0, 1.0]),
    )
    found = losses.recorded_advantage(None, None, root, None, recorded, None)
    np.testing.assert_allclose(found, [0.5 + 1.8 - 1.0, 2.0, 0.9 - 2.0], rtol=1e-6)


def test_gradient_is_scaled_at_each_dynamics_step(model, small):
    params = random_params(model, 10)
    state = jnp.ones([1, 5])
    actions = jnp.zeros([2, 1], jnp.int32)

    def last(state, scale):
        return losses.unroll(model, params, state, actions, scale)[0][-1].sum()

    full, half = (jax.grad(last)(state, scale) for scale in (1.0, 0.5))
    assert np.abs(full).max() > 0
    np.testing.assert_allclose(half, full * 0.25, rtol=1e-5)


@pytest.mark.parametrize("method", ["rosmo", "mzu", "supervised", "crr", "cql", "bc"])
def test_gradient_equals_finite_differences(model, small, episodes, method):
    """With no gradient scaled, the whole loss along one direction; targets do not depend on it."""
    learn = learner.Learner(
        model, methods.get(method), dataclasses.replace(small, gradient_scale=1.0)
    )
    params, target = random_params(model, 20), random_params(model, 21)
    direction = jax.tree.map(lambda x: 0.1 * x, random_params(model, 22))
    batch = windows_of(episodes, STARTS, sum(learn.method.window(small)) + 1)

    @jax.jit
    def along(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return learn.loss(moved, target, batch, jax.random.key(0))[0]

    numeric = (along(1e-2) - along(-1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(along)(0.0), numeric, rtol=2e-2, atol=2e-3)


def test_the_settings_gradient_scale_reaches_the_representation(model, small, episodes):
    params, target = random_params(model, 20), random_params(model, 21)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    gradients = []
    for scale in (0.0, 0.5, 1.0):
        settings = dataclasses.replace(small, gradient_scale=scale)
        learn = learner.Learner(model, methods.get("rosmo"), settings)
        found = jax.jit(jax.grad(learn.loss, has_aux=True))(
            params, target, batch, jax.random.key(0)
        )[0]
        gradients.append(found["representation"]["representation_0"]["w"])
    for one, other in itertools.pairwise(gradients):
        assert np.abs(one - other).max() > 1e-4


@pytest.mark.parametrize("method", ["rosmo", "mzu", "reanalyse"])
def test_targets_made_beforehand_give_the_same_loss(model, small, episodes, method):
    learn = learner.Learner(model, methods.get(method), small)
    params, target = random_params(model, 20), random_params(model, 21)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    key = jax.random.key(3)
    roots = improvement.root_of(model, target, model.represent(target, batch.observation))
    improved = objectives.improve(
        target, roots, jax.random.split(key)[1], model, learn.method, small
    )
    loss = jax.jit(learn.loss)
    own, _ = loss(params, target, batch, key)
    given, _ = loss(params, target, batch._replace(improved=improved), key)
    np.testing.assert_allclose(given, own, rtol=1e-6)
