"""ROSMO's claims: the rule of each, as `claims` describes rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from reproduction import measures, statistics
from reproduction.comparisons import (
    BESIDE,
    Comparison,
    Frames,
    NotRun,
    Rule,
    beside,
    compare,
    contrast,
    deciding,
    described,
    even,
    frame,
    of_same_recordings,
    some,
    tasks,
    together,
)
from unplugged.learning.settings import MINATAR

PAPER_METHODS = ("rosmo", "mzu", "crr", "cql", "bc")


def _fractions(frames: Frames) -> pd.DataFrame:
    """The fraction sweep with the full data's runs, at equal updates."""
    part, whole = frame(frames, "bsuite_fractions"), frame(frames, "bsuite_curves")
    return beside(part, whole, "environment", "method")


def _capacities(frames: Frames) -> pd.DataFrame:
    """The capacity sweep with the runs of the preset's size on the same data."""
    part, same = frame(frames, "bsuite_capacity"), frame(frames, "bsuite_fractions")
    return beside(part, same, "environment", "method", "fraction")


def _searches(frames: Frames) -> pd.DataFrame:
    """MuZero Unplugged's search sweep with the preset's runs on its environments and seeds."""
    part = frame(frames, "bsuite_search")
    part, same = part[part["method"] == "mzu"], frame(frames, "bsuite_curves")
    return beside(part, same, "environment", "method", "seed")


def _rosmo_over_mzu(
    rows: pd.DataFrame, column: str, name: Callable[[Any], str]
) -> list[Comparison]:
    """ROSMO against MuZero Unplugged at each value of a setting."""
    return [
        compare(
            f"rosmo - mzu, {name(value)}",
            some(rows, method="rosmo", **{column: value}),
            some(rows, method="mzu", **{column: value}),
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
    found = compare(
        "mzu, 100% - 1% of the data",
        some(rows, method="mzu", fraction=1.0),
        some(rows, method="mzu", fraction=0.01),
    )
    return [found], found.verdict


def _r3(frames: Frames) -> tuple[list[Comparison], str]:
    both = frame(frames, "bsuite_noise"), frame(frames, "bsuite_curves")
    rows = even(
        *(rows[(rows["environment"] == "catch") & rows["method"].isin(("rosmo", "mzu"))]
          for rows in both)
    )  # fmt: skip
    most = 0.5
    cells = {
        (method, noise): some(rows, method=method, noise=noise)
        for noise in (most, 0.0)
        for method in ("rosmo", "mzu")
    }
    found = contrast(
        f"(rosmo - mzu) at noise {most:g} - (rosmo - mzu) at noise 0, catch",
        [cells["rosmo", most], cells["mzu", 0.0]],
        [cells["mzu", most], cells["rosmo", 0.0]],
        "mean_return",
        statistics.mean,
    )
    return [found], found.verdict


def _r4(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _capacities(frames)
    low, high = rows["hidden"].min(), rows["hidden"].max()
    found = compare(
        f"mzu, {high} - {low} hidden units",
        some(rows, method="mzu", hidden=high),
        some(rows, method="mzu", hidden=low),
    )
    return [found], found.verdict


def _r5(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _capacities(frames)
    sizes = sorted(rows["hidden"].unique())
    found = _rosmo_over_mzu(rows, "hidden", lambda x: f"{x} hidden units")
    own = compare(
        f"rosmo, {sizes[-1]} - {sizes[0]} hidden units",
        some(rows, method="rosmo", hidden=sizes[-1]),
        some(rows, method="rosmo", hidden=sizes[0]),
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
        some(rows, num_simulations=many),
        some(rows, num_simulations=few),
    )
    return [found], found.verdict


def _r7(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _searches(frames)
    rows = some(rows, num_simulations=rows["num_simulations"].max())
    seeds = sorted(rows["seed"].unique())
    half = len(seeds) // 2
    chosen_on, measured_on = (
        rows[rows["seed"].isin(part)] for part in (seeds[:half], seeds[half:])
    )
    depths = sorted(rows["search_depth"].dropna().unique())
    if not depths or not half:
        raise NotRun("a limited depth and two seeds are needed")
    by_depth = {
        depth: float(statistics.iqm(tasks(some(chosen_on, search_depth=depth), "score")))
        for depth in depths
    }
    best = max(by_depth, key=lambda depth: by_depth[depth])
    found = compare(
        f"mzu, {rows['num_simulations'].iloc[0]} simulations, depth {best:g} (chosen on other "
        "seeds) - not limited",
        some(measured_on, search_depth=best),
        some(measured_on, search_depth=None),
    )
    return [found], found.verdict


def _papers(frames: Frames, experiment: str) -> pd.DataFrame:
    """The papers' methods at equal updates."""
    rows = frame(frames, experiment)
    return even(rows[rows["method"].isin(PAPER_METHODS)])


def _returns(
    rows: pd.DataFrame, environment: str, first: str, second: str, value: str = "mean_return"
) -> Comparison:
    return compare(
        f"{first} - {second}, {environment}",
        some(rows, environment=environment, method=first),
        some(rows, environment=environment, method=second),
        value,
        statistics.mean,
    )


def _best(
    rows: pd.DataFrame, environment: str, methods: Sequence[str], value: str = "mean_return"
) -> str:
    """The method of highest mean return at the end."""
    means = {
        method: some(rows, environment=environment, method=method)[value].mean()
        for method in methods
    }
    return max(means, key=lambda method: means[method])


def of_table2(frames: Frames) -> str:
    """The experiment that decides about Table 2: where all five methods were trained longest.

    That is `bsuite_curves`, unless they went further in `bsuite_table2`, on the same environments
    and with the same seeds at least.
    """
    names = ("bsuite_curves", "bsuite_table2")
    if not all(name in frames for name in names):
        return names[0]
    rows = {name: _papers(frames, name) for name in names}
    runs = {
        name: set(of[["environment", "method", "seed"]].itertuples(index=False, name=None))
        for name, of in rows.items()
    }
    if runs[names[0]] <= runs[names[1]]:
        return max(names, key=lambda name: rows[name]["update"].max())  # The first, if as long.
    return names[0]


def _r8(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _papers(frames, of_table2(frames))
    others = [method for method in PAPER_METHODS if method != "rosmo"]
    found = [
        _returns(rows, environment, "rosmo", _best(rows, environment, others))
        for environment in ("catch", "mountain_car")
    ]
    return found, together([one.verdict for one in found])


def _r9(frames: Frames) -> tuple[list[Comparison], str]:
    rows = _papers(frames, of_table2(frames))
    rest = [method for method in PAPER_METHODS if method not in ("rosmo", "crr")]
    found = [
        _returns(rows, "cartpole", "crr", "rosmo"),
        _returns(rows, "cartpole", "rosmo", _best(rows, "cartpole", rest)),
    ]
    return found, together([one.verdict for one in found])


def _r10(frames: Frames) -> tuple[list[Comparison], str]:
    """CQL acts greedily and the others draw: beside that, all of them greedily where they did."""
    rows = _papers(frames, "minatar_curves")
    pairs = [*itertools.pairwise(PAPER_METHODS)]
    found = [compare(f"{a} - {b}", some(rows, method=a), some(rows, method=b)) for a, b in pairs]
    if "greedy_score" in rows and rows["greedy_score"].notna().all():
        found += [
            compare(
                f"{a} - {b}, acting greedily{BESIDE}", some(rows, method=a), some(rows, method=b),
                "greedy_score",
            )
            for a, b in pairs
        ]  # fmt: skip
    return found, together([one.verdict for one in deciding(found)])


def _r11(frames: Frames) -> tuple[list[Comparison], str]:
    rows = frame(frames, "minatar_curves")
    rows = even(rows[rows["method"].isin(("rosmo", "mzu"))])
    sides = {method: rows[rows["method"] == method] for method in ("rosmo", "mzu")}
    games = [frozenset(of["environment"]) for of in sides.values()]
    if not games[0] or games[0] != games[1]:
        raise NotRun("no results of rosmo and mzu on the same games")
    pace = measures.seconds_an_update(frame(frames, "minatar_times"))
    if missing := sides.keys() - pace.keys():
        raise NotRun(f"no times of {', '.join(sorted(missing))}")
    estimate = measures.time_ratio(sides["rosmo"], sides["mzu"], pace["rosmo"] / pace["mzu"])
    found = described(
        "time of rosmo / time of mzu to mzu's final IQM score (supported if below 0.25)",
        estimate,
        list(sides.values()),
    )
    decided = "undecided"
    if found.seeds > 1 and estimate.high < 0.25:
        decided = "supported"
    elif found.seeds > 1 and estimate.low > 0.25:
        decided = "not supported"
    return [found._replace(verdict=decided)], decided


def ablations(frames: Frames) -> pd.DataFrame:
    """All runs on the game of the ablations, of whatever experiment, at equal updates.

    Where there are no ablations it is the first game, by name, that has runs on less data.
    """
    names = ("minatar_ablations", "minatar_curves", "minatar_fractions", "minatar_onestep")
    parts = [frames[name] for name in names if name in frames]
    if names[0] in frames:
        games = frames[names[0]]["environment"].unique()
    else:
        games = [frame(frames, "minatar_fractions")["environment"].min()]
    parts = [rows[rows["environment"].isin(games)] for rows in parts]
    return even(*(of_same_recordings(parts[0], rows) for rows in parts))


# From which an ablation departs in one setting.
PRESET = {"fraction": 1.0, "num_simulations": MINATAR.num_simulations,
          "unroll_steps": MINATAR.unroll_steps}  # fmt: skip


def _on_game(rows: pd.DataFrame, first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """The difference in mean return of two kinds of runs on one game."""
    sides = [some(rows, **{**PRESET, **wanted}) for wanted in (first, second)]
    names = [
        " ".join([wanted["method"], *(f"({k} {v})" for k, v in wanted.items() if k != "method")])
        for wanted in (first, second)
    ]
    return compare(" - ".join(names), *sides, "mean_return", statistics.mean)


def _r12(frames: Frames) -> tuple[list[Comparison], str]:
    rows = ablations(frames)
    found = [
        _on_game(rows, {"method": "rosmo", "fraction": part}, {"method": "mzu", "fraction": part})
        for part in (0.1, 0.01)
    ]
    return found, together([one.verdict for one in found])


def _r13(frames: Frames) -> tuple[list[Comparison], str]:
    rows = ablations(frames)
    few = {"num_simulations": 4}
    found = [
        _on_game(rows, {"method": "mzu_q", **few}, {"method": "mzu", **few}),
        _on_game(rows, {"method": "rosmo_sampled"}, {"method": "mzu_q", **few}),
    ]
    return found, together([one.verdict for one in found])


def _r14(frames: Frames) -> tuple[list[Comparison], str]:
    rows = ablations(frames)
    cells = {
        (method, steps): some(rows, **{**PRESET, "method": method, "unroll_steps": steps})
        for method in ("mzu", "rosmo")
        for steps in (5, 1)
    }
    found = contrast(
        "(mzu at 5 - mzu at 1 unroll steps) - (rosmo at 5 - rosmo at 1)",
        [cells["mzu", 5], cells["rosmo", 1]],
        [cells["mzu", 1], cells["rosmo", 5]],
        "mean_return",
        statistics.mean,
    )
    return [found], found.verdict


def _r15(frames: Frames) -> tuple[list[Comparison], str]:
    rows = ablations(frames)
    early = rows[(rows["update"] > 0) & (rows["update"] <= 0.1 * rows["update"].max())]
    if early.empty:
        raise NotRun("no evaluation in the first tenth of training")
    first = _on_game(early, {"method": "behavior"}, {"method": "onestep"})
    found = [
        first._replace(comparison=f"{first.comparison}, after 10% of training"),
        *(
            _on_game(rows, {"method": a}, {"method": b})
            for a, b in (("onestep", "behavior"), ("rosmo", "onestep"), ("rosmo", "behavior"))
        ),
    ]
    return found, together([one.verdict for one in found])


def _r16(frames: Frames) -> tuple[list[Comparison], str]:
    both = frame(frames, "minatar_fractions"), frame(frames, "minatar_onestep")
    rows = even(
        *(rows[(rows["fraction"] == 0.01) & rows["method"].isin(("rosmo", "onestep"))]
          for rows in both)
    )  # fmt: skip
    found = [
        compare(
            "rosmo - onestep, 1% of the data, normalised score",
            some(rows, method="rosmo"),
            some(rows, method="onestep"),
        )
    ]
    for method in ("rosmo", "onestep"):
        gains = measures.best_over_final(rows[rows["method"] == method])
        estimate = statistics.bootstrap(tasks(gains, "gain"), statistics.iqm)
        name = f"{method}, best (update chosen on other seeds) - final, normalised score"
        found.append(described(name, estimate, [gains]))
    return found, together([one.verdict for one in found])


def _r17(frames: Frames) -> tuple[list[Comparison], str]:
    """On both games, and beside that with all acting greedily where they did."""
    inside, others = frame(frames, "minatar_imagined"), frame(frames, "minatar_curves")
    games = sorted(inside["environment"].unique())
    if len(games) < 2:
        raise NotRun(f"morel and combo on {games[0]} alone, of two games")
    rows = beside(inside, others[others["method"] == "rosmo"], "environment")

    def over_best(game: str, value: str) -> Comparison:
        return _returns(rows, game, "rosmo", _best(rows, game, ("morel", "combo"), value), value)

    found = [over_best(game, "mean_return") for game in games]
    if "greedy_return" in rows and rows["greedy_return"].notna().all():
        greedy = [over_best(game, "greedy_return") for game in games]
        found += [
            one._replace(comparison=f"{one.comparison}, acting greedily{BESIDE}") for one in greedy
        ]
    return found, together([one.verdict for one in deciding(found)])


RULES: dict[str, Rule] = {
    "R1": _r1,
    "R2": _r2,
    "R3": _r3,
    "R4": _r4,
    "R5": _r5,
    "R6": _r6,
    "R7": _r7,
    "R8": _r8,
    "R9": _r9,
    "R10": _r10,
    "R11": _r11,
    "R12": _r12,
    "R13": _r13,
    "R14": _r14,
    "R15": _r15,
    "R16": _r16,
    "R17": _r17,
}
