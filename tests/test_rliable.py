"""Our aggregate scores beside rliable's, where it is installed.

rliable 1.2.0 does not import beside this project's pandas, so this needs an environment of
its own, without the rest of the tests' set-up:

    python -m venv other && other/bin/pip install rliable==1.2.0 "arch<8" "pandas<3" pytest
    PYTHONPATH=lib other/bin/python -m pytest --noconftest tests/test_rliable.py
"""

import numpy as np
import pytest

from reproduction import statistics

pytestmark = pytest.mark.slow

metrics = pytest.importorskip("rliable.metrics", exc_type=ImportError)
library = pytest.importorskip("rliable.library", exc_type=ImportError)

RUNS, TASKS = 12, 4


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(loc, 0.5, size=(RUNS, TASKS)) for name, loc in (("a", 0.8), ("b", 0.5))
    }


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (statistics.iqm, "aggregate_iqm"),
        (statistics.mean, "aggregate_mean"),
        (statistics.median, "aggregate_median"),
        (statistics.optimality_gap, "aggregate_optimality_gap"),
    ],
)
def test_aggregates_and_their_intervals(scores, ours, theirs):
    function = getattr(metrics, theirs)
    estimate = statistics.bootstrap(list(scores["a"].T), ours, resamples=20_000)
    np.testing.assert_allclose(estimate.value, function(scores["a"]), rtol=1e-12)
    _, intervals = library.get_interval_estimates(
        {"a": scores["a"]}, lambda x: np.array([function(x)]), reps=20_000
    )
    np.testing.assert_allclose([estimate.low, estimate.high], intervals["a"][:, 0], atol=0.015)


def test_probability_of_improvement(scores):
    estimate = statistics.probability_of_improvement(list(scores["a"].T), list(scores["b"].T))
    theirs = metrics.probability_of_improvement(scores["a"], scores["b"])
    np.testing.assert_allclose(estimate.value, theirs, rtol=1e-12)


def test_performance_profile(scores):
    thresholds = np.linspace(-0.5, 2.0, 11)
    profile = statistics.performance_profile(list(scores["a"].T), thresholds, resamples=5_000)
    theirs, intervals = library.create_performance_profile(
        {"a": scores["a"]}, thresholds, reps=5_000
    )
    np.testing.assert_allclose(profile["value"], theirs["a"], rtol=1e-12)
    np.testing.assert_allclose(profile["low"], intervals["a"][0], atol=0.04)
    np.testing.assert_allclose(profile["high"], intervals["a"][1], atol=0.04)
