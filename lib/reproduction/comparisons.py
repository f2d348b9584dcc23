"""Differences between sets of runs, with intervals and verdicts: what claims are decided by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from reproduction import statistics

Frames = Mapping[str, pd.DataFrame]


class NotRun(LookupError):
    """A claim needs results that are not there, or not such that they can be compared."""


class Comparison(NamedTuple):
    """One difference that a claim is about.

    Attributes:
      comparison: what is compared.
      value: the difference.
      low: lower end of its 95% interval.
      high: upper end.
      improvement: probability that a run of the first side scores above one of the second,
        over tasks; nan where the comparison is not of two sides.
      runs: runs of both sides.
      seeds: the fewest seeds of a task and side.
      updates: updates at which the runs are compared.
      environments: of which environments, joined by commas.
      verdict: by the interval.
    """

    comparison: str
    value: float
    low: float
    high: float
    improvement: float
    runs: int
    seeds: int
    updates: int
    environments: str
    verdict: str


# From the frames of all experiments to a claim's comparisons and its verdict.
Rule = Callable[[Frames], tuple[list[Comparison], str]]


# How the names of comparisons end that are shown beside those a rule states.
BESIDE = " (decides nothing)"


def deciding(found: Iterable[Comparison]) -> list[Comparison]:
    """Those that a claim is decided by."""
    return [one for one in found if not one.comparison.endswith(BESIDE)]


def verdict(estimate: statistics.Estimate) -> str:
    """Where the interval lies."""
    if estimate.low > 0.0:
        return "supported"
    return "not supported" if estimate.high < 0.0 else "undecided"


def together(verdicts: Sequence[str]) -> str:
    """All supported: supported; any not: not supported; else undecided."""
    if all(one == "supported" for one in verdicts):
        return "supported"
    return "not supported" if "not supported" in verdicts else "undecided"


def with_interval(found: Comparison | statistics.Estimate) -> str:
    """A difference and its interval, in as many digits as show on which side of 0 a bound lies."""
    numbers = (found.value, found.low, found.high)
    digits = 4 if 0.0 < max(map(abs, numbers)) < 0.01 else 2
    while digits < 4 and any(0.0 < abs(x) < 0.5 * 10.0**-digits for x in numbers):
        digits += 1
    value, low, high = (f"{x:+.{digits}f}" for x in numbers)
    return f"{value} [{low}, {high}]"


def frame(frames: Frames, name: str) -> pd.DataFrame:
    """An experiment's rows; `NotRun` if there are none."""
    if name not in frames:
        raise NotRun(f"no results of {name}")
    return frames[name]


_RUN = (
    "environment", "noise", "fraction", "method", "selector", "overrides", "seed",
    "reanalyse_fraction", "sources",
)  # fmt: skip


def _runs(rows: pd.DataFrame) -> DataFrameGroupBy:
    """Rows by run."""
    return rows.groupby([name for name in _RUN if name in rows], dropna=False)


def even(*parts: pd.DataFrame, within: Sequence[str] = ()) -> pd.DataFrame:
    """Evaluations of several experiments, up to the last update that every run has reached.

    Args:
      parts: evaluations.
      within: every run with the same values in these columns; none: every run of all.
    """
    rows = pd.concat(parts)
    reached = _runs(rows)["update"].transform("max")
    if within:
        reached = reached.groupby([rows[name] for name in within]).transform("min")
    else:
        reached = reached.min()
    return rows[rows["update"] <= reached]


def chosen_by_others(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's row at the update of the highest mean return over the other seeds, the first."""
    found = []
    for _, of in rows.groupby(["environment", "method"]):
        returns = of.pivot(index="update", columns="seed", values="mean_return")
        for seed in returns:
            update = returns.drop(columns=seed).mean(axis=1).idxmax()
            found.append(of[(of["seed"] == seed) & (of["update"] == update)])
    return pd.concat(found, ignore_index=True)


def thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """As many evaluations of every run, evenly spaced from its first to its last."""
    runs = [run.sort_values("update") for _, run in _runs(rows)]
    fewest = min(map(len, runs))
    return pd.concat(
        run.iloc[np.linspace(len(run) - 1, 0, fewest).round().astype(int)] for run in runs
    )


def shared(
    rows: pd.DataFrame, games: Iterable[str], by: Sequence[str] = ("method",)
) -> pd.DataFrame:
    """Rows that can be told by one number over games, of a study some of whose runs are to come.

    Args:
      rows: evaluations.
      games: all games of the study.
      by: columns whose values make what is compared.

    Returns:
      Rows of what was run on all games. Where nothing was, those of the games on which everything
      was run; where there is no such game, of the game of most.
    """
    if rows.empty:
        return rows
    there = rows.groupby(list(by), dropna=False)["environment"].agg(set)
    whole = there[[found >= set(games) for found in there]]
    if len(whole):
        keys = rows.set_index(list(by)).index
        return rows[keys.isin(whole.index) & rows["environment"].isin(set(games)).to_numpy()]
    common = set.intersection(*there) or {there.explode().value_counts().sort_index().idxmax()}
    return rows[rows["environment"].isin(common)]


def at_ends(rows: pd.DataFrame) -> pd.DataFrame:
    """Evaluations at each update at which some method ends, of all methods."""
    rows = even(rows, within=["method"])
    return rows[rows["update"].isin(rows.groupby("method")["update"].max())]


def of_same_recordings(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Others, less those that learned from another recording of an environment than `rows` did."""
    if "recording" not in rows or "recording" not in others:
        return others
    there = rows.groupby("environment")["recording"].agg(set)
    kept = [
        recording in there.get(environment, {recording})
        for environment, recording in zip(others["environment"], others["recording"])
    ]
    return others[kept]


def beside(rows: pd.DataFrame, others: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Rows and those of another experiment with the same values in `columns`, made `even`.

    Others that learned from another recording are left out, see `of_same_recordings`.
    """
    for column in columns:
        others = others[others[column].isin(rows[column])]
    return even(rows, of_same_recordings(rows, others))


def some(rows: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows with these values (None: missing), at their last update; of no values, of all rows.

    Raises:
      NotRun: if there are none.
    """
    for column, value in wanted.items():
        rows = rows[rows[column].isna()] if value is None else rows[rows[column] == value]
    if rows.empty:
        raise NotRun("no results of " + ", ".join(f"{k} {v}" for k, v in wanted.items()))
    return rows[rows["update"] == rows["update"].max()]


def tasks(rows: pd.DataFrame, value: str) -> list[Any]:
    """A column's values by environment."""
    return [of[value].to_numpy() for _, of in rows.groupby("environment", sort=True)]


def compare(
    name: str,
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    value: str = "score",
    statistic: statistics.Statistic = statistics.iqm,
) -> Comparison:
    """The difference of a statistic between two sets of final rows, over environments.

    Args:
      name: what is compared.
      ours: rows of one side, a row a run.
      theirs: rows of the other side, of the same environments.
      value: the column compared.
      statistic: over the runs of all environments.

    Raises:
      NotRun: if the two sides are not of the same environments, at the same update, or a side has
        several runs of one environment and seed.
    """
    found = contrast(name, [ours], [theirs], value, statistic)
    sides = tasks(ours, value), tasks(theirs, value)
    return found._replace(improvement=statistics.probability_of_improvement(*sides).value)


def contrast(
    name: str,
    plus: Sequence[pd.DataFrame],
    minus: Sequence[pd.DataFrame],
    value: str = "score",
    statistic: statistics.Statistic = statistics.iqm,
) -> Comparison:
    """The sum of a statistic over some sets of final rows less that over others.

    Arguments and errors as for `compare`, with any number of sets on each side.
    """
    cells = [*plus, *minus]
    if any(rows.duplicated(["environment", "seed"]).any() for rows in cells):
        raise NotRun(
            f"{name}: a side has several runs of one environment and seed, as of other settings; "
            "compare those of one setting"
        )
    if len({frozenset(rows["environment"]) for rows in cells}) != 1:
        raise NotRun(f"{name}: the sides are of different environments")
    if len({frozenset(rows["update"]) for rows in cells}) != 1:
        raise NotRun(f"{name}: the sides are at different updates")
    if any(len(of_same_recordings(cells[0], rows)) < len(rows) for rows in cells):
        raise NotRun(f"{name}: the sides learned from different recordings of an environment")
    sides = ([tasks(rows, value) for rows in side] for side in (plus, minus))
    return described(name, statistics.contrast(*sides, statistic), cells)


def described(
    name: str, estimate: statistics.Estimate, cells: Sequence[pd.DataFrame]
) -> Comparison:
    """A comparison of an estimate made from these rows, decided by where the interval lies.

    Of a single seed nothing is decided.
    """
    seeds = min(int(rows.groupby("environment")["seed"].nunique().min()) for rows in cells)
    updates = min(int(rows["update"].max()) for rows in cells)
    environments = ", ".join(sorted({name for rows in cells for name in rows["environment"]}))
    decided = verdict(estimate) if seeds > 1 else "undecided"
    return Comparison(
        name, *estimate[:3], float("nan"), estimate.samples, seeds, updates, environments, decided
    )


def decay_differences(final: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Staircase less continuous decay of the learning rate, where both were run equally long.

    Args:
      final: evaluations with `score` and `decay`, one of each run and update.

    Returns:
      The IQM score by method and update, and the mean return by method, update and environment:
      `method`, `update`, of the second `environment`, and the columns of a `Comparison`.
    """
    scores, returns = [], []
    for (method, update), of in final.groupby(["method", "update"]):
        sides = dict(list(of.groupby("decay")))
        if len(sides) < 2:
            continue
        about = {"method": method, "update": update}
        name = f"{method} at {update:,}"
        found = compare(name, sides["staircase"], sides["continuous"])
        scores.append({**about, **found._asdict()})
        for environment, runs in of.groupby("environment"):
            sides = dict(list(runs.groupby("decay")))
            found = compare(
                f"{name}, {environment}", sides["staircase"], sides["continuous"],
                "mean_return", statistics.mean,
            )  # fmt: skip
            returns.append({**about, "environment": environment, **found._asdict()})
    columns = ["method", "update", *Comparison._fields]
    return (
        pd.DataFrame(scores, columns=columns),
        pd.DataFrame(returns, columns=[*columns[:2], "environment", *columns[2:]]),
    )
