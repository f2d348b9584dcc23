"""MuZero Unplugged's claims: the rule of each, as `claims` describes rules."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from reproduction import measures, statistics
from reproduction.comparisons import (
    BESIDE,
    Comparison,
    Frames,
    NotRun,
    Rule,
    beside,
    chosen_by_others,
    compare,
    deciding,
    described,
    even,
    frame,
    some,
    tasks,
    together,
)


def _m4(frames: Frames) -> tuple[list[Comparison], str]:
    part, whole = frame(frames, "minatar_fractions"), frame(frames, "minatar_curves")
    rows = beside(part[part["method"] == "mzu"], whole, "environment", "method")
    found = [
        compare(
            f"mzu, {more:.0%} - {less:.0%} of the data",
            some(rows, method="mzu", fraction=more),
            some(rows, method="mzu", fraction=less),
            statistic=statistics.median,
        )
        for more, less in ((1.0, 0.1), (0.1, 0.01))
    ]
    return found, together([one.verdict for one in found])


def _m5(frames: Frames) -> tuple[list[Comparison], str]:
    rows = frame(frames, "minatar_curves")
    rows = some(even(rows[rows["method"] == "mzu"]), method="mzu")

    def share(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean([part.mean(axis=-1) >= 1.0 for part in parts], axis=0)

    estimate = statistics.bootstrap(tasks(rows, "score"), share)
    found = described("share of games with mzu >= online agent", estimate, [rows])
    if found.seeds > 1:
        found = found._replace(verdict="supported" if estimate.value == 1.0 else "not supported")
    return [found], found.verdict


# Columns of MuZero Unplugged's Table 2: name -> which runs.
LOSSES = {
    "supervised 0": {"method": "supervised_q"},  # no model; its values are its critic's
    "supervised 1": {"method": "supervised", "unroll_steps": 1},
    "supervised 5": {"method": "supervised", "unroll_steps": 5},
    "crr 5": {"method": "crr_model", "unroll_steps": 5},
    "reanalyse 5": {"method": "reanalyse", "unroll_steps": 5},
}


def _cells(
    frames: Frames, pairs: Sequence[tuple[str, str, str, str]]
) -> tuple[list[Comparison], str]:
    """Differences between cells of Table 2, each named by its loss and selector."""
    rows = frame(frames, "minatar_selectors")
    found = [
        compare(
            f"{loss} by {selector} - {other_loss} by {other_selector}",
            some(rows, selector=selector, **LOSSES[loss]),
            some(rows, selector=other_selector, **LOSSES[other_loss]),
            statistic=statistics.median,
        )
        for loss, selector, other_loss, other_selector in pairs
    ]
    return found, together([one.verdict for one in found])


def _m3(frames: Frames) -> tuple[list[Comparison], str]:
    sides = ("mzu", "crr", "bc")
    rows = frame(frames, "minatar_curves")
    rows = even(rows[rows["method"].isin(sides)])
    found = [
        compare(
            f"{a} - {b}", some(rows, method=a), some(rows, method=b), statistic=statistics.median
        )
        for a, b in itertools.pairwise(sides)
    ]
    # The paper's own are cells of its Table 2, CRR and BC on MuZero's network, by the policy.
    crr, bc = ("crr 5", "policy"), ("supervised 5", "policy")
    with contextlib.suppress(NotRun):  # They may be to come, and decide nothing.
        cells = _cells(frames, [("reanalyse 5", "search", *crr), (*crr, *bc)])[0]
        found += [one._replace(comparison=one.comparison + BESIDE) for one in cells]
    return found, together([one.verdict for one in deciding(found)])


def _m6(frames: Frames) -> tuple[list[Comparison], str]:
    return _cells(
        frames,
        [
            (loss, "search", loss, other)
            for loss in LOSSES
            if loss != "supervised 0"  # nothing to search with
            for other in ("value", "policy")
        ],
    )


def _m7(frames: Frames) -> tuple[list[Comparison], str]:
    return _cells(
        frames,
        [
            ("reanalyse 5", selector, loss, selector)
            for selector in ("policy", "value", "search")
            for loss in ("crr 5", "supervised 5")
        ],
    )


def _m8(frames: Frames) -> tuple[list[Comparison], str]:
    return _cells(
        frames,
        [
            ("supervised 5", "value", "supervised 1", "value"),
            ("supervised 1", "value", "supervised 0", "critic"),
        ],
    )


def one_game(rows: pd.DataFrame) -> pd.DataFrame:
    """Final rows of the game on which most Reanalyse fractions were tried, of runs that act.

    At a fraction of 1 nothing is acted, which has no place on a logarithmic axis.
    """
    rows = rows[rows["reanalyse_fraction"] < 1.0]
    if rows.empty:
        raise NotRun("nothing was acted")
    count = rows.groupby("environment")["reanalyse_fraction"].nunique()
    return some(even(rows[rows["environment"] == count.idxmax()]))


def _m1(frames: Frames) -> tuple[list[Comparison], str]:
    rows = one_game(frame(frames, "online_fractions"))
    if rows["reanalyse_fraction"].nunique() < 3:
        raise NotRun("a line needs three fractions")
    estimate, _, explained = measures.scaling(rows)
    name = (
        f"slope of return on log10(frames), {rows['environment'].iloc[0]}; a line explains "
        f"{explained:.0%} of the means' variance"
    )
    found = described(name, estimate, [rows])
    if found.verdict == "supported" and explained < 0.8:
        return [found], "undecided"
    return [found], found.verdict


def _m2(frames: Frames) -> tuple[list[Comparison], str]:
    rows = some(even(frame(frames, "online_fractions")))
    budgets = rows.groupby("reanalyse_fraction")["frames"].mean()
    found = []
    for fraction, of in rows.groupby("reanalyse_fraction"):
        estimate = statistics.bootstrap(tasks(of, "score"), statistics.mean)
        games = ", ".join(sorted(of["environment"].unique()))
        steps = f"{budgets[fraction]:,.0f} steps"
        name = f"fraction {fraction:g} ({steps}) - random policy, mean of {games}"
        found.append(described(name, estimate, [of]))
    return found, together([one.verdict for one in found])


def _m12(frames: Frames) -> tuple[list[Comparison], str]:
    """Sizes at which nobody found the treasure, so that there was none to keep, decide nothing."""
    rows = even(frame(frames, "online_exploitation"))
    found = []
    for world, of in rows.groupby("environment"):
        sides = some(of, sources="best 1"), some(of, sources="recent 1")
        name = f"best episodes - most recent, {world}"
        one = compare(name, *sides, "mean_return", statistics.mean)
        if not any((side["best_acted"] > 0).any() for side in sides):
            one = one._replace(verdict="never found")
        found.append(one)
    decided = [one.verdict for one in found if one.verdict != "never found"]
    return found, together(decided) if decided else "undecided"


_TASKS = 5  # of DM Control's nine, which the profile cpu runs


def _m9(frames: Frames) -> tuple[list[Comparison], str]:
    sides = ("mzu", "bc", "d4pg", "brac", "rabm")
    rows = frame(frames, "control_curves")
    rows = even(rows[rows["method"].isin(sides)])
    if (tasks := rows["environment"].nunique()) < _TASKS:
        raise NotRun(f"all methods on {tasks} tasks, and every one is claimed: {_TASKS} are run")
    found = [
        compare(
            f"mzu - bc, {task}", some(of, method="mzu"), some(of, method="bc"), "mean_return",
            statistics.mean,
        )
        for task, of in rows.groupby("environment")
    ]  # fmt: skip
    found += [
        compare(
            f"mzu - {other}, mean of tasks", some(rows, method="mzu"), some(rows, method=other),
            "mean_return", statistics.mean,
        )
        for other in sides[2:]
    ]  # fmt: skip
    return found, together([one.verdict for one in found])


def _m10(frames: Frames) -> tuple[list[Comparison], str]:
    """By action dimensions, of which the paper's Table 3 tells.

    "Most in many dimensions" is told by the last comparison, which the rule does not name.
    """
    main, part = frame(frames, "control_curves"), frame(frames, "control_ablations")
    part = part[(part["method"] == "mzu") & (part["injection"] == 0.0)]
    if part["environment"].nunique() < 3:
        raise NotRun("fewer than three tasks without injection")
    rows = beside(part, main[main["method"] == "mzu"], "environment")
    dims = {"cartpole": 1, "finger": 2, "fish": 5, "manipulator": 5, "walker": 6, "cheetah": 6,
            "humanoid": 21}  # fmt: skip
    found, cells = [], []
    for task in sorted(part["environment"].unique(), key=lambda x: (dims[x.partition(".")[0]], x)):
        of = rows[rows["environment"] == task]
        number = dims[task.partition(".")[0]]
        name = f"with - without, {task} ({number} action dimension{'s' * (number > 1)})"
        sides = (some(of[(of["injection"] > 0.0)]), some(of, injection=0.0))
        found.append(compare(name, *sides, "mean_return", statistics.mean))
        cells.append(sides)
    few, many = (
        [[rows["mean_return"].to_numpy()] for rows in sides] for sides in cells[:: len(cells) - 1]
    )
    name = f"with - without, where dimensions are most less where they are fewest{BESIDE}"
    estimate = statistics.contrast([many[0], few[1]], [many[1], few[0]], statistics.mean)
    more = described(name, estimate, [*cells[0], *cells[-1]])
    return [*found, more], together([one.verdict for one in found])


def _m11(frames: Frames) -> tuple[list[Comparison], str]:
    """The best of several evaluations is above the last by chance alone: the second says more."""
    rows = frame(frames, "control_curves")
    rows = rows[(rows["method"] == "mzu") & (rows["environment"] == "cartpole.swingup")]
    if rows.empty:
        raise NotRun("no mzu on cartpole.swingup")
    by_seed = rows.sort_values("update").groupby("seed")["mean_return"]
    difference = (by_seed.max() - by_seed.last()).to_numpy()
    estimate = statistics.bootstrap([difference], statistics.mean)
    found = described("mzu, best - final checkpoint, cartpole.swingup", estimate, [rows])
    if by_seed.ngroups < 2:
        return [found], found.verdict
    chosen = chosen_by_others(rows).set_index("seed")["mean_return"]
    estimate = statistics.bootstrap([(chosen - by_seed.last()).to_numpy()], statistics.mean)
    name = f"mzu, checkpoint chosen by the other seeds - final, cartpole.swingup{BESIDE}"
    return [found, described(name, estimate, [rows])], found.verdict


RULES: dict[str, Rule] = {
    "M1": _m1,
    "M2": _m2,
    "M3": _m3,
    "M4": _m4,
    "M5": _m5,
    "M6": _m6,
    "M7": _m7,
    "M8": _m8,
    "M9": _m9,
    "M10": _m10,
    "M11": _m11,
    "M12": _m12,
}
