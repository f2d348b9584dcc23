"""Each objective and operator on small cases, against plain NumPy or mctx called directly."""

import dataclasses

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

import numpy_reference as reference
from conftest import NUM_ACTIONS, OBSERVATION, random_params
from test_losses import STARTS, episodes, imagined_actions, windows_of  # noqa: F401
from unplugged import improvement, learner, losses, methods, objectives
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of

pytestmark = pytest.mark.slow


def numpy_models(small, *params):
    return [reference.Model(p, NUM_ACTIONS, small.num_bins) for p in params]


def critic(numpy_model, observation):
    """Logits over bins and values of every action, one at a time."""
    state = numpy_model.represent(observation)
    logits = [numpy_model.dynamics(state, a)[0] for a in range(NUM_ACTIONS)]
    return logits, np.array([numpy_model.scalar(x) for x in logits])


def log_softmax(x):
    return np.log(reference.softmax(x))


def critic_case(model, small, episodes, method):  # noqa: F811
    theta, target = random_params(model, 7), random_params(model, 8)
    batch = windows_of(episodes, STARTS, small.td_steps + 1)
    learn = learner.Learner(model, methods.get(method), small)
    assert learn.method.window(small) == (0, small.td_steps)
    total, parts = jax.jit(learn.loss)(theta, target, batch, jax.random.key(0))
    ours, theirs = numpy_models(small, theta, target)
    return total, parts, ours, theirs


def test_cql_equals_numpy(model, small, episodes):  # noqa: F811
    small = dataclasses.replace(small, conservative_weight=0.7)
    total, parts, ours, theirs = critic_case(model, small, episodes, "cql")
    value, penalty = [], []
    for e, start in STARTS:
        episode = episodes[e]
        best = [critic(theirs, o)[1].max() for o in episode["observation"]]
        z = reference.n_step(
            episode["reward"], best, start, len(episode["action"]), episode["terminated"],
            small.discount, small.td_steps,
        )  # fmt: skip
        logits, q = critic(ours, episode["observation"][start])
        action = episode["action"][start]
        value.append(-reference.phi(z, ours.bins) @ log_softmax(logits[action]))
        penalty.append(np.log(np.sum(np.exp(q))) - q[action])
    np.testing.assert_allclose(parts["value"], np.mean(value), rtol=2e-4)
    np.testing.assert_allclose(parts["conservative"], np.mean(penalty), rtol=2e-4)
    np.testing.assert_allclose(total, np.mean(value) + 0.7 * np.mean(penalty), rtol=2e-4)
    assert np.mean(penalty) > 0.0


@pytest.mark.parametrize(
    "method, weighting",
    [("crr", "exponential"), ("crr_binary", "binary"), ("supervised_q", "always")],
)
def test_crr_equals_numpy(model, small, episodes, method, weighting):  # noqa: F811
    total, parts, ours, theirs = critic_case(model, small, episodes, method)
    value, policy, weights = [], [], []
    for e, start in STARTS:
        episode = episodes[e]
        v = []
        for o in episode["observation"]:
            pi = reference.softmax(theirs.predict(theirs.represent(o))[0])
            v.append(pi @ critic(theirs, o)[1])
        z = reference.n_step(
            episode["reward"], v, start, len(episode["action"]), episode["terminated"],
            small.discount, small.td_steps,
        )  # fmt: skip
        observation, action = episode["observation"][start], episode["action"][start]
        advantage = critic(theirs, observation)[1][action] - v[start]
        weights.append(reference.WEIGHTS[weighting](advantage))
        policy_logits, _ = ours.predict(ours.represent(observation))
        policy.append(-weights[-1] * log_softmax(policy_logits)[action])
        logits, _ = critic(ours, observation)
        value.append(-reference.phi(z, ours.bins) @ log_softmax(logits[action]))
    assert (len(set(np.round(weights, 6))) > 1) == (method != "supervised_q")
    np.testing.assert_allclose(parts["policy"], np.mean(policy), rtol=2e-4)
    np.testing.assert_allclose(parts["value"], np.mean(value), rtol=2e-4)
    np.testing.assert_allclose(total, np.mean(policy) + 0.25 * np.mean(value), rtol=2e-4)


def learned(numpy_model, observation):
    """Outputs of the critic for every action, and the policy's probabilities."""
    state = numpy_model.represent(observation)
    outputs = np.array([numpy_model.dynamics(state, a)[0] for a in range(NUM_ACTIONS)])
    return outputs, reference.softmax(numpy_model.predict(state)[0])


@pytest.mark.parametrize("method", ["dqn", "rem", "bcq"])
def test_q_learning_equals_numpy(small, episodes, method):  # noqa: F811
    small = dataclasses.replace(small, policy_weight=0.7)
    model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), methods.get(method).critic)
    total, parts, ours, theirs = critic_case(model, small, episodes, method)
    mixture = np.ones(1)
    if method == "rem":
        drawn = np.asarray(jax.random.uniform(jax.random.key(0), [4]), np.float64)
        mixture = drawn / drawn.sum()
    value, policy, logits, other = [], [], [], set()
    for e, start in STARTS:
        episode, v = episodes[e], []
        for o in episode["observation"]:
            outputs, pi = learned(ours, o)
            target_q = learned(theirs, o)[0] @ mixture
            judged = target_q if method == "rem" else outputs @ mixture
            if method == "bcq":
                allowed = pi / pi.max() > 0.3
                other |= {"imitation"} if not allowed[judged.argmax()] else set()
                judged = np.where(allowed, judged, -np.inf)
            other |= {"choice"} if judged.argmax() != target_q.argmax() else set()
            v.append(target_q[judged.argmax()])
        z = reference.n_step(
            episode["reward"], v, start, len(episode["action"]), episode["terminated"],
            small.discount, small.td_steps,
        )  # fmt: skip
        observation, action = episode["observation"][start], episode["action"][start]
        outputs, pi = learned(ours, observation)
        value.append(reference.huber(z - outputs[action] @ mixture))
        policy.append(-np.log(pi[action]))
        logits.append(np.mean(ours.predict(ours.represent(observation))[0] ** 2))
    # Cases in which the current network, or imitation, chooses another action.
    assert other == {"dqn": {"choice"}, "rem": set(), "bcq": {"choice", "imitation"}}[method]
    np.testing.assert_allclose(parts["value"], np.mean(value), rtol=2e-4)
    if method == "bcq":
        np.testing.assert_allclose(parts["policy"], np.mean(policy), rtol=2e-4)
        expected = np.mean(value) + 0.7 * np.mean(policy) + 0.01 * np.mean(logits)
        np.testing.assert_allclose(total, expected, rtol=2e-4)
    else:
        assert set(parts) == {"value"} and total == parts["value"]


@pytest.mark.parametrize("method", ["qrdqn", "iqn", "cql_qr"])
def test_quantile_regression_equals_numpy(small, episodes, method):  # noqa: F811
    small = dataclasses.replace(small, conservative_weight=0.7)
    model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), methods.get(method).critic)
    total, parts, ours, theirs = critic_case(model, small, episodes, method)
    tau = target_tau = np.tile([0.1, 0.3, 0.5, 0.7, 0.9], [len(STARTS), 1])
    if method == "iqn":
        choice_key, tau_key = jax.random.split(jax.random.key(0))
        tau, target_tau = np.asarray(jax.random.uniform(tau_key, [2, len(STARTS), 3]))
        choice_tau = np.asarray(jax.random.uniform(choice_key, [len(STARTS), 1, 32]))[:, 0]

    def quantiles(numpy_model, outputs, tau):
        if method != "iqn":
            return outputs
        return [reference.implicit_quantile(numpy_model.p["quantiles"], outputs, t) for t in tau]

    value, penalty = [], []
    for i, (e, start) in enumerate(STARTS):
        episode = episodes[e]
        length = len(episode["action"])
        end = min(start + small.td_steps, length)
        outputs, _ = learned(theirs, episode["observation"][end])
        by_choice = [
            np.mean(quantiles(theirs, one, choice_tau[i] if method == "iqn" else None))
            for one in outputs
        ]
        target = [
            reference.n_step(
                episode["reward"], {end: z}, start, length, episode["terminated"],
                small.discount, small.td_steps,
            )
            for z in quantiles(theirs, outputs[np.argmax(by_choice)], target_tau[i])
        ]  # fmt: skip
        outputs, _ = learned(ours, episode["observation"][start])
        action = episode["action"][start]
        predicted = quantiles(ours, outputs[action], tau[i])
        value.append(reference.quantile_loss(predicted, tau[i], target))
        q = outputs.mean(axis=1)
        penalty.append(np.log(np.sum(np.exp(q))) - q[action])
    np.testing.assert_allclose(parts["value"], np.mean(value), rtol=2e-4)
    if method == "cql_qr":
        np.testing.assert_allclose(parts["conservative"], np.mean(penalty), rtol=2e-4)
        np.testing.assert_allclose(total, np.mean(value) + 0.7 * np.mean(penalty), rtol=2e-4)
    else:
        assert set(parts) == {"value"} and total == parts["value"]


def test_weights_of_imitation():
    advantage = jnp.array([-1.0, 0.0, 0.5, 2.0, 5.0])
    np.testing.assert_array_equal(losses.heaviside(advantage), [0, 0, 1, 1, 1])
    np.testing.assert_allclose(
        losses.exponential(advantage), [0.36788, 1.0, 1.64872, 7.38906, 20.0], rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.exponential(advantage, temperature=0.5, limit=3.0)[2], 2.71828, rtol=1e-5
    )


def test_cql_learns_nothing_of_the_policy_and_crr_nothing_of_the_reward(small, dataset):
    """Which heads each objective trains: what the figure of the networks draws."""
    from unplugged import windows

    data = windows.store(dataset)
    trained = {
        "bc": {"policy"},
        "cql": {"reward"},  # the scalar head of the dynamics is the critic
        "crr": {"policy", "reward"},
        "bcq": {"policy", "reward"},
        "rosmo": {"policy", "reward", "value"},
        "behavior": {"policy", "reward", "value"},
    }
    for name, heads in trained.items():
        method = methods.get(name)
        model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), method.critic)
        learn = learner.Learner(model, method, small)
        K, n = learn.method.window(small)
        batch = windows.at(data, data.start, K + n + 1)
        theta, target = random_params(model, 0), random_params(model, 1)
        gradient = jax.jit(jax.grad(learn.loss, has_aux=True))(
            theta, target, batch, jax.random.key(0)
        )[0]
        layers = {**gradient["dynamics"], **gradient["prediction"]}
        moved = {head for head in ("policy", "value", "reward") if np.any(layers[head]["w"])}
        assert moved == heads, name


@pytest.mark.parametrize(
    "method, weighting",
    [
        ("onestep", None),
        ("behavior", "binary"),
        ("crr_model", "exponential"),
        ("supervised", "always"),
    ],
)
def test_one_policy_loss_alone_equals_numpy(model, small, episodes, method, weighting):  # noqa: F811
    theta, target = random_params(model, 0), random_params(model, 1)
    key = jax.random.key(5)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    learn = learner.Learner(model, methods.get(method), small)
    total, parts = jax.jit(learn.loss)(theta, target, batch, key)
    actions = imagined_actions(key, batch, small.unroll_steps)
    expected = [
        reference.window_loss(*numpy_models(small, theta, target), episodes[e], s, actions[:, i],
                              small, regularize=weighting is not None, weighting=weighting)
        for i, (e, s) in enumerate(STARTS)
    ]  # fmt: skip
    mean = {name: np.mean([window[name] for window in expected]) for name in expected[0]}
    wanted = mean["policy"] if weighting is None else mean["behavior"]
    np.testing.assert_allclose(parts["policy"], wanted, rtol=2e-4)
    assert set(parts) == {"policy", "value", "reward"} and wanted > 0.0
    np.testing.assert_allclose(total, wanted + 0.25 * mean["value"] + mean["reward"], rtol=2e-4)


def test_the_filter_from_what_was_recorded_equals_numpy(model, small, episodes):  # noqa: F811
    theta, target = random_params(model, 0), random_params(model, 1)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    learn = learner.Learner(model, methods.get("rosmo_recorded"), small)
    _, parts = jax.jit(learn.loss)(theta, target, batch, jax.random.key(5))
    theta, target = numpy_models(small, theta, target)
    wanted, passed = 0.0, set()
    actions = imagined_actions(jax.random.key(5), batch, small.unroll_steps)
    for i, (e, start) in enumerate(STARTS):
        episode = episodes[e]
        values = [target.value(target.represent(o)) for o in episode["observation"]]
        length, state = len(episode["action"]), theta.represent(episode["observation"][start])
        for k in range(small.unroll_steps + 1):
            t = start + k
            if t < length:
                discount = 0.0 if episode["terminated"] and t == length - 1 else small.discount
                advantage = episode["reward"][t] + discount * values[t + 1] - values[t]
                log_pi = np.log(reference.softmax(theta.predict(state)[0]))
                wanted -= (advantage > 0) * log_pi[episode["action"][t]]
                passed.add(bool(advantage > 0))
            if k < small.unroll_steps:
                state = theta.dynamics(state, actions[k, i])[1]
    mean = wanted / len(STARTS) / (small.unroll_steps + 1)
    np.testing.assert_allclose(parts["behavior"], mean, rtol=2e-4)
    assert passed == {True, False}


def test_mzu_reg_is_mzu_plus_rosmos_regulariser(model, small, episodes):  # noqa: F811
    theta, target = random_params(model, 0), random_params(model, 1)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    total, parts = {}, {}
    for name in ("mzu", "rosmo", "mzu_reg"):
        learn = learner.Learner(model, methods.get(name), small)
        total[name], parts[name] = jax.jit(learn.loss)(theta, target, batch, jax.random.key(5))
    np.testing.assert_allclose(parts["mzu_reg"]["behavior"], parts["rosmo"]["behavior"], rtol=1e-5)
    np.testing.assert_allclose(
        total["mzu_reg"], total["mzu"] + small.behavior_weight * parts["rosmo"]["behavior"],
        rtol=1e-5,
    )  # fmt: skip


def test_reanalyse_has_a_searched_policy_and_the_networks_values(model, small, episodes):  # noqa: F811
    theta, target = random_params(model, 0), random_params(model, 1)
    batch = windows_of(episodes, STARTS, small.unroll_steps + small.td_steps + 1)
    found = {
        name: jax.jit(learner.Learner(model, methods.get(name), small).loss)(
            theta, target, batch, jax.random.key(5)
        )[1]
        for name in ("mzu", "onestep", "reanalyse")
    }
    np.testing.assert_allclose(found["reanalyse"]["value"], found["onestep"]["value"], rtol=1e-6)
    assert abs(found["reanalyse"]["value"] - found["mzu"]["value"]) > 1e-3
    assert abs(found["reanalyse"]["policy"] - found["onestep"]["policy"]) > 1e-3
    roots = improvement.root_of(model, target, model.represent(target, batch.observation))
    key = jax.random.split(jax.random.key(5))[1]
    settings, method = small, methods.get("reanalyse")
    searched = objectives.improve(target, roots, key, model, method, settings).policy
    assert searched.shape == (small.unroll_steps + 1, len(STARTS), model.num_actions)
    direct = improvement.mcts(
        model, target,
        jax.tree.map(lambda x: x[: small.unroll_steps + 1].reshape(-1, *x.shape[2:]), roots),
        key, settings,
    )  # fmt: skip
    np.testing.assert_allclose(searched, direct.policy.reshape(searched.shape), rtol=1e-6)


def test_steps_that_no_target_needs_are_not_improved(model, small, episodes):  # noqa: F811
    """K = 1, n = 4: of 6 steps 2 and 3 are neither imagined nor bootstrapped from."""
    settings = dataclasses.replace(small, unroll_steps=1, td_steps=4)
    params, seen = random_params(model, 0), []

    def operator(model, params, root, key, settings):
        seen.append(len(root.value))
        return improvement.one_step(model, params, root, key, settings)

    method = methods.Method(summary="", operator=operator, bootstrap="operator", selector="policy")
    batch = windows_of(episodes, STARTS, 6)
    roots = improvement.root_of(model, params, model.represent(params, batch.observation))
    found = objectives.improve(params, roots, jax.random.key(0), model, method, settings)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), roots)
    whole = improvement.one_step(model, params, flat, jax.random.key(0), settings)
    needed = np.array([0, 1, 4, 5])
    assert seen == [4 * len(STARTS)]
    for one, all_steps in zip(jax.tree.leaves(found), jax.tree.leaves(whole)):
        all_steps = all_steps.reshape(one.shape)
        np.testing.assert_allclose(one[needed], all_steps[needed], rtol=1e-5, atol=1e-6)
        assert not one[2:4].any()
    loss = jax.jit(learner.Learner(model, method, settings).loss)
    ours = loss(params, params, batch, jax.random.key(1))
    given = batch._replace(improved=jax.tree.map(lambda x: x.reshape(6, -1, *x.shape[1:]), whole))
    wanted = loss(params, params, given, jax.random.key(1))
    np.testing.assert_allclose(ours[0], wanted[0], rtol=1e-5)


def test_planning_without_a_policy_target_is_refused():
    with pytest.raises(ValueError, match="needs an operator, a regularizer, or both"):
        methods.Method(summary="", selector="policy")


def test_bootstrapping_from_an_operator_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match='bootstrap="operator" takes the operator\'s value'):
        methods.Method(
            summary="", selector="policy", bootstrap="operator",
            regularizer=losses.dynamics_advantage,
        )  # fmt: skip


# --- Operators -----------------------------------------------------------------------------


@pytest.fixture
def root(model, dataset):
    params = random_params(model, 4)
    state = model.represent(params, jnp.asarray(dataset.observation))
    return params, improvement.root_of(model, params, state)


def test_sampled_look_ahead_equals_equations_9_and_10(model, small, root):
    """Loops over samples, with the samples that the operator drew."""
    params, root = root
    small = dataclasses.replace(small, num_samples=4)
    key = jax.random.key(2)
    improved = improvement.one_step_sampled(model, params, root, key, small)
    shape = (len(root.value), 4)
    actions = jax.random.categorical(key, root.prior_logits[:, None], axis=-1, shape=shape)
    exact = improvement.one_step(model, params, root, key, small)
    advantage = np.asarray(exact.action_values - root.value[:, None], np.float64)
    logits = np.random.default_rng(0).normal(size=(*shape[:1], NUM_ACTIONS))
    log_pi = np.log([reference.softmax(x) for x in logits])
    for i, drawn in enumerate(np.asarray(actions)):
        loss = 0.0
        for k, a in enumerate(drawn):
            others = sum(np.exp(advantage[i, b]) for j, b in enumerate(drawn) if j != k)
            z = (1.0 + others) / 4
            loss -= np.exp(advantage[i, a]) / z * log_pi[i, a] / 4
        np.testing.assert_allclose(
            losses.cross_entropy(improved.policy[i], logits[i]), loss, rtol=1e-4
        )
        unseen = sorted(set(range(NUM_ACTIONS)) - set(drawn.tolist()))
        np.testing.assert_array_equal(improved.policy[i][jnp.array(unseen, int)], 0.0)
        for a in range(NUM_ACTIONS):
            wanted = root.value[i] if a in unseen else exact.action_values[i, a]
            np.testing.assert_allclose(improved.action_values[i, a], wanted, rtol=1e-4, atol=1e-5)


def test_sampled_look_ahead_with_an_advantage_far_above_the_others(model, small, root, monkeypatch):
    params, root = root
    small = dataclasses.replace(small, num_samples=4)
    high = jnp.where(jnp.arange(NUM_ACTIONS) == 1, 20.0, 1.0)
    q = root.value[:, None] + high
    monkeypatch.setattr(
        improvement, "action_values",
        lambda model, params, state, actions, discount: jnp.take_along_axis(q, actions, axis=1),
    )  # fmt: skip
    improved = improvement.one_step_sampled(model, params, root, jax.random.key(2), small)
    shape = (len(root.value), 4)
    logits = root.prior_logits[:, None]
    actions = jax.random.categorical(jax.random.key(2), logits, axis=-1, shape=shape)
    seen = 0
    for i, drawn in enumerate(np.asarray(actions)):
        weights = np.exp(np.asarray(high, np.float64)[drawn])
        others = [np.delete(weights, k).sum() for k in range(4)]
        for a in set(drawn.tolist()):
            expected = sum(w / (1 + o) for w, o, b in zip(weights, others, drawn) if b == a)
            np.testing.assert_allclose(improved.policy[i, a], expected, rtol=1e-4)
        seen += (drawn == 1).sum() == 1
    assert seen  # One drawn once is where the sum less itself would cancel.


def test_sampled_look_ahead_tends_to_the_exact_one(model, small, root):
    params, root = root
    small = dataclasses.replace(small, num_samples=3_000)
    few = jax.tree.map(lambda x: x[:3], root)
    sampled = improvement.one_step_sampled(model, params, few, jax.random.key(0), small)
    exact = improvement.one_step(model, params, few, jax.random.key(0), small)
    np.testing.assert_allclose(sampled.policy, exact.policy, atol=0.05)


def direct_search(policy, model, params, root, key, small, **options):
    def recurrent(params, key, action, state):
        reward_logits, state = model.dynamics(params, state, action)
        policy_logits, value_logits = model.predict(params, state)
        return mctx.RecurrentFnOutput(
            reward=model.support.scalar(reward_logits),
            discount=jnp.full(action.shape, small.discount),
            prior_logits=policy_logits,
            value=model.support.scalar(value_logits),
        ), state

    return policy(params, key, root, recurrent, small.num_simulations, **options)


@pytest.mark.parametrize("simulations", [1, 2, 7])
def test_mzu_q_equals_its_formula_on_a_direct_mctx_call(model, small, root, simulations):
    params, root = root
    small = dataclasses.replace(small, num_simulations=simulations, temperature=0.3)
    key = jax.random.key(3)
    improved = improvement.mcts_q(model, params, root, key, small)
    tree = direct_search(mctx.muzero_policy, model, params, root, key, small).search_tree
    visits, never = np.asarray(tree.children_visits[:, 0]), 0
    for i in range(len(root.value)):
        q = np.full(NUM_ACTIONS, np.asarray(tree.node_values)[i, 0], np.float64)
        for a in range(NUM_ACTIONS):
            if visits[i, a]:
                q[a] = tree.children_rewards[i, 0, a] + 0.9 * tree.children_values[i, 0, a]
            else:
                never += 1
        prior = reference.softmax(np.asarray(root.prior_logits[i], np.float64))
        target = prior * np.exp(q / 0.3)
        np.testing.assert_allclose(improved.policy[i], target / target.sum(), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(improved.action_values[i], q, rtol=1e-4, atol=1e-5)
    assert simulations > 2 or never >= len(root.value)
    np.testing.assert_allclose(improved.value, tree.node_values[:, 0])


def test_gumbel_equals_a_direct_mctx_call(model, small, root):
    params, root = root
    key = jax.random.key(3)
    improved = improvement.gumbel(model, params, root, key, small)
    direct = direct_search(mctx.gumbel_muzero_policy, model, params, root, key, small)
    np.testing.assert_array_equal(improved.policy, direct.action_weights)
    np.testing.assert_array_equal(improved.value, direct.search_tree.node_values[:, 0])
    acting = [
        improvement.gumbel_search(model, params, root, jax.random.key(k), small, noise=False)
        for k in (0, 1)
    ]
    np.testing.assert_array_equal(acting[0].action, acting[1].action)


@pytest.mark.parametrize("operator", ["mcts", "mcts_q", "gumbel"])
def test_a_search_is_no_deeper_than_its_limit(model, small, root, operator):
    """With depth 1, more simulations than actions only revisit: Q is the one-step Q."""
    params, root = root
    small = dataclasses.replace(small, num_simulations=12, search_depth=1)
    improved = getattr(improvement, operator)(model, params, root, jax.random.key(0), small)
    exact = improvement.one_step(model, params, root, jax.random.key(0), small)
    visited = ~np.isclose(improved.action_values, improved.value[:, None])
    np.testing.assert_allclose(
        np.where(visited, improved.action_values, 0.0),
        np.where(visited, exact.action_values, 0.0),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    assert visited.mean() > 0.5
