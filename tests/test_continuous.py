"""Each baseline's loss beside plain NumPy, which has of the networks what they answer."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import compiled, random_params
from unplugged import runs
from unplugged.data.windows import Windows
from unplugged.learning import continuous, methods
from unplugged.learning.learner import Learner
from unplugged.model.actions import Discrete, Normal, draw
from unplugged.model.critic import critic_logits
from unplugged.planning import improvement
from unplugged.runs.spec import model_of

BATCH, STEPS = 4, 2


@pytest.fixture
def settings(small):
    return dataclasses.replace(
        small, td_steps=STEPS, num_atoms=11, num_samples=3, num_candidates=5, behavior_penalty=0.7
    )


def windows():
    """A whole window, one that ends truly, one that was truncated, and one that ends at its end."""
    rng = np.random.default_rng(0)
    real = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 0]], bool)
    discount = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0]], np.float32)
    known = real | (np.arange(3)[:, None] <= 1) | (discount == 0)
    observation = rng.normal(size=(3, BATCH, 2)).astype(np.float32)
    observation[2, 1:3] = observation[1, 1:3]
    return Windows(
        observation=jnp.asarray(observation),
        action=jnp.asarray(np.clip(rng.normal(size=(3, BATCH, 2)), -1, 1), jnp.float32),
        reward=jnp.asarray(rng.normal(size=(3, BATCH)) * real, jnp.float32),
        discount=jnp.asarray(discount),
        real=jnp.asarray(real),
        known=jnp.asarray(known),
    )


def made(name, settings):
    method = methods.get(name)
    model = model_of(settings, (2,), Normal(2), method.critic)
    if method.extend:
        model = method.extend(model)
    model = compiled(model)
    return Learner(model, method, settings), random_params(model, 0), random_params(model, 1)


def two_steps(batch, gamma):
    """Reward and discount of what is bootstrapped from, window by window."""
    out = []
    for b in range(BATCH):
        total, factor = 0.0, 1.0
        for t in range(STEPS):
            total += factor * float(batch.reward[t, b])
            if batch.real[t, b]:
                factor *= gamma * float(batch.discount[t, b])
            else:
                factor *= float(batch.discount[t, b])
        out.append((total, factor))
    return np.array(out).T


def test_what_two_steps_bring_by_hand():
    batch = windows()
    reward, discount = two_steps(batch, 0.9)
    first, second = np.asarray(batch.reward[0]), np.asarray(batch.reward[1])
    np.testing.assert_allclose(discount, [0.81, 0.0, 0.9, 0.0], rtol=1e-6)
    np.testing.assert_allclose(reward[[0, 3]], (first + 0.9 * second)[[0, 3]], rtol=1e-6)
    np.testing.assert_allclose(reward[[1, 2]], first[[1, 2]], rtol=1e-6)  # A truncation bootstraps.


def head(model, params, observation):
    return model.predict(params, model.represent(params, observation))[0]


def q_of(model, params, observation, actions):
    state = model.represent(params, observation)
    logits = critic_logits(model, params, state[:, None], actions)
    return np.asarray(model.support.scalar(logits), np.float64)


def cross_entropy(model, params, batch, target):
    state = model.represent(params, batch.observation[0])
    logits = np.asarray(critic_logits(model, params, state, batch.action[0]), np.float64)
    log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -(np.asarray(target) * log).sum(axis=-1).mean()


def normal(parameters):
    raw = np.asarray(parameters, np.float64)
    return np.tanh(raw[..., :2]), np.log1p(np.exp(raw[..., 2:])) + 0.05


def log_density(parameters, action):
    mean, scale = normal(parameters)
    z = (np.asarray(action) - mean) / scale
    return (-0.5 * z**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum(axis=-1)


def divergence(parameters, others):
    (m, s), (n, r) = normal(parameters), normal(others)
    return (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum(axis=-1)


@pytest.mark.parametrize(("name", "binary"), [("crr", False), ("crr_binary", True)])
def test_critic_regularized_regression(settings, name, binary):
    learner, params, target_params = made(name, settings)
    model, batch, key = learner.model, windows(), jax.random.key(3)
    total, parts = jax.jit(learner.loss)(params, target_params, batch, key)

    both = jnp.stack([batch.observation[0], batch.observation[STEPS]])
    drawn = draw(model.actions, key, head(model, target_params, both), 3)
    now = q_of(model, target_params, both[0], drawn[0]).mean(axis=-1)
    ahead = q_of(model, target_params, both[1], drawn[1]).mean(axis=-1)
    advantage = q_of(model, target_params, both[0], batch.action[0][:, None])[:, 0] - now
    weight = 1.0 * (advantage > 0) if binary else np.minimum(np.exp(advantage), 20.0)
    density = log_density(head(model, params, both[0]), batch.action[0])
    np.testing.assert_allclose(parts["policy"], (-weight * density).mean(), rtol=1e-4)
    reward, discount = two_steps(batch, 0.9)
    target = model.support.two_hot(jnp.asarray(reward + discount * ahead, jnp.float32))
    np.testing.assert_allclose(
        parts["value"], cross_entropy(model, params, batch, target), rtol=1e-4
    )
    np.testing.assert_allclose(total, parts["policy"] + 0.25 * parts["value"], rtol=1e-5)


def projected(moved, probabilities, atoms):
    """A distribution on other atoms, each mass shared by the nearest (Bellemare et al., 2017)."""
    out, step = np.zeros(len(atoms)), atoms[1] - atoms[0]
    for z, p in zip(np.clip(moved, atoms[0], atoms[-1]), probabilities):
        place = (z - atoms[0]) / step
        low = min(int(np.floor(place)), len(atoms) - 2)
        out[low] += p * (low + 1 - place)
        out[low + 1] += p * (place - low)
    return out


def test_d4pg(settings):
    learner, params, target_params = made("d4pg", settings)
    model, batch = learner.model, windows()
    _, parts = jax.jit(learner.loss)(params, target_params, batch, jax.random.key(0))
    atoms = np.asarray(model.support.bins, np.float64)
    np.testing.assert_allclose(atoms, np.linspace(-30.0, 30.0, 11))
    state = model.represent(target_params, batch.observation[STEPS])
    best = jnp.asarray(normal(model.predict(target_params, state)[0])[0], jnp.float32)
    logits = np.asarray(critic_logits(model, target_params, state, best), np.float64)
    mass = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    reward, discount = two_steps(batch, 0.9)
    target = [projected(r + d * atoms, p, atoms) for r, d, p in zip(reward, discount, mass)]
    np.testing.assert_allclose(
        parts["value"], cross_entropy(model, params, batch, target), rtol=1e-4
    )


def test_d4pgs_policy_climbs_the_critic_by_slopes_of_limited_norm(settings, monkeypatch):
    limit = 0.4
    monkeypatch.setattr(continuous, "LARGEST_SLOPE", limit)
    only_policy = dataclasses.replace(settings, value_weight=0.0)
    learner, params, target_params = made("d4pg", only_policy)
    model, batch = learner.model, windows()

    def loss(params):
        return learner.loss(params, target_params, batch, jax.random.key(0))[0]

    gradient = jax.jit(jax.grad(loss))(params)["actor"]

    def act(actor):
        moved = {**params, "actor": actor}
        return model.actions.mode(continuous.policy_of(model, moved, batch.observation[0]))

    def q(action):
        return continuous.values(model, params, batch.observation[0], action[:, None]).sum()

    action, back = jax.vjp(act, params["actor"])
    slope = np.asarray(jax.grad(q)(action))
    norm = np.linalg.norm(slope, axis=-1, keepdims=True)
    assert norm.min() < limit < norm.max()  # Some are limited.
    (expected,) = back(jnp.asarray(-slope / np.maximum(norm / limit, 1.0) / BATCH))
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["crr", "crr_binary", "d4pg", "brac", "rabm"])
def test_actor_and_critic_share_nothing(settings, name):
    def gradient(**weights):
        learner, params, target_params = made(name, dataclasses.replace(settings, **weights))
        return jax.jit(jax.grad(lambda x: learner.loss(x, target_params, windows(), key)[0]))(
            params
        )

    key = jax.random.key(0)

    def moves(found, part):
        return any(bool(x.any()) for x in jax.tree.leaves(found[part]))

    actors, critics = gradient(value_weight=0.0), gradient(policy_weight=0.0)
    assert moves(actors, "actor") and moves(critics, "representation")
    assert moves(critics, "dynamics") and not moves(critics, "actor")
    assert not any(moves(actors, part) for part in ("representation", "dynamics", "prediction"))


def test_behavior_regularized_actor_critic(settings):
    learner, params, target_params = made("brac", settings)
    model, batch, key = learner.model, windows(), jax.random.key(5)
    _, parts = jax.jit(learner.loss)(params, target_params, batch, key)
    keys = jax.random.split(key)
    now, ahead = batch.observation[0], batch.observation[STEPS]

    policy = head(model, target_params, ahead)
    value = q_of(model, target_params, ahead, draw(model.actions, keys[0], policy, 3)).mean(axis=-1)
    value -= 0.7 * divergence(policy, head(model, target_params["behavior"], ahead))
    reward, discount = two_steps(batch, 0.9)
    target = model.support.two_hot(jnp.asarray(reward + discount * value, jnp.float32))
    np.testing.assert_allclose(
        parts["value"], cross_entropy(model, params, batch, target), rtol=1e-4
    )
    policy, cloned = head(model, params, now), head(model, params["behavior"], now)
    climbed = q_of(model, params, now, draw(model.actions, keys[1], policy, 3)).mean()
    expected = -climbed + 0.7 * divergence(policy, cloned).mean()
    np.testing.assert_allclose(parts["policy"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        parts["behavior"], -log_density(cloned, batch.action[0]).mean(), rtol=1e-4
    )


def test_advantage_weighted_behavior_model_with_mpo(settings):
    learner, params, target_params = made("rabm", settings)
    model, batch, key = learner.model, windows(), jax.random.key(5)
    batch = batch._replace(reward=5.0 * batch.reward)
    _, parts = jax.jit(learner.loss)(params, target_params, batch, key)
    keys, of = jax.random.split(key, 3), model.actions
    now, ahead = batch.observation[0], batch.observation[STEPS]

    def value(observation, key):
        drawn = draw(of, key, head(model, target_params, observation), 3)
        return q_of(model, target_params, observation, drawn).mean(axis=-1)

    reward, discount = two_steps(batch, 0.9)
    returns = reward + discount * value(ahead, keys[0])
    good = returns - value(now, keys[1]) > 0
    assert good.any() and not good.all()
    density = log_density(head(model, params["behavior"], now), batch.action[0])
    np.testing.assert_allclose(parts["behavior"], -(good * density).mean(), rtol=1e-4)

    drawn = draw(of, keys[2], head(model, target_params["behavior"], now), 5)
    q = q_of(model, target_params, now, drawn)
    temperature, step = (
        np.log1p(np.exp(float(params["multipliers"][name]))) for name in ("temperature", "step")
    )
    weight = np.exp(q / temperature) / np.exp(q / temperature).sum(axis=-1, keepdims=True)
    policy, before = head(model, params, now), head(model, target_params, now)
    fitted = -(weight * log_density(np.asarray(policy)[:, None], drawn)).sum(axis=-1)
    dual = temperature * (0.1 + np.log(np.exp(q / temperature).mean(axis=-1)))
    apart = divergence(before, policy)
    expected = fitted + dual + step * apart + step * (0.01 - apart)
    np.testing.assert_allclose(parts["policy"], expected.mean(), rtol=1e-4)


def test_parameters_of_their_own_begin_apart(settings):
    for name, parts in (
        ("d4pg", {"actor"}),
        ("brac", {"actor", "behavior"}),
        ("rabm", {"actor", "behavior", "multipliers"}),
    ):
        learner, _, _ = made(name, settings)
        params = learner.model.init(jax.random.key(0))
        assert params.keys() - {"representation", "dynamics", "prediction"} == parts
        apart = [params, params["actor"]]
        if "behavior" in parts:
            apart += [params["behavior"], params["behavior"]["actor"]]
        weights = [x["representation"]["representation_0"]["w"] for x in apart]
        assert len({np.asarray(x).tobytes() for x in weights}) == len(apart)
    for x in params["multipliers"].values():
        np.testing.assert_allclose(jax.nn.softplus(x), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, method in methods.METHODS.items() if method.suits(Normal(2))]
)
def test_every_method_for_continuous_actions_takes_a_step(settings, name):
    learner, _, _ = made(name, settings)
    unroll, steps = learner.method.window(settings)
    rng = np.random.default_rng(0)
    length = unroll + steps + 1
    batch = Windows(
        observation=jnp.asarray(rng.normal(size=(length, BATCH, 2)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(length, BATCH, 2)), jnp.float32),
        reward=jnp.ones([length, BATCH]),
        discount=jnp.ones([length, BATCH]),
        real=jnp.asarray(np.arange(length)[:, None] < [length, 1, 1, length]),
        known=jnp.asarray(np.arange(length)[:, None] < [length, 2, 2, length]),
    )
    update = jax.jit(learner.update, donate_argnums=0)  # As `Learner.run` does.
    new, found = update(learner.init(0), batch, jax.random.key(0))
    assert all(np.isfinite(x) for x in found.values())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new.params))


def test_the_recorded_action_reaches_the_search(settings, monkeypatch):
    seen = []
    offer = improvement.candidates.offer

    def spy(model, root, key, settings):
        seen.append((root.action, root.recorded))
        return offer(model, root, key, settings)

    monkeypatch.setattr(improvement.candidates, "offer", spy)
    learner, params, target_params = made("mzu", settings)
    batch = windows()
    learner = dataclasses.replace(learner, settings=dataclasses.replace(settings, unroll_steps=1,
                                                                        td_steps=1))  # fmt: skip
    learner.loss(params, target_params, batch, jax.random.key(0))
    ((action, recorded),) = seen
    np.testing.assert_array_equal(action, batch.action.reshape(-1, 2))
    np.testing.assert_array_equal(recorded, batch.real.reshape(-1))


def test_methods_say_which_actions_they_are_for():
    assert not methods.get("rosmo").suits(Normal(1)) and methods.get("rosmo").suits(Discrete(2))
    assert not methods.get("d4pg").suits(Discrete(2)) and methods.get("d4pg").suits(Normal(1))
    assert methods.get("mzu").suits(Normal(1)) and methods.get("mzu").suits(Discrete(2))


def a_spec(**changes):
    return runs.Spec(dataset="none.npz", benchmark="classic", environment="pendulum", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "rosmo"}, "rosmo is not for the continuous actions of 1 dimension of pendulum; "
                              "these methods are: bc, crr, "),
        ({"method": "mzu", "selector": "gumbel"}, "selector gumbel is not for the continuous act"),
        ({"method": "d4pg", "overrides": {"policy_head": "factored"}}, "d4pg follows the gradient"),
        ({"method": "mzu", "diagnose": True}, "diagnose counts the commonest of discrete actions"),
    ],
)  # fmt: skip
def test_what_is_for_other_actions_is_refused(changes, message):
    spec = a_spec(**changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        spec.learner(*spec.of_benchmark.form("pendulum"))


def test_a_continuous_method_on_discrete_actions_is_refused():
    spec = runs.Spec(dataset="none.npz", environment="catch", method="d4pg")
    with pytest.raises(ValueError, match="d4pg is not for the 3 discrete actions of catch"):
        spec.learner(*spec.of_benchmark.form("catch"))


def test_one_width_for_every_layer(settings):
    wide = dataclasses.replace(settings, width=9)
    params = model_of(wide, (2,), Normal(2)).init(jax.random.key(0))
    assert params["representation"]["representation_1"]["b"].shape == (9,)
    assert params["dynamics"]["dynamics_1"]["b"].shape == (9,)
