"""Tables that stand beside figures, the papers' numbers beside ours, from tidy frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from reproduction import claims, claims_muzero, plots, statistics
from reproduction.comparisons import tasks


def span(values: pd.Series, noun: str = "") -> str:
    """The values' range with what they count, in the singular if it is 1."""
    low, high = int(values.min()), int(values.max())
    text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text} {noun}{'' if high == 1 else 's'}" if noun else text


def spread(values: pd.Series) -> str:
    """Mean ± standard deviation; of one run its value alone."""
    if len(values) == 1:
        return f"{values.iloc[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _spreads(rows: pd.DataFrame) -> dict[str, str]:
    """Mean ± standard deviation of the return by method."""
    methods = plots.in_order(rows["method"])
    return {m: spread(rows.loc[rows["method"] == m, "mean_return"]) for m in methods}


def _interval(estimate: Any) -> str:
    """Value [low, high]."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def returns(final: pd.DataFrame) -> pd.DataFrame:
    """A row a method, length of training and decay of the learning rate.

    Returns by environment, mean ± standard deviation over seeds, and the IQM of scores.

    Args:
      final: evaluations with `score`, one or more of each run.
    """
    by = ["method", "update", "decay"]
    scores = statistics.summarise(
        final, "score", by, statistic=statistics.iqm, task="environment"
    ).set_index(by)
    rows = []
    for method in plots.in_order(final["method"]):
        for (update, decay), runs in final[final["method"] == method].groupby(by[1:]):
            row = {name: spread(of["mean_return"]) for name, of in runs.groupby("environment")}
            row["IQM score"] = _interval(scores.loc[(method, update, decay)])
            rows.append({"method": method, **row, "updates": f"{update:,}", "decay": decay})
    return pd.DataFrame(rows)


def table2(final: pd.DataFrame, datasets: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 2: what `returns` gives, and below the two ends of the normalised score.

    Args:
      final: see `returns`.
      datasets: our dataset statistics, indexed by environment.
      paper: the paper's Table 6, indexed by environment.
    """
    environments = sorted(final["environment"].unique())
    rows = returns(final).to_dict("records")
    for name, frame, column in (
        ("online DQN", datasets, "online_return"),
        ("online DQN (paper)", paper, "online_dqn"),
        ("mean of the dataset", datasets, "mean_return"),
        ("random policy", datasets, "random_return"),
        ("random policy (paper)", paper, "random"),
    ):
        values = frame[column].reindex(environments).dropna()
        row = dict.fromkeys(environments, "") | {at: f"{x:.2f}" for at, x in values.items()}
        score = {"online DQN": "1", "random policy": "0"}.get(name, "")
        rows.append({"method": name, **row, "IQM score": score, "updates": "", "decay": ""})
    return pd.DataFrame(rows)


def table7(final: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 7: returns of its model-based methods by game, mean ± standard deviation.

    Beside each game's returns stand the greedy ones, where there are any.

    Args:
      final: evaluations of `morel`, `combo`, `mzu` and `rosmo`, one of each run; `cql_qr`, on
        which COMBO's conservative term rests, stands below where it is there.
      paper: the paper's table, on Atari's MsPacman: `method`, `mean_return`, `std`.
    """
    theirs = {row.method.lower(): f"{row.mean_return:.0f} ± {row.std:.0f}"
              for row in paper.itertuples()}  # fmt: skip
    rows = []
    beside = [method for method in ("cql_qr",) if method in set(final["method"])]
    for method in ("morel", "combo", "mzu", "rosmo", *beside):
        row = {
            f"{game}{how}": spread(values)
            for column, how in {"mean_return": "", "greedy_return": ", greedy"}.items()
            if column in final
            for game, values in final[final["method"] == method]
            .dropna(subset=column)
            .groupby("environment")[column]
        }
        rows.append({"method": method, **row, "MsPacman (paper)": theirs.get(method, "n/a")})
    table = pd.DataFrame(rows).fillna("")
    games = sorted(set(table) - {"method", "MsPacman (paper)"})
    return table[["method", *games, "MsPacman (paper)"]]


def pivot(summary: pd.DataFrame, column: str, name: Callable[[Any], str]) -> pd.DataFrame:
    """A summary's estimates with their intervals, a row a method, a column each value."""
    rows = []
    for method in plots.in_order(summary["method"]):
        of = summary[summary["method"] == method].sort_values(column)
        cells = {name(getattr(row, column)): _interval(row) for row in of.itertuples()}
        rows.append({"method": method, **cells})
    return pd.DataFrame(rows)


def by_noise(final: pd.DataFrame, datasets: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 1: a row a method, a column each noise level, mean ± standard deviation."""
    noises = sorted(final["noise"].unique())
    rows = []
    for method in plots.in_order(final["method"]):
        of = final[final["method"] == method]
        cells = {f"noise {n:g}": spread(of.loc[of["noise"] == n, "mean_return"]) for n in noises}
        rows.append({"method": method, **cells})
    means = datasets.set_index("noise")["mean_return"]
    rows.append(
        {"method": "mean of the dataset", **{f"noise {n:g}": f"{means[n]:.2f}" for n in noises}}
    )
    return pd.DataFrame(rows)


def last_and_best(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A value at the last evaluation (`final`) and its highest (`best`), a row a run."""
    runs = rows.sort_values("update").groupby(["environment", "method", "seed"])[value]
    return runs.agg(final="last", best="max").reset_index()


def final_and_best(chosen: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of what `last_and_best` gives of returns, a row a method."""
    means = chosen.groupby(["method", "environment"])[["final", "best"]].mean()
    table = []
    for method in plots.in_order(chosen["method"]):
        row = {"method": method}
        for environment, of in means.loc[method].iterrows():
            row |= {f"{environment}, {rule}": f"{value:.2f}" for rule, value in of.items()}
        table.append(row)
    return pd.DataFrame(table)


SELECTION = {
    "final": "the last checkpoint",
    "held-out loss": "least training loss on held-out episodes",
    "FQE": "highest fitted Q evaluation",
    "average": "mean over checkpoints, a random choice",
    "best": "highest return in the environment, which no offline choice may know",
}


def choose(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """What each rule of choosing a checkpoint gets, one row a run, a column a rule.

    Args:
      rows: checkpoints of any number of runs: `environment`, `method`, `seed`, `update`,
        `holdout_loss`, `fqe_return` and the value. Update 0 is no checkpoint.
      value: the column that a choice is judged by.
    """
    found = []
    for keys, run in rows.groupby(["environment", "method", "seed"]):
        run = run.sort_values("update").reset_index(drop=True)
        found.append(
            {
                **dict(zip(("environment", "method", "seed"), keys)),
                "final": run[value].iloc[-1],
                "held-out loss": run[value][run["holdout_loss"].idxmin()],
                "FQE": run[value][run["fqe_return"].idxmax()],
                "average": run[value].mean(),
                "best": run[value].max(),
            }
        )
    return pd.DataFrame(found)


def selected(chosen: pd.DataFrame) -> pd.DataFrame:
    """IQM and interval of what each rule chose, a row a method and one for all methods."""
    rows = []
    for method in [*plots.in_order(chosen["method"]), "all methods"]:
        of = chosen if method == "all methods" else chosen[chosen["method"] == method]
        cells = {}
        for rule in SELECTION:
            tasks = [part[rule].to_numpy() for _, part in of.groupby(["environment", "method"])]
            cells[rule] = _interval(statistics.bootstrap(tasks))
        rows.append({"method": method, **cells})
    return pd.DataFrame(rows)


def claims_table(decided: pd.DataFrame) -> pd.DataFrame:
    """The decided claims' comparisons in words and numbers.

    Where longer runs decide, those of the others follow, with the verdict that they would give.
    """
    rows, last, decides = [], None, None
    for row in decided[decided["claim_verdict"] != "not run"].itertuples():
        if row.id != (last[0] if last else None):
            decides = row.study
        first, last = (row.id, row.study) != last, (row.id, row.study)
        claim, verdict = row.claim, row.claim_verdict
        if row.study != decides:
            claim = f"(the same at {row.updates:,} updates, which does not decide)"
            verdict = row.study_verdict
        rows.append(
            {
                "id": row.id,
                "claim": claim if first else "",
                "verdict": verdict if first else "",
                "comparison": row.comparison,
                "measure": row.measure,
                "difference": claims.measured_as(row),
                "P(improvement)": "" if np.isnan(row.improvement) else f"{row.improvement:.2f}",
                "seeds": str(row.seeds),
                "updates": f"{row.updates:,}",
                "on": row.environments,
                "its verdict": row.verdict,
            }
        )
    return pd.DataFrame(rows)


def returns_by_game(
    final: pd.DataFrame, datasets: pd.DataFrame, paper: pd.DataFrame
) -> pd.DataFrame:
    """ROSMO's Table 8: a row a game, a column a method, mean ± standard deviation of returns.

    Below a game that Atari has too, the paper's numbers, which are on another scale.

    Args:
      final: rows of the last evaluation of each run; or of several updates, a row each.
      datasets: our dataset statistics, indexed by environment.
      paper: the paper's table, `game`, `method`, `iqm_return`, `std`.
    """
    theirs = paper.assign(game=paper["game"].str.lower(), method=paper["method"].str.lower())
    methods = plots.in_order(final["method"])
    updates = sorted(final["update"].unique(), reverse=True) if "update" in final else [None]
    rows = []
    for game, of in final.groupby("environment"):
        ends = datasets.loc[game]
        for update in updates:
            cells = _spreads(of if update is None else of[of["update"] == update])
            rows.append(
                {
                    "game": game if len(updates) == 1 else f"{game}, {update:,} updates",
                    "random policy": f"{ends['random_return']:.2f}",
                    "online DQN": f"{ends['online_return']:.2f}",
                    **dict.fromkeys(methods, "n/a"),
                    **cells,
                }
            )
        published = {
            row.method: f"{row.iqm_return:.0f} ± {row.std:.0f}"
            for row in theirs[theirs["game"] == game.replace("_", "")].itertuples()
            if row.method in methods
        }
        if published:
            blank = dict.fromkeys(rows[-1], "n/a")
            rows.append({**blank, "game": f"{game} (paper)", **published})
    return pd.DataFrame(rows)


# Rows of MuZero Unplugged's Table 1 by ours. Its MZU, CRR and second BC are cells of its Table 2,
# the first acting by search, the others by the policy. ROSMO's CRR has no model.
_TABLE_1 = {
    "bc": ("baseline", "BC"),
    "dqn": ("baseline", "DQN"),
    "iqn": ("baseline", "IQN"),
    "bcq": ("baseline", "BCQ"),
    "rem": ("baseline", "REM"),
    "mzu": ("muzero_network", "MZU"),
    "reanalyse": ("muzero_network", "MZU"),
    "crr, MuZero network": ("baseline", "CRR"),
    "bc, MuZero network": ("muzero_network", "BC"),
}


# Which of our losses by which way to act those cells are, each with five unroll steps.
_PLAYED = {
    "reanalyse": ("reanalyse", "search"),
    "crr, MuZero network": ("crr_model", "policy"),
    "bc, MuZero network": ("supervised", "policy"),
}


def played(selected: pd.DataFrame) -> pd.DataFrame:
    """Those of the final scores by selector that Table 1 has rows of, see `overall`."""
    pairs = pd.MultiIndex.from_frame(selected[["method", "selector"]])
    return selected[pairs.isin(list(_PLAYED.values())) & (selected["unroll_steps"] == 5)]


def overall(
    final: pd.DataFrame, selected: pd.DataFrame, mzu: pd.DataFrame, rosmo: pd.DataFrame
) -> pd.DataFrame:
    """MuZero Unplugged's Table 1: scores over the games, how many, the papers' beside ours.

    Args:
      final: rows of the last evaluation of each run, with `score`; or of several updates, of
        which each is a row. If it has `greedy_score`, there is a column of it.
      selected: final scores by selector, maybe none, of which those that are `played` are taken:
        Reanalyse by search, CRR and BC on the MuZero network by their policies.
      mzu: MuZero Unplugged's Table 1a, `group`, `method`, `median_normalised`,
        `mean_normalised`.
      rosmo: ROSMO's headline numbers, `method`, `final_iqm_normalised`.
    """
    kinds = {"median": statistics.median, "mean": statistics.mean, "IQM": statistics.iqm}
    sides = [
        (method, final[(final["method"] == method) & (final["update"] == update)])
        for method in plots.in_order(final["method"])
        for update in sorted(final.loc[final["method"] == method, "update"].unique())
    ]
    selected = played(selected)
    for name, (method, _) in _PLAYED.items():
        if (selected["method"] == method).any():
            sides.append((name, selected[selected["method"] == method]))
    theirs = mzu.set_index(["group", "method"])
    iqm = rosmo.assign(method=rosmo["method"].str.lower()).set_index("method")
    several = len({side["update"].iloc[0] for _, side in sides}) > 1
    rows = []
    for name, side in sides:
        scores = tasks(side, "score")
        published = {}
        if name in _TABLE_1:
            of = theirs.loc[_TABLE_1[name]]
            published = {"median": of["median_normalised"], "mean": of["mean_normalised"]}
        if name in iqm.index:
            published["IQM"] = iqm.loc[name, "final_iqm_normalised"]
        row: dict[str, Any] = {"method": name, "games": len(scores)}
        if several:
            row["updates"] = f"{side['update'].iloc[0]:,}"
        for kind, statistic in kinds.items():
            row[kind] = _interval(statistics.bootstrap(scores, statistic))
            row[f"{kind} (paper)"] = f"{published[kind]:g}" if kind in published else "n/a"
        if "greedy_score" in final:
            known = side.dropna(subset="greedy_score") if "greedy_score" in side else side[:0]
            greedy = tasks(known, "greedy_score") if len(known) else []
            row["IQM, greedy"] = _interval(statistics.bootstrap(greedy)) if greedy else "n/a"
        rows.append(row)
    return pd.DataFrame(rows)


ACTING = ("policy", "value", "search")


def _as_cells(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Cells of MuZero Unplugged's Table 2 in its order."""
    cells = pd.DataFrame(rows)
    cells["loss"] = pd.Categorical(cells["loss"], list(claims_muzero.LOSSES), ordered=True)
    cells["acting"] = pd.Categorical(cells["acting"], ACTING, ordered=True)
    return cells.sort_values(["acting", "loss"], ignore_index=True)


def by_loss_and_selector(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 2 of ours: median score and interval by `loss` and `acting`, a row a cell.

    Args:
      rows: final scores by selector, with `method`, `unroll_steps` and `selector`.

    Raises:
      ValueError: if none of the runs is a column of the table.
    """
    methods = sorted(rows["method"].unique())
    rows = rows[rows["selector"].isin((*ACTING, "critic"))]
    found = []
    for loss, run in claims_muzero.LOSSES.items():
        of = rows
        for column, value in run.items():
            of = of[of[column] == value]
        for selector, part in of.groupby("selector"):
            estimate = statistics.bootstrap(tasks(part, "score"), statistics.median)
            acting = "value" if selector == "critic" else selector
            found.append({"loss": loss, "acting": acting, **estimate._asdict()})
    if not found:
        wanted = dict.fromkeys(run["method"] for run in claims_muzero.LOSSES.values())
        raise ValueError(f"Table 2 is of {', '.join(wanted)}; evaluated are {', '.join(methods)}")
    return _as_cells(found)


def table2_of_the_paper(paper: pd.DataFrame) -> pd.DataFrame:
    """MuZero Unplugged's Table 2 as `by_loss_and_selector` gives ours, without intervals."""
    return _as_cells(
        [
            {
                "loss": f"{row.loss} {row.unroll_steps}",
                "acting": "search" if row.action_selection == "mcts" else row.action_selection,
                "value": row.median_normalised_percent / 100,
                "low": np.nan,
                "high": np.nan,
            }
            for row in paper.itertuples()
        ]
    )


def beside_table2(rows: pd.DataFrame, ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Table 2, a row a way to act, ours, the paper's and ours game by game, a column a loss.

    Args:
      rows: see `by_loss_and_selector`.
      ours: what that makes of them.
      theirs: see `table2_of_the_paper`.
    """
    parts = {"": ours, " (paper)": theirs}
    if rows["environment"].nunique() > 1:
        parts |= {f", {game}": by_loss_and_selector(of) for game, of in rows.groupby("environment")}
    found = []
    for acting in ACTING:
        for name, cells in parts.items():
            row = {"acting": f"{acting}{name}"}
            for loss in ours["loss"].cat.categories:
                cell = cells[(cells["acting"] == acting) & (cells["loss"] == loss)]
                if cell.empty or np.isnan(cell["value"].item()):
                    row[loss] = "n/a"
                else:
                    one = cell.iloc[0]
                    row[loss] = f"{one['value']:.2f}" if np.isnan(one["low"]) else _interval(one)
            found.append(row)
    return pd.DataFrame(found)


def by_way_to_act(selected: pd.DataFrame, final: pd.DataFrame) -> pd.DataFrame:
    """IQM score of every method by every way to act, a row a method and length of its unroll.

    Args:
      selected: final scores by selector, with `method`, `unroll_steps` and `selector`.
      final: rows of the last evaluation of each run, with the same columns; they count where
        `selected` has nothing of the method acting that way.
    """
    pairs = [pd.MultiIndex.from_frame(of[["method", "selector"]]) for of in (selected, final)]
    rows = pd.concat([selected, final[~pairs[1].isin(pairs[0])]])
    ways = ("policy", "greedy", "value", "critic", "improved", "search")
    ways = [name for name in ways if (rows["selector"] == name).any()]
    found = []
    for method in plots.in_order(rows["method"]):
        of_method = rows[rows["method"] == method]
        several = of_method["unroll_steps"].nunique() > 1
        for steps, of in of_method.groupby("unroll_steps"):
            row = {"method": f"{method}, unroll {steps:g}" if several else method}
            for way in ways:
                scores = tasks(of[of["selector"] == way], "score")
                row[way] = _interval(statistics.bootstrap(scores, statistics.iqm)) if scores else ""
            found.append(row)
    return pd.DataFrame(found)


def low_data(final: pd.DataFrame, datasets: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """MuZero Unplugged's Table 1, low data: returns by share of the data, game and method.

    Args:
      final: rows of the last evaluation of each run.
      datasets: our dataset statistics, indexed by environment.
      paper: the paper's numbers, `data_fraction`, `game`, `method`, `return`.
    """
    columns = plots.in_order(final["method"])
    rows = []
    for (fraction, game), of in final.groupby(["fraction", "environment"]):
        where = {"data": f"{fraction:.0%}", "game": game}
        cells = _spreads(of)
        online = f"{datasets.loc[game, 'online_return']:.2f}"
        rows.append({**where, **dict.fromkeys(columns, "n/a"), **cells, "online DQN": online})
        theirs = paper[(paper["data_fraction"] == fraction) & (paper["game"] == game)]
        named = theirs.assign(method=theirs["method"].str.lower().str.replace("-", ""))
        published = {row["method"]: f"{row['return']:.0f}"
                     for row in named.to_dict("records") if row["method"] in columns}  # fmt: skip
        if published:
            rows.append(
                {"data": where["data"], "game": f"{game} (paper)",
                 **dict.fromkeys(columns, "n/a"), **published, "online DQN": "n/a"}
            )  # fmt: skip
    return pd.DataFrame(rows)


def beside_table5(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 5 with our recordings in the same rows; blank where we have none."""
    both = paper.merge(ours, on=["environment", "noise"], how="left", suffixes=(" (paper)", ""))
    return both[
        [
            "environment", "noise", "episodes", "episodes (paper)", "transitions",
            "transitions (paper)", "mean_return", "mean_return (paper)",
        ]
    ].astype({"episodes": "Int64", "transitions": "Int64"})  # fmt: skip


def beside_table6(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """ROSMO's Table 6 with our noise-free recordings beside it."""
    clean = ours[ours["noise"] == 0][["environment", "random_return", "online_return"]]
    return paper.rename(columns={"random": "random (paper)", "online_dqn": "online (paper)"}).merge(
        clean.rename(columns={"random_return": "random", "online_return": "online"}),
        on="environment",
        how="left",
    )[["environment", "random", "random (paper)", "online", "online (paper)"]]
