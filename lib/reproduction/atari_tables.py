"""ROSMO's Table 8, on Atari: our returns beside the paper's."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction import plots, statistics, tables
from unplugged.envs import atari
from unplugged.learning import settings

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
      rows: evaluations with `score` and `human_score`, see `atari_scores.normalised`.
      headline: the paper's `method` and `final_iqm_normalised`.

    Returns:
      `method`, `games`, `IQM score` with its 95% interval, `IQM score (paper)`, and `IQM human
      score` over those of the games where a human was measured.
    """
    theirs = headline.set_index("method")["final_iqm_normalised"]
    last = rows[
        rows["update"] == rows.groupby(["environment", "method"])["update"].transform("max")
    ]
    found = []
    for method in plots.in_order([*rows["method"], *IN_TABLE8]):
        own = last[last["method"] == method]
        number = theirs.get(IN_TABLE8.get(method, method))
        found.append(
            {
                "method": method,
                "games": own["environment"].nunique(),
                "IQM score": _iqm(own, "score"),
                "IQM score (paper)": "" if number is None else f"{number:g}",
                "IQM human score": _iqm(own, "human_score"),
            }
        )
    return pd.DataFrame(found)


def _iqm(rows: pd.DataFrame, column: str) -> str:
    """IQM of scores over games and seeds with its 95% interval."""
    by_game = rows.dropna(subset=[column]).groupby("environment")[column]
    scores = [x.to_numpy() for _, x in by_game]
    if not scores:
        return NOT_RUN if rows.empty else ""
    value = statistics.bootstrap(scores)
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def setting(results: str | os.PathLike[str], experiment: str) -> str:
    """From what data and in what size our runs learn, and the paper's, in one sentence.

    Args:
      results: folder of the experiment's provenance, and of the recordings' statistics, if any.
      experiment: its name.
    """
    records = json.loads(Path(results, f"{experiment}.provenance.json").read_text()).values()
    data = " and ".join(sorted({_data(record["parameters"]["dataset"]) for record in records}))
    recordings = Path(results, "atari_statistics.csv")
    if recordings.exists():
        data += f" of {tables.span(pd.read_csv(recordings)['transitions'], 'transition')}"
    ours = " or ".join(sorted({_size(record["settings"]) for record in records}))
    theirs = _size(dataclasses.asdict(settings.ATARI))
    return f"Ours: {data}, {ours}; the paper's: RL Unplugged's data, {theirs}."


def _data(dataset: str) -> str:
    """What a recording is, by its name in profiles, see `plan`."""
    if re.search(r"_dqn\d+$", dataset):
        return "recordings made here"
    return "imported recordings" if re.search(r"_run\d$", dataset) else "recordings of one's own"


def _size(settings: Mapping[str, Any]) -> str:
    """Network, batch and simulations of a run's settings."""
    blocks = settings["representation"]
    alike = f"{len(blocks)} x {blocks[0]}" if len(set(blocks)) == 1 else None
    channels = alike or "-".join(map(str, blocks))
    return (
        f"{settings['network']} of {channels} channels, batches of {settings['batch_size']}, "
        f"{settings['num_simulations']} simulations"
    )


def not_there(rows: pd.DataFrame, paper: pd.DataFrame) -> str:
    """Which of the paper's games are not run, and which methods lack which of those that are."""
    games, parts = set(rows["environment"]), []
    if others := [x for x in dict.fromkeys(paper["environment"]) if x not in games]:
        parts.append(f"Not run: {', '.join(others)}.")
    for method in plots.in_order([*rows["method"], *IN_TABLE8]):
        if lacking := sorted(games - set(rows.loc[rows["method"] == method, "environment"])):
            parts.append(f"{method} lacks {', '.join(lacking)}.")
    return " ".join(parts)
