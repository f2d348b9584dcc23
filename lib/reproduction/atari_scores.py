"""Returns on Atari as scores between two published players, 0 the one and 1 the other."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from unplugged.common import checks, files


def normalised(
    rows: pd.DataFrame, published: str | os.PathLike[str] = "results/published"
) -> pd.DataFrame:
    """Adds the two normalised scores to returns on Atari.

    A score is (return - random) / (player - random). The random player's returns differ between the
    two tables.

    Args:
      rows: `environment`, the games, and `mean_return`, of rewards that are not clipped.
      published: folder of the published numbers.

    Returns:
      The rows with `human_score`, whose player is human and NaN where none was measured, as on
      carnival and pooyan; and `score`, RL Unplugged's, whose player is its online DQN.

    Raises:
      ValueError: if there is no such game, naming the nearest.
    """
    folder = files.expanded(published)
    online = _ends(folder / "atari46_rl_unplugged_scores.csv", "online_dqn")
    human = _ends(folder / "atari57_human_scores.csv", "human").reindex(online.index)
    games = rows["environment"]
    for game in games.unique():
        checks.one_of("Atari game", game, online.index)
    columns = {}
    for name, ends in (("human_score", human), ("score", online)):
        low, high = (ends[end].loc[games].to_numpy() for end in ("low", "high"))
        columns[name] = (rows["mean_return"] - low) / (high - low)
    return rows.assign(**columns)


def _ends(path: Path, player: str) -> pd.DataFrame:
    """Returns of the random player, `low`, and of the other, `high`, by game."""
    table = pd.read_csv(path, index_col="game")
    return table.rename(columns={"random": "low", player: "high"})[["low", "high"]]
