import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import NUM_ACTIONS, OBSERVATION, random_params
from unplugged import (
    acting,
    evaluation,
    improvement,
    learner,
    losses,
    methods,
    networks,
    settings,
    windows,
)
from unplugged.model import critic
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of

pytestmark = pytest.mark.slow


def make(model, small, method="rosmo"):
    of_table = methods.get(method)
    if of_table.critic != "categorical":
        model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), of_table.critic)
    return learner.Learner(model, of_table, small)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a._replace(key=0), b._replace(key=0))


# One of each objective and kind of operator.
@pytest.mark.parametrize(
    "method", ["bc", "cql", "crr", "bcq", "iqn", "behavior", "rosmo_sampled", "mzu", "gumbel"]
)
def test_many_updates_in_one_call_equal_one_by_one(model, small, dataset, method):
    learn = make(model, small, method)
    data = windows.store(dataset)
    state, losses = learn.run(learn.init(0), data, 6)
    step = learn.init(0)
    for i in range(3):
        step, part = learn.run(step, data, 2)
        np.testing.assert_array_equal(part["loss"], losses["loss"][2 * i : 2 * i + 2])
    same(state, step)
    assert state.updates == 6


@pytest.mark.parametrize("method", ["mzu", "rosmo"])
def test_two_seeds_vmapped_equal_two_seeds_looped(model, small, dataset, method):
    learn = make(model, small, method)
    data = windows.store(dataset)
    looped = [learn.run(learn.init(seed), data, 5) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), learn.init(0), learn.init(1))
    states, losses = learn.run_seeds(stacked, data, 5)
    for i, (state, alone) in enumerate(looped):
        np.testing.assert_allclose(losses["loss"][i], alone["loss"], rtol=1e-5)
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-3, atol=1e-5),
            states.params,
            state.params,
        )
    assert not np.allclose(losses["loss"][0], losses["loss"][1])


def test_cloning_comes_first_and_is_supervised_then(model, small, dataset):
    small = dataclasses.replace(small, cloning_updates=2)
    data, plain = windows.store(dataset), dataclasses.replace(small, cloning_updates=0)
    learn, cloned = make(model, small), make(model, plain, "supervised")
    _, found = learn.run(learn.init(0), data, 4)
    first, wanted = cloned.run(cloned.init(0), data, 2)
    np.testing.assert_allclose(found["loss"][:2], wanted["loss"], rtol=1e-5)
    np.testing.assert_array_equal(found["behavior"][:2], 0.0)
    then = make(model, plain)
    _, wanted = then.run(first, data, 2)
    np.testing.assert_allclose(found["loss"][2:], wanted["loss"], rtol=1e-5)


def test_diagnosis_of_a_uniform_and_of_a_constant_policy(model, small, dataset):
    learn = make(model, small)
    state, data = learn.init(0), windows.store(dataset)
    found = learn.diagnose(state, data)  # Heads are at 0.
    np.testing.assert_allclose(found.policy_entropy, np.log(3), rtol=1e-5)
    np.testing.assert_allclose(found.target_entropy, np.log(3), rtol=1e-5)
    params = jax.tree.map(jnp.copy, state.params)
    params["prediction"]["policy"]["b"] = jnp.array([0.0, 100.0, 0.0])
    found = learn.diagnose(state._replace(params=params), data)
    np.testing.assert_allclose(found.policy_entropy, 0.0, atol=1e-6)
    assert found.policy_commonest == 1.0 and found.target_entropy > 1.0


def test_a_greedy_policy_takes_the_most_probable_action(model, small, dataset):
    params, observation = random_params(model, 3), 3.0 * dataset.observation
    params["prediction"]["policy"]["b"][:] = 0.0
    act = evaluation.make_policy(model, "policy", small, greedy=True)
    logits = model.predict(params, model.represent(params, observation))[0]
    found = act(params, observation, jax.random.key(0))
    np.testing.assert_array_equal(found, np.argmax(logits, axis=-1))
    assert len(np.unique(found)) > 1


def test_target_network_is_refreshed_at_its_interval(model, small, dataset):
    learn = make(model, small)  # target_interval is 3
    data = windows.store(dataset)
    state = learn.init(0)
    for update in range(1, 8):
        before = jax.tree.map(np.asarray, state.target_params)
        state, _ = learn.run(state, data, 1)
        expected = state.params if update % 3 == 0 else before
        jax.tree.map(np.testing.assert_array_equal, state.target_params, expected)


def test_update_equals_adamw_by_hand(model, small, dataset):
    """One update: clipped gradient, bias-corrected moments, decay on weights only."""
    small = dataclasses.replace(small, weight_decay=0.1, max_grad_norm=0.5, warmup_updates=1)
    learn = make(model, small)
    data = windows.store(dataset)
    state = learn.init(0)._replace(params=random_params(model, 0))
    state, _ = learn.run(state, data, 1)  # The rate is 0 at the first update.
    before = jax.tree.map(np.asarray, state._replace(key=0))
    key = jax.random.fold_in(state.key, state.updates)
    sample_key, loss_key = jax.random.split(key)
    length = small.unroll_steps + small.td_steps + 1
    batch = windows.sample(data, sample_key, small.batch_size, length)
    gradient = jax.jit(jax.grad(learn.loss, has_aux=True))(
        state.params, state.target_params, batch, loss_key
    )[0]
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient)))
    assert norm > 0.5
    moments = before.opt_state[1][0]
    rate = small.learning_rate  # Warm-up is over, decay has not begun.

    def expected(path, p, g, m, v):
        g = g * 0.5 / norm
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**2)) / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
        decay = 0.1 * p if path[-1].key == "w" else 0.0
        return p - rate * (step + decay)

    wanted = jax.tree_util.tree_map_with_path(
        expected, before.params, gradient, moments.mu, moments.nu
    )
    state, _ = learn.run(state, data, 1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), state.params, wanted
    )


@pytest.mark.parametrize(
    "staircase, late", [(False, [7e-4 * 0.1**0.5, 7e-5, 7e-5]), (True, [7e-4, 7e-4, 7e-5])]
)
def test_learning_rate_warms_up_and_decays(staircase, late):
    """Of a constant gradient Adam's step is the rate itself."""
    optimizer = learner.optimizer(settings.BSUITE.override({"decay_staircase": staircase}))
    params = {"layer": {"b": jnp.zeros([])}}
    gradient = {"layer": {"b": jnp.ones([])}}

    def update(state, _):
        change, state = optimizer.update(gradient, state, params)
        return state, -change["layer"]["b"]

    _, rates = jax.lax.scan(update, optimizer.init(params), length=101_001)
    np.testing.assert_allclose(
        rates[jnp.array([0, 500, 1_000, 51_000, 100_999, 101_000])],
        [0.0, 3.5e-4, 7e-4, *late],
        rtol=1e-3,
    )


def test_model_sizes_are_those_of_table_4():
    preset = settings.BSUITE
    model = networks.mlp(
        observation_shape=(1, 6), actions=Discrete(3), num_bins=preset.num_bins,
        representation=preset.representation, dynamics=preset.dynamics,
        prediction=preset.prediction,
    )  # fmt: skip
    params = model.init(jax.random.key(0))
    count = {part: sum(x.size for x in jax.tree.leaves(params[part])) for part in params}
    assert count == {
        "representation": (6 + 1) * 64 + 65 * 64 + 65 * 32,
        "dynamics": (35 + 1) * 32 + 33 * 256 + 257 * 32 + 33 * 32 + 33 * 20,
        "prediction": 33 * 32 + 33 * 3 + 33 * 20,
    }


def test_network_starts_with_a_uniform_policy_and_scalars_zero(model):
    params = model.init(jax.random.key(0))
    state = model.represent(params, np.random.default_rng(0).normal(size=(4, 2, 2)))
    reward_logits, next_state = model.dynamics(params, state, jnp.zeros(4, jnp.int32))
    policy_logits, value_logits = model.predict(params, next_state)
    for logits in (reward_logits, policy_logits, value_logits):
        np.testing.assert_array_equal(logits, 0.0)
    assert np.abs(next_state).max() > 0


def test_dynamics_of_all_actions_equals_one_by_one(model):
    params = random_params(model, 0)
    state = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    reward, following = model.dynamics(params, state[:, None], jnp.arange(3)[None])
    for a in range(3):
        alone = model.dynamics(params, state, jnp.full(4, a))
        np.testing.assert_allclose(reward[:, a], alone[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(following[:, a], alone[1], rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_are_refused(small):
    with pytest.raises(ValueError, match="same state size"):
        networks.mlp(
            observation_shape=(2,), actions=Discrete(2), num_bins=6,
            representation=(8, 5), dynamics=(6,), prediction=(4,),
        )  # fmt: skip


def test_selectors(model, small):
    """Each way of acting, on a state where the right distribution is known."""
    params = random_params(model, 3)
    observation = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 2)), jnp.float32)
    root = improvement.root_of(model, params, model.represent(params, observation))
    key = jax.random.key(1)
    better = improvement.one_step(model, params, root, key, small)
    visits = improvement.search(model, params, root, key, small, noise=False)
    halving = improvement.gumbel_search(model, params, root, key, small, noise=False)
    q = losses.critic_values(model, params, model.represent(params, observation))
    mpo = improvement.mcts_q(model, params, root, key, small, noise=False)
    policy = jax.nn.softmax(root.prior_logits)
    one = dataclasses.replace(small, bcq_threshold=float(np.median(policy) / policy.max()) + 1e-3)
    assert q.argmax() != policy.argmax()  # Now BCQ may take the likeliest action alone.
    expected = {
        "policy": jax.nn.softmax(root.prior_logits),
        "greedy": np.eye(3)[np.argmax(root.prior_logits, axis=-1)],
        "value": np.eye(3)[np.argmax(better.action_values, axis=-1)],
        "critic": np.eye(3)[np.argmax(q, axis=-1)],
        "constrained": np.eye(3)[np.argmax(policy, axis=-1)],
        "improved": better.policy,
        "search": visits.action_weights,
        "search_q": mpo.policy,
        "gumbel": np.eye(3)[np.asarray(halving.action)],
    }
    assert set(expected) == set(acting.SELECTORS) - {"implicit"}
    for name in expected:
        got = acting.SELECTORS[name](model, params, observation, key, one)
        np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    all_may = dataclasses.replace(small, bcq_threshold=0.0)
    got = acting.constrained(model, params, observation, key, all_may)
    np.testing.assert_array_equal(got, expected["critic"])
    implicit = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), "implicit")
    params = random_params(implicit, 3)
    features = losses.critic_logits(implicit, params, implicit.represent(params, observation))
    best = np.argmax(critic.implicit_values(params, features, key), axis=-1)
    got = acting.implicit(implicit, params, observation, key, small)
    np.testing.assert_array_equal(got, np.eye(3)[best])


def test_actions_are_drawn_from_the_selector(model, small):
    params = random_params(model, 3)
    observation = np.random.default_rng(1).normal(size=(1, 2, 2)).astype(np.float32)
    observation = np.repeat(observation, 3_000, axis=0)
    act = evaluation.make_policy(model, "policy", small)
    share = np.bincount(act(params, observation, jax.random.key(0)), minlength=3) / 3_000
    wanted = acting.policy(model, params, observation[:1], jax.random.key(0), small)[0]
    np.testing.assert_allclose(share, wanted, atol=0.03)
    act = evaluation.make_policy(model, "value", small)
    assert len(set(np.asarray(act(params, observation, jax.random.key(0))))) == 1
