"""Aggregate scores and their intervals (Agarwal et al., 2021); arrays and tidy frames only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

Statistic = Callable[..., np.ndarray]


class Estimate(NamedTuple):
    """A statistic with the ends of its 95% interval, and of how many samples."""

    value: float
    low: float
    high: float
    samples: int


def iqm(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean of what is left without the lowest and highest quarter."""
    return scipy.stats.trim_mean(x, 0.25, axis=axis)


def mean(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """The arithmetic mean."""
    return np.mean(x, axis=axis)


def bootstrap(
    tasks: Sequence[np.ndarray],
    statistic: Statistic = iqm,
    *,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """A statistic over all runs of all tasks, with its stratified 95% bootstrap interval.

    Runs (seeds) are resampled within each task, with replacement; the interval is the
    percentile interval.

    Args:
      tasks: for each task, the scores of its runs. Each [runs of the task].
      statistic: function of (scores, axis) on the scores of all tasks, pooled.
      resamples: bootstrap resamples.
      seed: seed of the resampling.

    Raises:
      ValueError: if there is no task, or a task without a run.
    """
    samples = [np.asarray(task, float) for task in tasks]
    if not samples or any(len(task) == 0 for task in samples):
        raise ValueError("a bootstrap needs at least one task, and one run of each")
    pooled = np.concatenate(samples)
    value = float(statistic(pooled, axis=-1))
    if all(np.ptp(task) == 0 for task in samples):
        return Estimate(value, value, value, len(pooled))
    rng = np.random.default_rng(seed)
    resampled = [rng.choice(task, size=(resamples, len(task))) for task in samples]
    spread = statistic(np.concatenate(resampled, axis=1), axis=1)
    low, high = np.quantile(spread, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(pooled))


def normalise(returns: pd.Series, random: pd.Series, online: pd.Series) -> pd.Series:
    """(return - random) / (online - random): 0 is the random policy, 1 the online agent."""
    return (returns - random) / (online - random)


def summarise(
    frame: pd.DataFrame,
    value: str,
    by: Sequence[str],
    *,
    statistic: Statistic = mean,
    task: str | None = None,
) -> pd.DataFrame:
    """One row a group: `value`, `low`, `high`, `runs` of a column over the group's runs.

    Args:
      frame: tidy rows, one per run within a group (and task).
      value: the column to summarise.
      by: columns that make the groups.
      statistic: see `bootstrap`.
      task: column that separates tasks within a group; None: one task.
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=True):
        tasks = [part[value].to_numpy() for _, part in group.groupby(task)] if task else [
            group[value].to_numpy()
        ]  # fmt: skip
        estimate = bootstrap(tasks, statistic)
        rows.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,))),
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "runs": estimate.samples,
            }
        )
    return pd.DataFrame(rows)
