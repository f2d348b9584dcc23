import jax
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from unplugged import transforms

SUPPORTS = [transforms.Support(20), transforms.Support(601), transforms.Support(6, spacing=0.5)]
finite = st.floats(-1e4, 1e4, width=32)
settings.register_profile("here", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("here")


@given(finite)
def test_squash_equals_rlax_and_inverts(x):
    np.testing.assert_allclose(
        transforms.squash(x), rlax.signed_hyperbolic(np.float32(x)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(transforms.unsquash(transforms.squash(x)), x, rtol=1e-3, atol=1e-5)


@given(finite, finite)
def test_squash_is_odd_and_keeps_order(x, y):
    assert transforms.squash(-x) == -transforms.squash(x)
    if x < y:
        assert transforms.squash(x) <= transforms.squash(y)


@pytest.mark.parametrize("support", SUPPORTS)
@given(x=finite)
def test_two_hot_is_a_distribution_on_two_neighbours_with_the_right_mean(support, x):
    code = np.asarray(support.two_hot(np.float32(x)))
    assert code.min() >= 0.0
    np.testing.assert_allclose(code.sum(), 1.0, rtol=1e-4)
    hot = np.flatnonzero(code)
    assert len(hot) <= 2 and np.ptp(hot) <= 1
    limit = float(support.bins[-1])
    expected = np.clip(transforms.squash(x), -limit, limit)
    np.testing.assert_allclose(code @ np.asarray(support.bins), expected, atol=1e-3)


@pytest.mark.parametrize("support", SUPPORTS[:2])
@given(x=finite)
def test_two_hot_equals_rlax(support, x):
    limit = float(support.bins[-1])
    expected = rlax.transform_to_2hot(
        rlax.signed_hyperbolic(np.float32(x)), -limit, limit, support.num_bins
    )
    np.testing.assert_allclose(support.two_hot(np.float32(x)), expected, atol=2e-4)


def test_both_ends_of_the_bsuite_bins():
    support = transforms.Support(20)
    np.testing.assert_allclose(support.bins[np.array([0, 9, 10, 19])], [-9.5, -0.5, 0.5, 9.5])
    for x, hot in ((1e6, 19), (-1e6, 0)):
        np.testing.assert_allclose(support.two_hot(x), np.eye(20)[hot])
    # The largest discounted return of BSuite, about 84, lies inside: h(84) = 8.3.
    np.testing.assert_allclose(transforms.squash(84.0), 8.30, atol=0.01)
    logits = np.log(np.asarray(support.two_hot(np.float32(84.0))) + 1e-30)
    np.testing.assert_allclose(support.scalar(logits), 84.0, rtol=1e-3)


def test_uniform_logits_mean_zero():
    for support in SUPPORTS:
        np.testing.assert_allclose(support.scalar(np.zeros(support.num_bins)), 0.0, atol=1e-4)


def test_gradient_of_the_scalar_is_finite_at_zero():
    gradient = jax.grad(lambda x: transforms.Support(20).scalar(x))(np.zeros(20, np.float32))
    assert np.isfinite(gradient).all()
