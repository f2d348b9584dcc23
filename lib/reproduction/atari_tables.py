"""ROSMO's Table 8, on Atari: our returns beside the paper's."""

from __future__ import annotations

import pandas as pd

from reproduction import plots, statistics, tables
from unplugged.envs import atari

NOT_RUN = "not run"
# Our methods, and what the paper's Table 8 calls them.
IN_TABLE8 = {"bc": "BC", "crr": "CRR", "cql": "CQL", "mzu": "MZU", "rosmo": "ROSMO"}


def published(paper: pd.DataFrame) -> pd.DataFrame:
    """The paper's final returns, named as ours: `environment`, `method`, `mean_return`, `std`.

    Args:
      paper: Table 8: `game`, `method`, `iqm_return` and `std`.
    """
    games = {atari.folder_name(game): game for game in atari.GAMES}
    methods = {theirs: ours for ours, theirs in IN_TABLE8.items()}
    return pd.DataFrame(
        {
            "environment": paper["game"].map(games),
            "method": paper["method"].map(methods),
            "mean_return": paper["iqm_return"],
            "std": paper["std"],
        }
    )


def table8(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Final returns by game and method, ours as mean ± standard deviation over seeds.

    Args:
      rows: evaluations, one or more of each run.
      paper: see `published`.

    Returns:
      A row a game, the paper's first; for each method a column of ours, "not run" where there is
      nothing, and one of the paper's, empty where it has none.
    """
    last = rows[
        rows["update"] == rows.groupby(["environment", "method"])["update"].transform("max")
    ]
    games = dict.fromkeys([*paper["environment"], *sorted(rows["environment"])])
    found = []
    for game in games:
        row = {"game": game}
        for method in plots.in_order([*rows["method"], *IN_TABLE8]):
            ours = last.query("environment == @game and method == @method")["mean_return"]
            theirs = paper.query("environment == @game and method == @method")
            row[method] = tables.spread(ours) if len(ours) else NOT_RUN
            if method in IN_TABLE8:
                row[f"{method} (paper)"] = "".join(f"{x:,.1f}" for x in theirs["mean_return"])
        found.append(row)
    return pd.DataFrame(found)


def overall(rows: pd.DataFrame, headline: pd.DataFrame) -> pd.DataFrame:
    """IQM of final scores over games and seeds, a row a method, and the paper's over its games.

    Args:
      rows: evaluations with `score`, see `atari_scores.normalised`.
      headline: the paper's `method` and `final_iqm_normalised`.

    Returns:
      `method`, `games`, `IQM score` with its 95% interval, and `IQM score (paper)`.
    """
    theirs = headline.set_index("method")["final_iqm_normalised"]
    last = rows[
        rows["update"] == rows.groupby(["environment", "method"])["update"].transform("max")
    ]
    found = []
    for method in plots.in_order([*rows["method"], *IN_TABLE8]):
        scores = [
            x.to_numpy() for _, x in last[last["method"] == method].groupby("environment")["score"]
        ]
        value = statistics.bootstrap(scores) if scores else None
        number = theirs.get(IN_TABLE8.get(method, method))
        found.append(
            {
                "method": method,
                "games": len(scores),
                "IQM score": f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"
                if value
                else NOT_RUN,
                "IQM score (paper)": "" if number is None else f"{number:g}",
            }
        )
    return pd.DataFrame(found)


def not_there(rows: pd.DataFrame, paper: pd.DataFrame) -> str:
    """Which of the paper's games are not run, and which methods lack which of those that are."""
    games, parts = set(rows["environment"]), []
    if others := [x for x in dict.fromkeys(paper["environment"]) if x not in games]:
        parts.append(f"Not run: {', '.join(others)}.")
    for method in plots.in_order([*rows["method"], *IN_TABLE8]):
        if lacking := sorted(games - set(rows.loc[rows["method"] == method, "environment"])):
            parts.append(f"{method} lacks {', '.join(lacking)}.")
    return " ".join(parts)
