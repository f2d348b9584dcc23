"""The public recordings of Atari by name, each a reader of its files."""

from __future__ import annotations

import os
from collections.abc import Callable

from unplugged.common import checks
from unplugged.data import dqn_replay, frames, rlu_atari

SOURCES: dict[str, Callable[..., frames.Source]] = {  # (folder, game, run, checkpoints) -> source
    "rl_unplugged": rlu_atari.source,
    "tfds": rlu_atari.source_tfds,
    "dqn_replay": dqn_replay.source,
}


def source(
    name: str,
    folder: str | os.PathLike[str],
    game: str,
    run: int = 1,
    checkpoints: int | None = None,
) -> frames.Source:
    """A game's recording as it lies on disk.

    Args:
      name: one of `SOURCES`.
      folder: where the games' folders lie.
      game: one of `atari.GAMES`.
      run: which of five, 1 to 5.
      checkpoints: how many there must be; None: as many as were published, or as the files say.

    Raises:
      ValueError: if there is no such source, game or run, naming the nearest.
      FileNotFoundError: if there are no such files.
      DatasetError: if some are missing.
    """
    if checkpoints is not None:
        checks.within("checkpoints", checkpoints, 1, integer=True)
    return SOURCES[checks.one_of("source", name, SOURCES)](folder, game, run, checkpoints)
