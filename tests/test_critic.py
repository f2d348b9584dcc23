"""How the outputs of the scalar head are read as returns, on numbers worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_reference as reference
from conftest import NUM_ACTIONS, OBSERVATION, random_params
from unplugged import methods, objectives, transforms
from unplugged.model import critic
from unplugged.model.actions import Discrete
from unplugged.runs.spec import model_of

CRITICS = ["scalar", "heads", "quantiles", "implicit"]


@pytest.fixture
def observation():
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, *OBSERVATION)), jnp.float32)


@pytest.mark.parametrize("kind, number", zip(CRITICS, [1, 4, 5, 4]))
def test_a_fresh_critic(small, observation, kind, number):
    model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), kind)
    assert model.support.num_bins == critic.num_outputs(kind, small) == number
    params = model.init(jax.random.key(0))
    outputs = critic.critic_logits(model, params, model.represent(params, observation))
    assert outputs.shape == (4, NUM_ACTIONS, number)
    if kind in ("heads", "implicit"):  # Equal heads would stay equal.
        assert (np.ptp(outputs, axis=-1) > 0.0).all()
    else:
        np.testing.assert_array_equal(outputs, 0.0)
    if kind == "implicit":
        quantiles = critic.implicit_quantiles(params, outputs, jnp.full([4, 1, 3], 0.5))
        np.testing.assert_array_equal(quantiles, np.zeros([4, NUM_ACTIONS, 3]))


def test_a_random_head_is_drawn_as_other_layers_are(small):
    wide = dataclasses.replace(small, prediction=(400,), num_heads=50)
    model = model_of(wide, OBSERVATION, Discrete(NUM_ACTIONS), "heads")
    head = model.init(jax.random.key(0))["dynamics"]["reward"]
    other = model_of(wide, OBSERVATION, Discrete(NUM_ACTIONS)).init(jax.random.key(0))
    assert head["w"].shape == (50, 400) and not head["b"].any()
    # A normal distribution of standard deviation 1 / sqrt(400), cut off at twice that.
    np.testing.assert_allclose(np.std(head["w"]), 0.05 * 0.88, rtol=0.02)
    assert 0.09 < np.abs(head["w"]).max() <= 0.1
    trunk = "reward_trunk_0"  # What is not redrawn is what the networks start with.
    same = model.init(jax.random.key(0))["dynamics"][trunk]["w"]
    np.testing.assert_array_equal(same, other["dynamics"][trunk]["w"])


def test_heads_that_cannot_be_drawn_are_named(model):
    def renamed(key):
        params = model.init(key)
        scalar = params["dynamics"].pop("reward")
        return {**params, "dynamics": {**params["dynamics"], "scalar": scalar}}

    other = critic.with_critic(dataclasses.replace(model, init=renamed), "heads")
    with pytest.raises(ValueError, match=r"no head of the name 'reward'.*scalar; name their"):
        other.init(jax.random.key(0))


def test_one_action_is_its_row_of_all(small, model, observation):
    params = random_params(model, 0)
    state = model.represent(params, observation)
    action = jnp.array([0, 2, 1, 1])
    one = critic.critic_logits(model, params, state, action)
    every = critic.critic_logits(model, params, state)
    np.testing.assert_allclose(one, every[jnp.arange(4), action], rtol=1e-4, atol=1e-5)


def test_returns_are_their_mean_and_have_no_code():
    returns = transforms.Returns(3)
    np.testing.assert_allclose(returns.scalar(jnp.array([[1.0, 2.0, 600.0]])), [201.0])
    assert returns.limit == float("inf")
    np.testing.assert_allclose(transforms.Support(20).limit, 107.0, atol=0.1)
    with pytest.raises(TypeError, match="no two-hot code; regress them"):
        returns.two_hot(jnp.zeros(2))


def test_implicit_quantiles_equal_numpy(small, observation):
    model = model_of(small, OBSERVATION, Discrete(NUM_ACTIONS), "implicit")
    params = random_params(model, 3)
    features = critic.critic_logits(model, params, model.represent(params, observation))
    tau = np.random.default_rng(1).uniform(size=(4, 1, 6)).astype(np.float32)
    found = critic.implicit_quantiles(params, features, tau)
    for i, a, n in np.ndindex(4, NUM_ACTIONS, 6):
        wanted = reference.implicit_quantile(params["quantiles"], features[i, a], tau[i, 0, n])
        np.testing.assert_allclose(found[i, a, n], wanted, rtol=1e-4, atol=1e-5)
    drawn = jax.random.uniform(jax.random.key(4), [4, 1, 32])
    np.testing.assert_allclose(
        critic.implicit_values(params, features, jax.random.key(4)),
        np.mean(critic.implicit_quantiles(params, features, drawn), axis=-1), rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    "threshold, allowed",
    [(0.0, [1, 1, 1]), (0.3, [1, 1, 0]), (0.7, [1, 0, 0]), (1.0, [1, 0, 0])],
)
def test_likely_actions(threshold, allowed):
    """Next to the likeliest, the others are 0.6 and 0.2 times as likely."""
    logits = jnp.log(jnp.array([0.5, 0.3, 0.1])) + 7.0
    np.testing.assert_array_equal(critic.likely(logits, threshold), np.array(allowed, bool))


def test_a_critic_that_planning_cannot_learn_is_refused():
    with pytest.raises(ValueError, match='give an objective that reads "heads"'):
        methods.Method(summary="", selector="policy", operator=len, critic="heads")
    with pytest.raises(ValueError, match="unknown critic 'head': did you mean 'heads'"):
        methods.Method(
            summary="", selector="critic", critic="head", objective=objectives.q_learning
        )
