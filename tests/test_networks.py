"""The residual perceptrons beside plain NumPy, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import compiled, random_params
from unplugged.model import networks
from unplugged.model.actions import Discrete, Normal

SIZES = dict(representation=(6, 8), dynamics=(5, 7, 8), prediction=(4, 3))
SHAPE, BINS = (2, 3), 5


def made(actions):
    return compiled(
        networks.mlp_resnet(observation_shape=SHAPE, actions=actions, num_bins=BINS, **SIZES)
    )


def linear(p, x):
    w = p["w"] if len(p["w"]) == x.shape[-1] else p["w"].T
    return x @ w + p["b"]


def norm(p, x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * p["scale"] + p["offset"]


def relu(x):
    return np.maximum(x, 0.0)


def test_residual_perceptrons_are_what_plain_numpy_makes_of_them():
    model = made(Normal(2))
    params = random_params(model, 0)
    rng = np.random.default_rng(1)
    observation = rng.normal(size=(9, *SHAPE)).astype(np.float32)
    action = rng.uniform(-1, 1, (9, 2)).astype(np.float32)
    p = jax.tree.map(np.asarray, params)

    h = p["representation"]
    x = np.tanh(norm(h["first_norm"], linear(h["first"], observation.reshape(9, -1))))
    y = relu(norm(h["block_0_norm"], x))
    y = relu(norm(h["block_0_0_norm"], linear(h["block_0_0"], y)))
    state = norm(h["norm"], x + linear(h["block_0_out"], y))
    np.testing.assert_allclose(model.represent(params, observation), state, atol=1e-4)

    def trunk(of, stem, x):
        for i in range(2):
            x = relu(norm(of[f"{stem}_{i}_norm"], linear(of[f"{stem}_{i}"], x)))
        return x

    g = p["dynamics"]
    x = linear(g["state"], relu(state)) + action @ g["action"]["w"]
    x = relu(norm(g["action_norm"], x))
    x = relu(norm(g["dynamics_0_norm"], linear(g["dynamics_0"], x)))
    following = norm(g["norm"], state + linear(g["dynamics_out"], x))
    reward = linear(g["reward"], trunk(g, "reward_trunk", relu(following)))
    found = model.dynamics(params, jnp.asarray(state), jnp.asarray(action))
    np.testing.assert_allclose(found[0], reward, atol=1e-4)
    np.testing.assert_allclose(found[1], following, atol=1e-4)

    f = p["prediction"]
    x = trunk(f, "trunk", relu(state))
    found = model.predict(params, jnp.asarray(state))
    np.testing.assert_allclose(found[0], linear(f["policy"], x), atol=1e-4)
    np.testing.assert_allclose(found[1], linear(f["value"], x), atol=1e-4)
    assert found[0].shape == (9, 4) and found[1].shape == (9, BINS)


def test_residual_perceptrons_unroll_all_actions_as_one_by_one():
    model = made(Discrete(3))
    params = random_params(model, 0)
    state = model.represent(params, jax.random.normal(jax.random.key(0), (2, 4, *SHAPE)))
    reward, following = model.dynamics(params, state[:, :, None], jnp.arange(3)[None, None])
    for a in range(3):
        alone = model.dynamics(params, state, jnp.full([2, 4], a))
        np.testing.assert_allclose(reward[:, :, a], alone[0], atol=1e-5)
        np.testing.assert_allclose(following[:, :, a], alone[1], atol=1e-5)


def test_scale_of_an_observation_hardly_matters_to_normalised_layers():
    model = made(Discrete(3))
    params = random_params(model, 0)
    params["representation"]["first"]["b"] *= 0.0
    observation = jax.random.normal(jax.random.key(0), (4, *SHAPE))
    near, far = (model.represent(params, c * observation) for c in (10.0, 1000.0))
    np.testing.assert_allclose(near, far, atol=1e-3)


def test_states_of_two_sizes_are_refused():
    sizes = {**SIZES, "dynamics": (5, 7)}
    with pytest.raises(ValueError, match="representation ends in 8 units and dynamics in 7"):
        networks.mlp_resnet(observation_shape=SHAPE, actions=Discrete(3), num_bins=BINS, **sizes)
