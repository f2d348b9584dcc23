import numpy as np
import pandas as pd
import pytest
import scipy.stats

from reproduction import statistics


def test_iqm_by_hand():
    # A quarter is cut at both ends: 1 and 100 of four; the mean of 2 and 3 is left.
    assert statistics.iqm([np.array([100.0, 3.0]), np.array([1.0, 2.0])]) == 2.5
    np.testing.assert_allclose(statistics.iqm([np.arange(24).reshape(2, 12)]), [5.5, 17.5])


def test_bootstrap_resamples_within_tasks():
    # Two tasks far apart, each without spread: nothing can vary, however seeds are resampled.
    apart = statistics.bootstrap([np.zeros(5), np.full(5, 10.0)], statistics.mean)
    assert apart == (5.0, 5.0, 5.0, 10)
    # Hardly any spread: resampled as one task, the tasks would mix.
    nearly = statistics.bootstrap([np.arange(5) * 1e-3, 10.0 + np.arange(5) * 1e-3])
    assert 4.999 < nearly.low < nearly.high < 5.006


def test_bootstrap_interval_has_about_the_right_width_and_is_seeded():
    rng = np.random.default_rng(0)
    tasks = [rng.normal(size=200) for _ in range(2)]
    estimate = statistics.bootstrap(tasks, statistics.mean)
    assert estimate == statistics.bootstrap(tasks, statistics.mean)
    assert estimate.low < estimate.value < estimate.high
    np.testing.assert_allclose(estimate.high - estimate.low, 2 * 1.96 / np.sqrt(400), rtol=0.15)


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(1)
    tasks = [rng.normal(loc, 1.0, size=8) for loc in (0, 1, 5)]
    theirs = scipy.stats.bootstrap(
        tasks, lambda *x, axis: statistics.iqm(x),
        n_resamples=4_000, method="percentile", vectorized=True, rng=rng,
    ).confidence_interval  # fmt: skip
    ours = statistics.bootstrap(tasks, statistics.iqm, resamples=4_000)
    np.testing.assert_allclose(ours[1:3], theirs, atol=0.05)


def test_bootstrap_of_one_run_and_of_none():
    estimate = statistics.bootstrap([np.array([1.0]), np.array([2.0, 3.0, 4.0])], statistics.mean)
    assert estimate.value == 2.0 and estimate.samples == 4  # Each task counts the same.
    assert 1.5 <= estimate.low < estimate.high <= 2.5
    with pytest.raises(ValueError, match="at least one task"):
        statistics.bootstrap([])
    with pytest.raises(ValueError, match="at least one"):
        statistics.bootstrap([np.array([])])


def test_mean_median_and_optimality_gap_by_hand():
    tasks = [np.array([0.5, 2.0]), np.array([1.0]), np.array([0.0, 0.2, 0.4])]
    # Means over runs: 1.25, 1 and 0.2.
    assert statistics.median(tasks) == 1.0
    np.testing.assert_allclose(statistics.mean(tasks), 2.45 / 3)
    np.testing.assert_allclose(statistics.optimality_gap(tasks), (0.5 + 1.0 + 0.8 + 0.6) / 6)
    stacked = [np.stack([task, task + 1]) for task in tasks]
    np.testing.assert_allclose(statistics.median(stacked), [1.0, 2.0])


def test_difference_by_hand_and_of_one_with_itself():
    ours, theirs = [np.array([3.0, 3.0]), np.array([5.0])], [np.array([1.0, 1.0]), np.array([2.0])]
    apart = statistics.contrast([ours], [theirs], statistics.mean)
    np.testing.assert_allclose(apart[:3], 4.0 - 1.5)
    x = [np.random.default_rng(0).normal(size=6)]
    same = statistics.contrast([x], [x], statistics.mean)
    assert same.value == 0.0 and same.low < 0.0 < same.high and same.samples == 12


def test_interval_of_a_difference_has_the_width_that_theory_gives():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 300), rng.normal(0.0, 2.0, 300)
    estimate = statistics.contrast([[a]], [[b]], statistics.mean)
    np.testing.assert_allclose(estimate.high - estimate.low, 2 * 1.96 * np.sqrt(5 / 300), rtol=0.15)


def test_interval_hardly_depends_on_the_seed_of_the_resampling():
    tasks = list(np.random.default_rng(0).normal(size=(3, 5)))  # With 2,000: by 0.03.
    ends = np.array([statistics.bootstrap(tasks, seed=seed)[1:3] for seed in range(5)])
    assert np.all(np.ptp(ends, axis=0) < 0.015)


def test_intervals_of_few_runs_leave_out_zero_too_often_as_theory_says():
    # By the mean the bootstrap's variance is (n - 1) / n of the unbiased one, which is t's: of 2
    # runs P(|t| > 1.96 sqrt(1/2)) with 2 degrees of freedom is 0.30, of 40 runs hardly above 0.05.
    few, many = (statistics.false_alarms(1, n, statistics.mean, draws=300) for n in (2, 40))
    assert 0.22 < few < 0.40 and 0.02 < many < 0.09


def test_probability_of_improvement_by_hand():
    ours, theirs = [np.array([1.0, 2.0]), np.array([0.0])], [np.array([1.0, 0.0]), np.array([3.0])]
    # Task one: 1 against 1 is half, 1 against 0, 2 against 1, 2 against 0 are wins: 3.5 of 4.
    value = statistics.probability_of_improvement(ours, theirs).value
    assert value == pytest.approx((3.5 / 4 + 0.0) / 2)
    with pytest.raises(ValueError, match="2 tasks on one side and 1"):
        statistics.probability_of_improvement(ours, theirs[:1])


def test_performance_profile_falls_from_all_to_none():
    tasks = [np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.7])]
    profile = statistics.performance_profile(tasks, np.array([-1.0, 0.5, 0.6, 1.0]))
    np.testing.assert_allclose(profile["value"], [1.0, 0.4, 0.4, 0.0])
    assert (profile["low"] <= profile["value"]).all() and (
        profile["value"] <= profile["high"]
    ).all()


def test_summarise_and_normalise():
    frame = pd.DataFrame(
        {
            "method": ["a"] * 4 + ["b"] * 2,
            "task": ["x", "x", "y", "y", "x", "y"],
            "return": [0.0, 2.0, 10.0, 20.0, 4.0, 4.0],
        }
    )
    rows = statistics.summarise(frame, "return", ["method"], statistic=statistics.mean, task="task")
    assert rows["value"].tolist() == [8.0, 4.0] and rows["runs"].tolist() == [4, 2]
    score = statistics.normalise(pd.Series([0.0, 5.0]), pd.Series([-5.0, 0.0]), pd.Series([5.0, 4]))
    assert score.tolist() == [0.5, 1.25]
