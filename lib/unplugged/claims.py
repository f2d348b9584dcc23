"""What the papers claim, decided by our committed results through rules fixed before any run.

`results/claims.csv` states each claim and its rule. A rule here turns tidy frames into
comparisons, each with a 95% interval and a verdict, and those into the claim's verdict:
"supported" if the interval lies above 0, "not supported" if below, else "undecided", unless
the claim's own rule says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unplugged import statistics

Frames = Mapping[str, pd.DataFrame]
PAPER_METHODS = ("rosmo", "mzu", "crr", "cql", "bc")


class NotRun(LookupError):
    """A claim needs results that are not there."""


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
    verdict: str


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


def _frame(frames: Frames, name: str) -> pd.DataFrame:
    if name not in frames:
        raise NotRun(f"no results of {name}")
    return frames[name]


def _some(rows: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows with these values, at their last update."""
    for column, value in wanted.items():
        rows = rows[rows[column].isna()] if value is None else rows[rows[column] == value]
    if rows.empty:
        raise NotRun("no results of " + ", ".join(f"{k} {v}" for k, v in wanted.items()))
    return rows[rows["update"] == rows["update"].max()]


def _tasks(rows: pd.DataFrame, value: str) -> list[np.ndarray]:
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
      NotRun: if the two sides are not of the same environments.
    """
    if set(ours["environment"]) != set(theirs["environment"]):
        raise NotRun(f"{name}: the two sides are of different environments")
    sides = _tasks(ours, value), _tasks(theirs, value)
    estimate = statistics.difference(*sides, statistic)
    improvement = statistics.probability_of_improvement(*sides).value
    return _comparison(name, estimate, improvement, [ours, theirs])


def _comparison(
    name: str, estimate: statistics.Estimate, improvement: float, sides: Sequence[pd.DataFrame]
) -> Comparison:
    seeds = min(int(rows.groupby("environment")["seed"].nunique().min()) for rows in sides)
    updates = min(int(rows["update"].max()) for rows in sides)
    return Comparison(
        name, *estimate[:3], improvement, estimate.samples, seeds, updates, verdict(estimate)
    )


def at_equal_updates(curves: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """The rows of longer runs up to the last update of others, to be compared with them."""
    return curves[curves["update"] <= like["update"].max()]


def _fractions(frames: Frames) -> pd.DataFrame:
    """The fraction sweep with the full data's runs, at equal updates."""
    part = _frame(frames, "fractions")
    whole = at_equal_updates(_frame(frames, "curves"), part)
    return pd.concat([part, whole[whole["environment"].isin(part["environment"])]])


def _capacities(frames: Frames) -> pd.DataFrame:
    """The capacity sweep with the runs of the preset's size on the same data."""
    part = _frame(frames, "capacity")
    same = _frame(frames, "fractions")
    same = same[same["fraction"] == part["fraction"].iloc[0]]
    same = same[same["environment"].isin(part["environment"])]
    return pd.concat([part, at_equal_updates(same, part)])


def _searches(frames: Frames) -> pd.DataFrame:
    """MuZero Unplugged's search sweep with the preset's runs on its environments and seeds."""
    part = _frame(frames, "search")
    same = at_equal_updates(_frame(frames, "curves"), part)
    same = same[same["environment"].isin(part["environment"]) & same["seed"].isin(part["seed"])]
    rows = pd.concat([part, same])
    return rows[rows["method"] == "mzu"]


def _rosmo_over_mzu(
    rows: pd.DataFrame, column: str, name: Callable[[Any], str]
) -> list[Comparison]:
    """ROSMO against MuZero Unplugged at each value of a setting."""
    return [
        compare(
            f"rosmo - mzu, {name(value)}",
            _some(rows, method="rosmo", **{column: value}),
            _some(rows, method="mzu", **{column: value}),
        )
        for value in sorted(rows[column].unique())
    ]


def _r1(frames: Frames) -> tuple[list[Comparison], str]:
    found = _rosmo_over_mzu(_fractions(frames), "fraction", lambda x: f"{x:.0%} of the data")
    verdicts = [one.verdict for one in found]
    if "not supported" in verdicts:
        return found, "not supported"
    most = verdicts.count("supported") > len(verdicts) / 2
    return found, "supported" if most else "undecided"


def _r2(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _fractions(frames)
    low, high = rows["fraction"].min(), rows["fraction"].max()
    found = compare(
        f"mzu, {high:.0%} - {low:.0%} of the data",
        _some(rows, method="mzu", fraction=high),
        _some(rows, method="mzu", fraction=low),
    )
    return [found], found.verdict


def _r3(frames: Frames) -> tuple[list[Comparison], str]:
    noisy = _frame(frames, "noise")
    rows = pd.concat([noisy, at_equal_updates(_frame(frames, "curves"), noisy)])
    rows = rows[rows["environment"] == "catch"]
    most = rows["noise"].max()
    cells = [
        _some(rows, method=method, noise=noise)
        for noise in (most, 0.0)
        for method in ("rosmo", "mzu")
    ]
    estimate = statistics.interval(
        lambda a, b, c, d: (
            (a.mean(axis=-1) - b.mean(axis=-1)) - (c.mean(axis=-1) - d.mean(axis=-1))
        ),
        *(cell["mean_return"].to_numpy() for cell in cells),
    )
    name = f"(rosmo - mzu) at noise {most:g} - (rosmo - mzu) at noise 0, catch"
    found = _comparison(name, estimate, float("nan"), cells)
    return [found], found.verdict


def _r4(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _capacities(frames)
    low, high = rows["hidden"].min(), rows["hidden"].max()
    found = compare(
        f"mzu, {high} - {low} hidden units",
        _some(rows, method="mzu", hidden=high),
        _some(rows, method="mzu", hidden=low),
    )
    return [found], found.verdict


def _r5(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _capacities(frames)
    sizes = sorted(rows["hidden"].unique())
    found = _rosmo_over_mzu(rows, "hidden", lambda x: f"{x} hidden units")
    own = compare(
        f"rosmo, {sizes[-1]} - {sizes[0]} hidden units",
        _some(rows, method="rosmo", hidden=sizes[-1]),
        _some(rows, method="rosmo", hidden=sizes[0]),
    )
    stable = own.low <= 0.0 <= own.high
    overall = together([one.verdict for one in found])
    if overall == "supported" and not stable:
        overall = "undecided"
    return [*found, own._replace(verdict="stable" if stable else "not stable")], overall


def _r6(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _searches(frames)
    rows = rows[rows["search_depth"].isna()]
    few, many = rows["num_simulations"].min(), rows["num_simulations"].max()
    found = compare(
        f"mzu, {many} - {few} simulations, depth not limited",
        _some(rows, num_simulations=many),
        _some(rows, num_simulations=few),
    )
    return [found], found.verdict


def _r7(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _searches(frames)
    rows = _some(rows, num_simulations=rows["num_simulations"].max())
    seeds = sorted(rows["seed"].unique())
    half = len(seeds) // 2
    chosen_on, measured_on = (
        rows[rows["seed"].isin(part)] for part in (seeds[:half], seeds[half:])
    )
    depths = sorted(rows["search_depth"].dropna().unique())
    if not depths or not half:
        raise NotRun("a limited depth and two seeds are needed")
    by_depth = {
        depth: float(statistics.iqm(_some(chosen_on, search_depth=depth)["score"].to_numpy()))
        for depth in depths
    }
    best = max(by_depth, key=lambda depth: by_depth[depth])
    found = compare(
        f"mzu, {rows['num_simulations'].iloc[0]} simulations, depth {best:g} (chosen on other "
        "seeds) - not limited",
        _some(measured_on, search_depth=best),
        _some(measured_on, search_depth=None),
    )
    return [found], found.verdict


def _returns(rows: pd.DataFrame, environment: str, first: str, second: str) -> Comparison:
    return compare(
        f"{first} - {second}, {environment}",
        _some(rows, environment=environment, method=first),
        _some(rows, environment=environment, method=second),
        "mean_return",
        statistics.mean,
    )


def _best(rows: pd.DataFrame, environment: str, methods: Sequence[str]) -> str:
    """The method of highest mean return at the end."""
    means = {
        method: _some(rows, environment=environment, method=method)["mean_return"].mean()
        for method in methods
    }
    return max(means, key=lambda method: means[method])


def _r8(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _frame(frames, "curves")
    others = [method for method in PAPER_METHODS if method != "rosmo"]
    found = [
        _returns(rows, environment, "rosmo", _best(rows, environment, others))
        for environment in ("catch", "mountain_car")
    ]
    return found, together([one.verdict for one in found])


def _r9(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _frame(frames, "curves")
    rest = [method for method in PAPER_METHODS if method not in ("rosmo", "crr")]
    found = [
        _returns(rows, "cartpole", "crr", "rosmo"),
        _returns(rows, "cartpole", "rosmo", _best(rows, "cartpole", rest)),
    ]
    return found, together([one.verdict for one in found])


RULES: dict[str, Callable[[Frames], tuple[list[Comparison], str]]] = {
    "R1": _r1,
    "R2": _r2,
    "R3": _r3,
    "R4": _r4,
    "R5": _r5,
    "R6": _r6,
    "R7": _r7,
    "R8": _r8,
    "R9": _r9,
}


def decide(claims: pd.DataFrame, frames: Frames) -> pd.DataFrame:
    """Every claim with its comparisons and verdicts, one row a comparison.

    Args:
      claims: `results/claims.csv`.
      frames: experiment ("curves", "fractions", "noise", "capacity", "search") -> rows of
        `reports.load`; those not there make their claims "not run".

    Returns:
      The claims' columns, those of `Comparison` (empty where not run), and `claim_verdict`.
    """
    rows = []
    for claim in claims.to_dict("records"):
        try:
            if claim["id"] not in RULES:
                raise NotRun("no rule yet")
            found, overall = RULES[claim["id"]](frames)
        except NotRun:
            rows.append({**claim, "claim_verdict": "not run"})
            continue
        stated = claim.pop("comparison")
        for one in found:
            rows.append(
                {**claim, "stated_comparison": stated, **one._asdict(), "claim_verdict": overall}
            )
    columns = [
        *[c for c in claims.columns if c != "comparison"], "stated_comparison",
        *Comparison._fields, "claim_verdict",
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    missing = frame["claim_verdict"] == "not run"
    frame.loc[missing, "stated_comparison"] = frame.loc[missing, "comparison"]
    frame.loc[missing, "comparison"] = None
    counts = {name: "Int64" for name in ("runs", "seeds", "updates") if name in frame}
    return frame.reindex(columns=columns).astype(counts)


def sentence(decided: pd.DataFrame, claim: str) -> str:
    """A claim's verdict and what was measured, for a caption."""
    rows = decided[decided["id"] == claim]
    overall = rows["claim_verdict"].iloc[0]
    if overall == "not run":
        return f"{claim}: not run in this profile."
    measured = "; ".join(
        f"{row.comparison}: {row.value:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        for row in rows.itertuples()
    )
    return f"{claim} {overall} ({rows['measure'].iloc[0]}; {measured})."
