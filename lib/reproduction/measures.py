"""What claims measure that is no plain difference: a best checkpoint, times, a slope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reproduction import statistics
from reproduction.comparisons import NotRun


def best_over_final(rows: pd.DataFrame) -> pd.DataFrame:
    """What the best update has over the last, run by run, chosen by the other seeds' mean score.

    Args:
      rows: evaluations of one method, several seeds an environment.

    Returns:
      `environment`, `seed`, `update` and `gain` in score.
    """
    found = []
    for environment, of in rows[rows["update"] > 0].groupby("environment"):
        scores = of.pivot(index="update", columns="seed", values="score")
        for seed in scores.columns:
            others = scores.drop(columns=seed)
            if others.empty:
                raise NotRun("one seed cannot be chosen for by others")
            best = others.mean(axis=1).idxmax()
            gain = scores.loc[best, seed] - scores[seed].iloc[-1]
            found.append(
                {"environment": environment, "seed": seed, "update": of["update"].max(),
                 "gain": gain}
            )  # fmt: skip
    return pd.DataFrame(found)


def seconds_an_update(times: pd.DataFrame) -> dict[str, float]:
    """Training time of an update of each method: each environment's median, their mean.

    Args:
      times: rows of `timing.measure`.
    """
    medians = times.groupby(["method", "environment"])["seconds"].median()
    return medians.groupby("method").mean().to_dict()


def pace_of_runs(rows: pd.DataFrame) -> dict[str, float]:
    """The same from the runs' own clocks, whatever else the machine did: `rows` of training."""
    ends = rows[
        (rows["update"] > 0) & (rows["update"] == rows.groupby("run")["update"].transform("max"))
    ]
    return seconds_an_update(ends.assign(seconds=ends["seconds"] / ends["update"]))


def time_ratio(fast: pd.DataFrame, slow: pd.DataFrame, pace: float) -> statistics.Estimate:
    """Training time of one method to the other's final IQM score, over that of the other.

    Of both, the time at which the IQM first reaches that score, between two evaluations by a
    straight line. The interval resamples seeds within environments; a resample in which the
    score is not reached counts as infinitely long.

    Args:
      fast: evaluations of one method: `environment`, `seed`, `update`, `score`.
      slow: evaluations of the other, at the same updates.
      pace: seconds an update of the one over those of the other.

    Raises:
      NotRun: if the score is no higher than where either began: nothing was learned to time.
    """

    def curves(rows: pd.DataFrame) -> list[np.ndarray]:
        return [
            of.pivot(index="update", columns="seed", values="score").to_numpy()
            for _, of in rows.groupby("environment")
        ]

    ours, theirs = curves(fast), curves(slow)
    updates = np.sort(fast["update"].unique())
    never = 1e9  # Percentiles of infinities are no numbers.

    def reached(curve: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The update at which a curve [updates, ...] first comes to the goal [...]."""
        above = curve[1:] >= goal
        before = np.argmax(above, axis=0)
        low, high = (np.take_along_axis(curve, x[None], axis=0)[0] for x in (before, before + 1))
        share = np.clip((goal - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        at = updates[before] + share * (updates[before + 1] - updates[before])
        return np.where(above.any(axis=0), np.maximum(at, 1.0), never)

    def iqms(chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        picks = [x.astype(int) for x in chosen]
        return tuple(
            statistics.iqm([of[:, pick] for of, pick in zip(side, part)])
            for side, part in ((ours, picks[: len(ours)]), (theirs, picks[len(ours) :]))
        )

    def ratio(*chosen: np.ndarray) -> np.ndarray:
        fast_curve, slow_curve = iqms(chosen)
        goal = slow_curve[-1]
        quickly = reached(fast_curve, goal)
        return np.where(quickly < never, quickly * pace / reached(slow_curve, goal), never)

    begun = iqms([np.arange(of.shape[1]) for of in (*ours, *theirs)])
    if begun[1][-1] <= max(curve[0] for curve in begun):
        raise NotRun("the final score is no higher than the first")
    estimate = statistics.interval(ratio, *(np.arange(of.shape[1]) for of in (*ours, *theirs)))
    found = [np.inf if x > 1e6 else x for x in estimate[:3]]
    return statistics.Estimate(*found, estimate.samples)


def scaling(rows: pd.DataFrame) -> tuple[statistics.Estimate, float, float]:
    """A line through final score against the logarithm of environment steps, on one game.

    Args:
      rows: final rows: `reanalyse_fraction`, `frames`, `mean_return`.

    Returns:
      The slope with its interval, the intercept, and the share of the variance of the
      fractions' means that the line explains. Steps are in log10; seeds are resampled within
      a fraction.
    """
    cells = [of for _, of in rows.groupby("reanalyse_fraction")]
    x = np.array([np.log10(of["frames"]).mean() for of in cells])

    def line(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = ((x - x.mean()) @ means) / ((x - x.mean()) @ (x - x.mean()))
        return slope, means.mean(axis=0) - slope * x.mean()

    def slope(*parts: np.ndarray) -> np.ndarray:
        return line(np.stack([part.mean(axis=-1) for part in parts]))[0]

    estimate = statistics.interval(slope, *(of["mean_return"].to_numpy() for of in cells))
    means = np.array([of["mean_return"].mean() for of in cells])
    fitted, intercept = line(means)
    residual = means - (intercept + fitted * x)
    spread = ((means - means.mean()) ** 2).sum()
    return estimate, float(intercept), float(1 - (residual**2).sum() / spread) if spread else 0.0
