import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from unplugged.model.actions import (
    SMALLEST_SCALE,
    SMALLEST_UNIFORM,
    Discrete,
    Factored,
    Normal,
    described,
    draw,
    of_metadata,
)

NORMAL = jnp.array([0.3, -2.0, 0.1, -1.0])  # two dimensions: means, then scales
FACTORED = jnp.array([0.0, 1.0, -1.0, 2.0, 0.5, 0.0])  # two dimensions of three bins


def moments():
    raw = np.asarray(NORMAL, np.float64)
    return np.tanh(raw[:2]), np.log1p(np.exp(raw[2:])) + SMALLEST_SCALE


def probabilities():
    logits = np.asarray(FACTORED, np.float64).reshape(2, 3)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_log_probabilities_are_those_of_scipy():
    action = jnp.array([0.9, -1.0])
    mean, scale = moments()
    expected = scipy.stats.norm.logpdf(np.asarray(action), mean, scale).sum()
    np.testing.assert_allclose(Normal(2).log_prob(NORMAL, action), expected, rtol=1e-5)
    nearest = [2, 0]  # of the bins -1, 0 and 1
    expected = np.log(probabilities()[[0, 1], nearest]).sum()
    np.testing.assert_allclose(Factored(2, 3).log_prob(FACTORED, action), expected, rtol=1e-5)
    logits = jnp.array([0.5, 2.0, -1.0])
    np.testing.assert_allclose(
        Discrete(3).log_prob(logits, jnp.array(1)), jax.nn.log_softmax(logits)[1], rtol=1e-6
    )


def test_log_probabilities_integrate_to_1():
    grid = jnp.linspace(-12.0, 12.0, 20_001)[:, None]
    density = jnp.exp(Normal(1).log_prob(jnp.array([0.4, 1.2]), grid))
    np.testing.assert_allclose(np.trapezoid(density, grid[:, 0]), 1.0, rtol=1e-4)
    centres = jnp.array([[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0)])
    total = jnp.exp(Factored(2, 3).log_prob(FACTORED, centres)).sum()
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    total = jnp.exp(Discrete(3).log_prob(jnp.array([0.5, 2.0, -1.0]), jnp.arange(3))).sum()
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_draws_follow_the_policy():
    drawn = draw(Normal(2), jax.random.key(0), NORMAL, 40_000)
    assert drawn.shape == (40_000, 2)
    mean, scale = moments()
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * scale.max() / 200)
    np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.02)
    drawn = draw(Factored(2, 3), jax.random.key(0), FACTORED, 40_000)
    assert set(np.unique(drawn)) == {-1.0, 0.0, 1.0}
    for centre, expected in zip((-1.0, 0.0, 1.0), probabilities().T):
        np.testing.assert_allclose((drawn == centre).mean(axis=0), expected, atol=0.01)
    uniform = (jnp.arange(30_000) + 0.5) / 30_000
    taken = Discrete(3).sample(jnp.array([0.5, 2.0, -1.0]), uniform)
    shares = np.bincount(taken, minlength=3) / 30_000
    np.testing.assert_allclose(shares, jax.nn.softmax(jnp.array([0.5, 2.0, -1.0])), atol=1e-4)
    one = draw(Normal(2), jax.random.key(0), jnp.stack([NORMAL] * 3))
    assert one.shape == (3, 2) and len(np.unique(one)) == 6


@pytest.mark.parametrize("space", [Normal(2), Factored(2, 3)])
def test_the_outermost_draws_are_finite(space):
    parameters = NORMAL if isinstance(space, Normal) else FACTORED
    for uniform in (SMALLEST_UNIFORM, 1.0 - 2.0**-24):
        assert np.isfinite(space.sample(parameters, jnp.full([2], uniform))).all()


def test_divergences():
    other = jnp.array([-0.5, 1.0, 0.7, -2.0])
    mean, scale = moments()
    raw = np.asarray(other, np.float64)
    mean_too, scale_too = np.tanh(raw[:2]), np.log1p(np.exp(raw[2:])) + SMALLEST_SCALE
    expected = (
        np.log(scale_too / scale) + (scale**2 + (mean - mean_too) ** 2) / (2 * scale_too**2) - 0.5
    ).sum()
    np.testing.assert_allclose(Normal(2).kl(NORMAL, other), expected, rtol=1e-5)
    uniform = jnp.zeros(6)
    expected = (probabilities() * np.log(probabilities() * 3)).sum()
    np.testing.assert_allclose(Factored(2, 3).kl(FACTORED, uniform), expected, rtol=1e-5)
    for space, parameters in ((Normal(2), NORMAL), (Factored(2, 3), FACTORED)):
        np.testing.assert_allclose(space.kl(parameters, parameters), 0.0, atol=1e-6)


def test_modes_and_encodings():
    np.testing.assert_allclose(Normal(2).mode(NORMAL), moments()[0], rtol=1e-6)
    np.testing.assert_array_equal(Factored(2, 3).mode(FACTORED), [0.0, -1.0])
    assert Discrete(3).mode(jnp.array([0.5, 2.0, -1.0])) == 1
    for space in (Normal(2), Factored(2, 3)):  # The environment clips, and so does the model.
        np.testing.assert_array_equal(space.encode(jnp.array([1.5, -0.2])), jnp.array([1.0, -0.2]))
    np.testing.assert_array_equal(Discrete(3).encode(jnp.array(2)), [0.0, 0.0, 1.0])


@pytest.mark.parametrize("space", [Discrete(3), Normal(2), Factored(2, 3)])
def test_uniform_actions_fill_the_space(space):
    drawn = space.uniform(jax.random.key(0), (2_000,))
    assert drawn.shape == (2_000, *space.shape) and drawn.dtype == space.dtype
    if isinstance(space, Normal):
        assert drawn.min() < -0.99 and drawn.max() > 0.99 and np.abs(drawn).max() <= 1.0
    else:  # Each action, or bin, as often.
        _, counts = np.unique(drawn, return_counts=True)
        np.testing.assert_allclose(counts / drawn.size, np.full(3, 1 / 3), atol=0.03)


def test_a_space_of_metadata_and_in_words():
    assert of_metadata({"num_actions": 3}) == Discrete(3)
    assert of_metadata({"action_dims": 2}) == Normal(2)
    assert described(Discrete(3)) == "3 discrete actions"
    assert described(Normal(1)) == "continuous actions of 1 dimension"
    assert described(Factored(2, 3)) == "continuous actions of 2 dimensions"
