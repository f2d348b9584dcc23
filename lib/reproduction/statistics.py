"""Aggregate scores and their intervals (Agarwal et al., 2021); arrays and tidy frames only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # Its parts load at first use.

# A function of the scores of each task's runs, each [..., runs].
Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]

# So many that no claim's verdict depends on the resampling's seed (six tried); of 2,000 R5's did.
RESAMPLES = 50_000


class Estimate(NamedTuple):
    """A statistic with the ends of its 95% interval, and of how many samples."""

    value: float
    low: float
    high: float
    samples: int


def iqm(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """Interquartile mean: the mean of all runs without the lowest and highest quarter."""
    return scipy.stats.trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1)


def mean(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over tasks of the mean over runs."""
    return np.mean([task.mean(axis=-1) for task in tasks], axis=0)


def median(tasks: Sequence[np.ndarray]) -> np.ndarray:
    """The median over tasks of the mean over runs."""
    return np.median([task.mean(axis=-1) for task in tasks], axis=0)


def optimality_gap(tasks: Sequence[np.ndarray], *, target: float = 1.0) -> np.ndarray:
    """How far runs fall short of `target` on average; what lies above it does not count."""
    short = np.maximum(target - np.concatenate(tasks, axis=-1), 0.0)
    return short.mean(axis=-1)


def interval(
    statistic: Callable[..., np.ndarray],
    *samples: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A statistic of several samples, each resampled by itself, with its 95% interval.

    Args:
      statistic: function of the samples, each [..., runs], along their last axis.
      *samples: runs of one task and method each; a single run stays as it is.
      resamples: bootstrap resamples; the interval is the percentile interval.
      seed: seed of the resampling.

    Raises:
      ValueError: if there is no sample, or one without a run.
    """
    data = [np.asarray(sample, float) for sample in samples]
    if not data or any(len(sample) == 0 for sample in data):
        raise ValueError("a bootstrap needs at least one task, and one run of each")
    runs = sum(len(sample) for sample in data)
    value = float(statistic(*data))
    if all(np.ptp(sample) == 0 for sample in data):
        return Estimate(value, value, value, runs)
    single = [len(sample) == 1 for sample in data]

    def resampled(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*(x[..., :1] if one else x for x, one in zip(drawn, single)))

    found = scipy.stats.bootstrap(
        [np.repeat(x, 2) if one else x for x, one in zip(data, single)],  # SciPy wants two.
        resampled,
        n_resamples=resamples,
        vectorized=True,
        axis=-1,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), runs)


def bootstrap(tasks: Sequence[np.ndarray], statistic: Statistic = iqm, **options: int) -> Estimate:
    """A statistic over the runs of all tasks, with its stratified 95% bootstrap interval.

    Args:
      tasks: for each task, the scores of its runs, which are resampled within the task.
      statistic: function of the list of tasks' scores, each [..., runs].
      **options: see `interval`.
    """
    return interval(lambda *parts: statistic(parts), *tasks, **options)


def contrast(
    plus: Sequence[Sequence[np.ndarray]],
    minus: Sequence[Sequence[np.ndarray]],
    statistic: Statistic = iqm,
    **options: int,
) -> Estimate:
    """The sum of a statistic over some sets of runs less that over others, with its interval.

    Args:
      plus: sets of runs, each as `bootstrap` takes it; all are resampled independently.
      minus: the same.
      statistic: see `bootstrap`.
      **options: see `interval`.
    """
    sets = [*plus, *minus]
    ends = np.cumsum([0, *map(len, sets)])

    def of(*parts: np.ndarray) -> np.ndarray:
        values = [statistic(parts[a:b]) for a, b in itertools.pairwise(ends)]
        return sum(values[: len(plus)]) - sum(values[len(plus) :])

    return interval(of, *(task for tasks in sets for task in tasks), **options)


def false_alarms(
    tasks: int, runs: int, statistic: Statistic = iqm, *, draws: int = 2_000, seed: int = 0
) -> float:
    """Share of 95% intervals of a difference that leave out 0 though nothing differs.

    Args:
      tasks: tasks of each side.
      runs: runs of each task and side; all scores are drawn from one normal distribution.
      statistic: see `bootstrap`.
      draws: pairs of sides drawn, each with an interval of 1,000 resamples.
      seed: seed of the drawing.
    """
    rng = np.random.default_rng(seed)
    out = 0
    for draw, scores in enumerate(rng.normal(size=(draws, 2, tasks, runs))):
        ours, theirs = map(list, scores)
        found = contrast([ours], [theirs], statistic, resamples=1_000, seed=draw)
        out += not found.low <= 0.0 <= found.high
    return out / draws


def probability_of_improvement(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], **options: int
) -> Estimate:
    """P(a run of ours scores above a run of theirs), ties half, averaged over tasks.

    Args:
      ours: for each task, the scores of our runs.
      theirs: for each task, in the same order, the scores of theirs.
      **options: see `interval`.

    Raises:
      ValueError: if the two have different numbers of tasks.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} tasks on one side and {len(theirs)} on the other")
    cut = len(ours)

    def of(*parts: np.ndarray) -> np.ndarray:
        wins = [
            np.mean(np.sign(a[..., :, None] - b[..., None, :]) / 2 + 0.5, axis=(-2, -1))
            for a, b in zip(parts[:cut], parts[cut:])
        ]
        return np.mean(wins, axis=0)

    return interval(of, *ours, *theirs, **options)


def _share_above(tasks: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    return np.mean(np.concatenate(tasks, axis=-1) > threshold, axis=-1)


def performance_profile(
    tasks: Sequence[np.ndarray], thresholds: np.ndarray, **options: int
) -> pd.DataFrame:
    """Share of runs that score above each threshold: `threshold`, `value`, `low`, `high`."""
    rows = []
    for threshold in thresholds:
        share = bootstrap(tasks, lambda parts, t=threshold: _share_above(parts, t), **options)
        rows.append({"threshold": threshold, **share._asdict()})
    return pd.DataFrame(rows)


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
