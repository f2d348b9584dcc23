"""Our own questions, stated in results/claims_own.csv: the rule of each, as `claims` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from reproduction import statistics, trust
from reproduction.comparisons import (
    Comparison,
    Frames,
    NotRun,
    Rule,
    beside,
    compare,
    described,
    even,
    frame,
    some,
)
from reproduction.comparisons import together as all_of

EARLY = 10_000  # updates at which O1 is decided as well
END, SHORT, CONTROL = 100_000, 30_000, 20_000  # those of the longer runs, of some, on DM Control
FIVE, THREE = 5, 3  # games over which the rules take the IQM; tasks, or seeds
BSUITE = ("catch", "cartpole", "mountain_car")
START = {"cloning_updates": 0, "rescale_values": True}


def preset(rows: pd.DataFrame) -> dict[str, Any]:
    """What the study's main rows have where an experiment on the start has something else."""
    return {**START, "target_interval": rows["target_interval"].mode().iloc[0]}


def _changed(
    frames: Frames,
    experiment: str,
    method: str,
    change: Mapping[str, Any],
    games: int,
    updates: int,
    *,
    instead: str | None = None,
) -> Comparison:
    """A method with one change less the method of the main rows, on the games of the changed runs.

    Args:
      frames: rows by experiment.
      experiment: where the changed runs are.
      method: the main rows' method.
      change: setting and value.
      games: of how many games the rule speaks.
      updates: at which update.
      instead: the changed runs' method, if that is the change.
    """
    main, part = frame(frames, "pixels_curves"), frame(frames, experiment)
    own = preset(main)
    main = main[main["method"] == method]
    part = part[part["method"] == (instead or method)]
    for name, value in {**own, **change}.items():
        part = part[part[name] == value]
    rows = beside(part, main, "environment")
    rows = rows[rows["update"] <= updates]
    what = " ".join(f"{name} {value}" for name, value in change.items())
    name = f"{instead or method}{' at ' + what if what else ''} - {method}"
    found = compare(
        f"{name}, after {updates:,} updates",
        some(rows, method=instead or method, **{**own, **change}),
        some(rows, method=method, **own),
    )
    return _on(games, updates, found)


def _on(number: int, updates: int, found: Comparison) -> Comparison:
    """The comparison, if it is of as many games, or tasks, and updates as its rule speaks of."""
    if (there := len(found.environments.split(", "))) < number:
        raise NotRun(f"{found.comparison}: of {number} games {there} are there")
    if found.updates < updates:
        raise NotRun(f"{found.comparison}: {found.updates:,} of {updates:,} updates are there")
    return found


def _o1(frames: Frames) -> tuple[list[Comparison], str]:
    change = {"cloning_updates": 2_000}
    found = [
        _changed(frames, "pixels_start", "rosmo", change, FIVE, updates) for updates in (EARLY, END)
    ]
    return found, all_of([one.verdict for one in found])


def _judged(found: Comparison, refuted: bool, borne_out: bool) -> Comparison:
    """A comparison decided otherwise than by which side of 0 its interval lies on."""
    if found.seeds < 2:
        return found
    verdict = "not supported" if refuted else "supported" if borne_out else "undecided"
    return found._replace(verdict=verdict)


def _o2(frames: Frames) -> tuple[list[Comparison], str]:
    change = {"target_interval": 200}
    found = [
        _changed(frames, "pixels_start", "rosmo", change, FIVE, END),
        _changed(frames, "pixels_search", "mzu", change, THREE, SHORT),
    ]
    found = [_judged(one, one.high < 0.0, one.low > -0.05) for one in found]
    return found, all_of([one.verdict for one in found])


def _o3(frames: Frames) -> tuple[list[Comparison], str]:
    found = _changed(frames, "pixels_start", "rosmo", {}, FIVE, END, instead="rosmo_recorded")
    return [found], found.verdict


def _o4(frames: Frames) -> tuple[list[Comparison], str]:
    found = _changed(frames, "pixels_search", "mzu", {"rescale_values": False}, THREE, SHORT)
    return [found], found.verdict


def _o5(frames: Frames) -> tuple[list[Comparison], str]:
    rows = frame(frames, "pixels_curves")
    rows = even(rows[rows["method"].isin(("cql", "crr", "rosmo", "mzu"))])
    found = [
        compare(
            f"cql - {other}, both greedy",
            some(rows, method="cql"),
            some(rows, method=other),
            "greedy_score",
            statistics.iqm,
        )
        for other in ("crr", "rosmo", "mzu")
    ]
    # That CQL is ahead speaks against the claim.
    found = [_judged(_on(FIVE, END, one), one.low > 0.0, one.low <= 0.0) for one in found]
    verdicts = {one.verdict for one in found}
    return found, verdicts.pop() if len(verdicts) == 1 else "undecided"


def _o6(frames: Frames) -> tuple[list[Comparison], str]:
    rows = pd.concat([frame(frames, name) for name in trust.ESTIMATED])
    measures = trust.measured(rows, estimates={"fqe_return": "fitted Q"})
    worlds = set(measures["environment"])
    if not worlds.issuperset(BSUITE) or len(worlds) < FIVE:
        raise NotRun(f"estimates of {', '.join(sorted(worlds)) or 'nothing'} alone")
    names = {
        "rank": "rank correlation of fitted Q evaluation and return",
        "regret": "regret of the best by fitted Q evaluation",
    }
    rank, regret = (
        described(
            name,
            statistics.bootstrap(
                [of[measure].to_numpy() for _, of in measures.groupby("environment")],
                statistics.mean,
            ),
            [rows[rows["environment"].isin(worlds)]],
        )
        for measure, name in names.items()
    )
    rank = _judged(rank, rank.high < 0.5, rank.low > 0.5)
    regret = _judged(regret, False, regret.value < 0.1)
    return [rank, regret], regret.verdict if rank.verdict == "supported" else rank.verdict


def _o7(frames: Frames) -> tuple[list[Comparison], str]:
    rows = frame(frames, "sepsis_curves")
    sides = ("crr", "cql"), ("rosmo", "mzu")
    rows = rows[(rows["environment"] == "sepsis") & rows["method"].isin(sum(sides, ()))]
    if rows.empty:
        raise NotRun("no results of sepsis")
    rows = even(rows)
    best = [
        max((some(rows, method=name) for name in names), key=lambda of: of["exact_return"].mean())
        for names in sides
    ]
    found = compare(
        " - ".join(of["method"].iloc[0] for of in best), *best, "exact_return", statistics.mean
    )
    if found.seeds < FIVE:
        raise NotRun(f"{found.seeds} seeds, and the rule speaks of {FIVE}")
    return [found], found.verdict


def _o8(frames: Frames) -> tuple[list[Comparison], str]:
    rows = frame(frames, "control_curves")
    rows = even(rows[rows["method"].isin(("rosmo_sampled", "bc", "mzu"))])
    sides = some(rows, method="rosmo_sampled")
    cloning, search = (
        compare(
            f"rosmo_sampled - {other}", sides, some(rows, method=other), "mean_return",
            statistics.mean,
        )
        for other in ("bc", "mzu")
    )  # fmt: skip
    cloning, search = (_on(FIVE, CONTROL, one) for one in (cloning, search))
    found = [cloning, _judged(search, False, search.high >= 0.0)]
    if cloning.verdict == "supported" and search.high < 0.0:
        return found, "undecided"
    return found, cloning.verdict


RULES: dict[str, Rule] = {
    "O1": _o1, "O2": _o2, "O3": _o3, "O4": _o4, "O5": _o5, "O6": _o6, "O7": _o7, "O8": _o8,
}  # fmt: skip
