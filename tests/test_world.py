"""The world model and imagination against numbers worked out by hand or by plain NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import random_params
from numpy_reference import phi
from unplugged import bits, imagination, losses, methods, networks, objectives, windows
from unplugged.learning import world_learner, world_model, world_settings
from unplugged.model import world as worlds
from unplugged.model.actions import Discrete

SHAPE, T, B = (4, 4, 2), 4, 3
SIZES = {
    "channels": (3,), "hidden": 5, "recurrent": 6, "categoricals": 2, "classes": 3, "members": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return worlds.rssm(observation_shape=SHAPE, num_actions=3, **SIZES)


@pytest.fixture(scope="module")
def world_params(world):
    return random_params(world, 0)


def recorded(packed):
    """An episode of 5 steps that ends, and one of 4 that is cut off, as bits or as floats."""
    rng = np.random.default_rng(0)
    observation = rng.integers(0, 2, (11, *SHAPE)).astype(np.float32)
    end = np.array([5] * 6 + [10] * 5)
    return windows.Store(
        observation=bits.pack(jnp.asarray(observation), 3) if packed else jnp.asarray(observation),
        action=jnp.asarray(rng.integers(0, 3, 11)),
        reward=jnp.asarray(rng.normal(size=11).astype(np.float32)),
        discount=jnp.asarray([1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1], jnp.float32),
        end=jnp.asarray(end),
        start=jnp.asarray([0, 1, 2, 3, 4, 6, 7, 8, 9]),
        packed_shape=SHAPE if packed else None,
    )


def batch(packed=True):
    """Windows from an episode's begin, over a true end, and over a cut."""
    return windows.at(recorded(packed), jnp.array([0, 3, 8]), T)


def test_a_draw_is_one_hot_and_its_gradient_that_of_the_probabilities():
    logits = jnp.zeros([1, 2])
    drawn = worlds.straight_through(logits, jax.random.key(0))
    assert sorted(drawn.tolist()) == [0.0, 1.0]
    gradient = jax.grad(lambda x: worlds.straight_through(x, jax.random.key(0))[0])(logits)
    np.testing.assert_allclose(gradient, [[0.25, -0.25]])


def test_the_divergence_and_how_its_gradient_is_shared():
    posterior, prior = jnp.log(jnp.array([[[0.5, 0.5]]])), jnp.log(jnp.array([[[0.25, 0.75]]]))
    found, gradients = jax.value_and_grad(
        lambda p, q: world_model.balanced_divergence(p, q, 0.8).sum(), argnums=(0, 1)
    )(posterior, prior)
    kl = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    np.testing.assert_allclose(found, kl, rtol=1e-6)
    of_posterior = 0.2 * 0.5 * (np.log(2) - kl)
    np.testing.assert_allclose(gradients[0][0, 0], [of_posterior, -of_posterior], rtol=1e-5)
    np.testing.assert_allclose(gradients[1][0, 0], [-0.2, 0.2], rtol=1e-6)
    free, gradients = jax.value_and_grad(
        lambda p, q: world_model.balanced_divergence(p, q, 0.8, 1.0).sum(), argnums=(0, 1)
    )(posterior, prior)
    np.testing.assert_allclose(free, 0.8 * kl + 0.2, rtol=1e-6)
    np.testing.assert_array_equal(gradients[0], 0.0)
    np.testing.assert_allclose(gradients[1][0, 0], [-0.2, 0.2], rtol=1e-6)


def test_shapes_and_that_observations_must_be_images(world, world_params):
    state = worlds.WorldState(jnp.zeros([B, 6]), jnp.zeros([B, 6]))
    assert state.features.shape == (B, world.num_features) == (B, 12)
    assert world.encode(world_params, jnp.zeros([T, B, *SHAPE])).shape == (T, B, 5)
    assert world.prior(world_params, jnp.zeros([T, B, 6])).shape == (4, T, B, 2, 3)
    decoded = world.decode(world_params, jnp.zeros([T, B, 12]))
    assert [x.shape for x in decoded] == [(T, B, *SHAPE), (T, B), (T, B)]
    with pytest.raises(ValueError, match="are no images"):
        worlds.rssm(observation_shape=(6,), num_actions=3, **SIZES)


def test_members_are_perceptrons_of_their_own(world, world_params):
    h = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    found = world.prior(world_params, h).reshape(4, 2, 6)
    p = {k: {n: np.asarray(x) for n, x in v.items()} for k, v in world_params["prior"].items()}
    for member in range(4):
        units = slice(5 * member, 5 * member + 5)
        x = (h @ p["prior/hidden"]["w"] + p["prior/hidden"]["b"])[:, units]
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        hidden = np.maximum(x * p["prior"]["scale"][member] + p["prior"]["offset"][member], 0)
        wanted = hidden @ p["prior"]["w"][member] + p["prior"]["b"][member]
        np.testing.assert_allclose(found[member], wanted, rtol=1e-4, atol=1e-5)


def follow(world, params, of):
    return world_model.follow(world, params, of.observation, of.action, jax.random.key(2))


def test_following_begins_empty_and_goes_on_with_what_was_done(world, world_params):
    of = batch()
    states, logits = follow(world, world_params, of)
    np.testing.assert_array_equal(states.recurrent[0], 0.0)
    assert set(np.unique(states.latent.round(5))) == {0.0, 1.0}
    embedding = world.encode(world_params, of.observation)
    for t in range(T):
        now = jax.tree.map(lambda x, t=t: x[t], states)
        wanted = world.posterior(world_params, now.recurrent, embedding[t])
        np.testing.assert_allclose(logits[t], wanted, rtol=1e-4, atol=1e-5)
        if t < T - 1:
            after = world.recur(world_params, now, of.action[t])
            np.testing.assert_allclose(states.recurrent[t + 1], after, rtol=1e-4, atol=1e-5)


def softmax(x):
    e = np.exp(np.float64(x) - np.max(x, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_the_loss_equals_numpy_and_takes_packed_bits(world, world_params):
    of, chosen = batch(), world_settings.PRESETS["world_model"]
    row = methods.get("world_model")
    total, parts = row.objective(
        world_params, None, of, jax.random.key(2), model=world, method=row, settings=chosen
    )
    states, logits = follow(world, world_params, of)
    prior = softmax(world.prior(world_params, states.recurrent))
    posterior = softmax(logits)
    decoded = jax.tree.map(np.float64, world.decode(world_params, states.features))
    # Episodes of 5 and 4 steps from steps 0, 3 and 2: both ends are seen once, then nothing is.
    here = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(world_model.inside(of), here)
    wanted = {"observation": 0.0, "reward": 0.0, "discount": 0.0, "kl": 0.0}
    for t, b in np.argwhere(here):
        x, p = np.asarray(of.observation[t, b]), 1 / (1 + np.exp(-decoded.observation[t, b]))
        wanted["observation"] -= np.sum(x * np.log(p) + (1 - x) * np.log(1 - p)) / (T * B)
        for member in prior:
            kl = np.sum(posterior[t, b] * np.log(posterior[t, b] / member[t, b]))
            wanted["kl"] += (0.8 * kl + 0.2 * max(kl, 1.0)) / (T * B * len(prior))
        if t:
            error = decoded.reward[t, b] - float(of.reward[t - 1, b])
            wanted["reward"] += 0.5 * error**2 / ((T - 1) * B)
            goes_on = 1 / (1 + np.exp(-decoded.discount[t, b]))
            happened = goes_on if of.discount[t - 1, b] else 1 - goes_on
            wanted["discount"] -= np.log(happened) / ((T - 1) * B)
    for name, value in wanted.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4)
    weighted = sum(wanted.values()) + (chosen.kl_weight - 1) * wanted["kl"]
    np.testing.assert_allclose(total, weighted, rtol=1e-4)
    same, _ = row.objective(
        world_params, None, batch(False), jax.random.key(2), model=world, method=row,
        settings=chosen,
    )  # fmt: skip
    assert same == total


def test_disagreement_is_the_largest_distance_between_two_members():
    p = jnp.array([[[1.0, 0.0]], [[0.6, 0.4]], [[0.0, 1.0]]])  # M = 3, C = 1, K = 2
    np.testing.assert_allclose(world_model.disagreement(jnp.log(p + 1e-9)), 2**0.5, rtol=1e-4)
    np.testing.assert_allclose(
        world_model.disagreement(jnp.log(p[:2] + 1e-9)), 0.4 * 2**0.5, rtol=1e-4
    )


def test_recorded_disagreement_is_of_real_steps_alone(world, world_params):
    of = batch()
    found = world_model.recorded_disagreement(world, world_params, of, jax.random.key(2))
    states, _ = follow(world, world_params, of)
    wanted = world_model.disagreement(world.prior(world_params, states.recurrent))
    real = [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    np.testing.assert_allclose(found[:-1], wanted[1:] * np.array(real), rtol=1e-5)
    np.testing.assert_array_equal(found[-1], 0.0)


def rollouts(**changes):
    """Two rollouts of 3 steps; the first ends with its second step."""
    values = {
        "features": jnp.arange(16.0).reshape(4, 2, 2),
        "action": jnp.array([[0, 1], [2, 0], [1, 1]]),
        "reward": jnp.array([[1.0, 0.0], [2.0, 0.5], [4.0, 3.0]]),
        "discount": jnp.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
        "disagreement": jnp.array([[0.1, 0.2], [0.3, 0.9], [0.1, 0.2]]),
    }
    return imagination.Rollouts(**{**values, **changes})


def test_a_step_beyond_the_threshold_ends_the_rollout():
    imagined = rollouts()
    assert imagined.real.tolist() == [[True, True], [True, True], [False, True]]
    found = imagination.pessimistic(imagined, 0.5, -2.0)
    assert found.real.tolist() == [[True, True], [True, True], [False, False]]
    np.testing.assert_array_equal(found.reward[:, 1], [0.0, -2.0, 3.0])
    np.testing.assert_array_equal(found.discount[:, 1], [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(found.reward[:, 0], imagined.reward[:, 0])
    assert imagination.pessimistic(imagined, 0.9, -2.0).real.tolist() == imagined.real.tolist()


def test_a_rollout_is_by_one_member_and_ends_as_the_model_says():
    """A world whose member m always expects class m, and that ends after class 1 was seen."""
    members = jnp.array([[[40.0, 0.0]], [[0.0, 40.0]]])  # M = 2, C = 1, K = 2
    toy = worlds.World(
        init=None,
        encode=None,
        recur=lambda params, state, action: state.recurrent + 1.0 + action[:, None],
        prior=lambda params, h: jnp.broadcast_to(members[:, None], (2, h.shape[0], 1, 2)),
        posterior=None,
        decode=lambda params, features: worlds.Decoded(
            features, 10.0 * features[:, 0], 100.0 - 200.0 * features[:, 2]
        ),
        num_actions=2,
        recurrent=1,
        categoricals=1,
        classes=2,
    )
    start = worlds.WorldState(jnp.zeros([40, 1]), jnp.zeros([40, 2]))
    found = imagination.imagine(
        toy, None, lambda features, key: jnp.ones(40, jnp.int32), start, jax.random.key(0), 3
    )
    member = found.features[1:, :, 2]
    assert (member == member[0]).all() and 5 < member[0].sum() < 35
    np.testing.assert_array_equal(found.features[:, 0, 0], [0.0, 2.0, 4.0, 6.0])
    np.testing.assert_array_equal(found.reward[:, 0], [20.0, 40.0, 60.0])
    np.testing.assert_array_equal(found.discount, 1.0 - member)
    np.testing.assert_allclose(found.disagreement, 2**0.5, rtol=1e-6)


def test_stored_stretches_give_the_windows_of_whole_and_of_cut_episodes():
    imagined = rollouts()
    store, real = imagination.stored(*imagined[:4], imagined.real)
    assert real.reshape(2, 4).tolist() == [[True, True, False, False], [True, True, True, False]]
    found = windows.at(store, jnp.array([0, 5]), 4)
    np.testing.assert_array_equal(found.observation[:, 0, 0], [0.0, 4.0, 8.0, 8.0])
    np.testing.assert_array_equal(found.observation[:, 1, 0], [6.0, 10.0, 14.0, 14.0])
    assert found.real.T.tolist() == [[True, True, False, False], [True, True, False, False]]
    np.testing.assert_array_equal(found.absorbing[:, 0], [False, False, True, True])
    np.testing.assert_array_equal(found.absorbing[:, 1], [False] * 4)
    value = jnp.array([[9.0] * 4, [5.0, 6.0, 7.0, 7.0]]).T
    returns = losses.n_step_returns(
        found.reward, losses.step_discounts(found, 0.5), value, td_steps=3
    )
    # The first has ended: 1 + 0.5 * 2. The second is cut off: 0.5 + 0.5 * 3 + 0.25 * 7.
    np.testing.assert_allclose(returns[0], [2.0, 3.75])


def test_windows_are_drawn_where_a_step_was_taken():
    imagined = rollouts()
    store, real = imagination.stored(*imagined[:4], imagined.real)
    found = imagination.draw(store, real, jax.random.key(0), 200, 2)
    assert set(found.observation[0, :, 0].tolist()) == {0.0, 4.0, 2.0, 6.0, 10.0}


def make_agent(features):
    return networks.mlp(
        observation_shape=(features,), actions=Discrete(3), num_bins=5, representation=(4, 3),
        dynamics=(3,), prediction=(4,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def agent():
    return make_agent(2)


def test_advantages_equal_a_loop_and_stop_at_an_end(agent):
    params, imagined = random_params(agent, 0), rollouts()
    found = imagination.experience(agent, params, imagined, 0.9, 0.8)
    logits, value = agent.predict(params, agent.represent(params, imagined.features))
    value = np.asarray(agent.support.scalar(value), np.float64)
    wanted = np.zeros([3, 2])
    for b in range(2):
        after = 0.0
        for t in (2, 1, 0):
            going_on = 0.9 * float(imagined.discount[t, b])
            error = float(imagined.reward[t, b]) + going_on * value[t + 1, b] - value[t, b]
            wanted[t, b] = after = error + 0.8 * going_on * after
    np.testing.assert_allclose(found.advantage, wanted.reshape(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.target, (wanted + value[:3]).reshape(-1), rtol=1e-4)
    chosen = [
        np.log(softmax(logits[t, b]))[imagined.action[t, b]] for t in range(3) for b in (0, 1)
    ]
    np.testing.assert_allclose(found.log_probability, chosen, rtol=1e-4)
    np.testing.assert_array_equal(found.real, imagined.real.reshape(-1))


def test_the_clipped_surrogate_equals_numpy_and_leaves_out_what_is_not_real(agent):
    settings, row = world_settings.PRESETS["morel"], methods.get("morel")
    params = random_params(agent, 1)
    steps = imagination.experience(agent, random_params(agent, 0), rollouts(), 0.9, 0.8)
    steps = steps._replace(advantage=jnp.array([1.0, -2.0, 0.5, 3.0, 99.0, -1.0]))
    assert steps.real.tolist() == [True, True, True, True, False, True]
    total, parts = row.objective(
        params, None, steps, None, model=agent, method=row, settings=settings
    )
    adv = np.delete(np.asarray(steps.advantage, np.float64), 4)
    adv = (adv - adv.mean()) / adv.std()
    logits, values = agent.predict(params, agent.represent(params, steps.features))
    wanted, ratios = {"policy": 0.0, "value": 0.0, "entropy": 0.0}, []
    bins = np.asarray(agent.support.bins)
    for i, advantage in zip((0, 1, 2, 3, 5), adv):
        pi = softmax(logits[i])
        ratio = pi[steps.action[i]] / np.exp(float(steps.log_probability[i]))
        ratios.append(ratio)
        clipped = np.clip(ratio, 0.9, 1.1)
        wanted["policy"] -= min(ratio * advantage, clipped * advantage) / 5
        wanted["value"] -= phi(float(steps.target[i]), bins) @ np.log(softmax(values[i])) / 5
        wanted["entropy"] -= pi @ np.log(pi) / 5
    assert min(ratios) < 0.9 and max(ratios) > 1.1
    for name, value in wanted.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-3)
    weighted = wanted["policy"] - 0.01 * wanted["entropy"] + 0.5 * wanted["value"]
    np.testing.assert_allclose(total, weighted, rtol=1e-3)


def test_the_penalty_of_combo_in_both_readings(agent):
    row = methods.get("combo")
    settings = world_settings.PRESETS["combo"].override({"batch_size": 4, "td_steps": 2})
    params, target = random_params(agent, 0), random_params(agent, 1)
    imagined = rollouts()
    store, real = imagination.stored(*imagined[:4], imagined.real)
    of = imagination.draw(store, real, jax.random.key(0), 4, 3)

    def loss(settings):
        return row.objective(params, target, of, None, model=agent, method=row, settings=settings)

    mixed, parts = loss(settings)
    assert mixed == objectives.conservative(
        params, target, of, None, model=agent, method=row, settings=settings
    )[0]  # fmt: skip
    q = np.asarray(losses.critic_values(agent, params, agent.represent(params, of.observation[0])))
    lse = np.log(np.exp(q.astype(np.float64)).sum(axis=1))
    taken = q[np.arange(4), of.action[0]]
    np.testing.assert_allclose(parts["conservative"], np.mean(lse - taken), rtol=1e-4)
    apart, other = loss(settings.override({"conservative_reading": "apart"}))
    gap = lse[2:].mean() - taken[:2].mean()  # The first half is recorded.
    np.testing.assert_allclose(other["conservative"], gap, rtol=1e-4)
    np.testing.assert_allclose(apart, parts["value"] + gap, rtol=1e-4)


def learned_from(method, noted, **changes):
    """What a round of 4 updates notes of its batches, in a world of two members and three classes.

    States that were seen are of class 0, imagined ones of the member's own, 1 or 2. The members
    are 2 ** 0.5 apart, the dataset's largest disagreement is 1, and no episode ends.
    """
    seen, imagined = 40.0 * jax.nn.one_hot(0, 3), 40.0 * jax.nn.one_hot(jnp.array([1, 2]), 3)
    toy = worlds.World(
        init=lambda key: {},
        encode=lambda params, observation: observation[..., 0, 0, :1],
        recur=lambda params, state, action: state.recurrent + 1.0,
        prior=lambda params, h: jnp.broadcast_to(imagined[:, None, None], (2, len(h), 1, 3)),
        posterior=lambda params, h, embedded: jnp.broadcast_to(seen, (len(h), 1, 3)),
        decode=lambda params, features: worlds.Decoded(
            features, features[:, 0], jnp.full(len(features), 100.0)
        ),
        num_actions=3,
        recurrent=1,
        categoricals=1,
        classes=3,
    )

    def objective(params, target_params, windows, key, **of):
        del target_params, key, of
        return 0.0 * sum(x.sum() for x in jax.tree.leaves(params)), noted(windows)

    settings = world_settings.PRESETS[method].override(
        {"batch_size": 8, "unroll_steps": 3, "rollouts": 6, "rollout_steps": 4,
         "round_updates": 4, "epochs": 2, **changes}
    )  # fmt: skip
    learner = world_learner.WorldLearner(
        toy, make_agent(4), dataclasses.replace(methods.get(method), objective=objective), settings
    )
    data = world_learner.WorldData(recorded(True), 1.0)
    halted = learner.halted(learner.init(0), data)
    return {**learner.run(learner.init(0), data, 4)[1], "halted": halted}


def test_combo_learns_from_recorded_columns_and_then_imagined_ones():
    def noted(windows):  # Only the state after the first step is seen or imagined for sure.
        return {"recorded": windows.observation[1, :, 1]}

    found = learned_from("combo", noted, imagined_share=0.25)["recorded"].reshape(4, 8)
    assert (found == jnp.array([1, 1, 1, 1, 1, 1, 0, 0])).all()


@pytest.mark.parametrize(("multiple", "steps"), [(0.0, 6), (1.5, 24)])
def test_morel_halts_its_rollouts_where_the_members_differ_too_much(multiple, steps):
    def noted(experience):
        of = jnp.where(experience.real, experience.target, 0.0)
        return {"steps": jnp.sum(experience.real), "target": jnp.sum(of)}

    found = learned_from("morel", noted, halt_multiple=multiple)
    # Two passes over 6 rollouts of one step or of four.
    assert found["steps"].sum() == 2 * steps and found["halted"] == (steps == 6)
    if steps == 6:  # A penalty of 1, and nothing follows.
        np.testing.assert_allclose(found["target"].sum(), -2 * 6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 3}, r"round_updates \(20\) must be a multiple of epochs \(3\)"),
        ({"rollouts": 3, "rollout_steps": 3}, "change rollouts"),
        ({"conservative_reading": "mixd"}, "did you mean 'mixed'"),
        ({"conservative_reading": "apart", "imagined_share": 1.0}, "nothing to tell apart"),
        ({"kl_balance": 2.0}, "kl_balance must lie in"),
        ({"members": 0}, "members must lie in"),
        ({"recurent": 1}, "did you mean 'recurrent'"),
    ],
)
def test_settings_are_checked(changes, said):
    with pytest.raises(ValueError, match=said):
        world_settings.PRESETS["morel"].override(changes)


def test_every_setting_is_documented():
    text = world_settings.WorldSettings.__doc__
    own = set(world_settings.WorldSettings.__annotations__)
    assert all(f"\n      {name}: " in text for name in own)
