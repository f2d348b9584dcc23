"""DQN Replay (Agarwal et al., 2020), from the files of an agent's replay memory on disk.

They are `{Game}/{1..5}/replay_logs/$store$_{observation,action,reward,terminal}_ckpt.{N}.gz` and
`add_count_ckpt.{N}.gz`, each a gzipped `.npy`: rows in the order of time, a frame, the action
there, the clipped reward that followed and whether the episode ended. An episode begins with 3 rows
of zeros, which are no transitions. The last row of a file is not its own, since the file was
written when its cursor stood on it; the last file is valid up to its count of additions. An episode
across two files so becomes two, the first of them cut off. The end of an episode of 27,000 steps is
the time limit's, and no true one.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from unplugged.common import checks, files
from unplugged.data import frames
from unplugged.data.datasets import DatasetError
from unplugged.envs import atari

CHECKPOINTS = 50  # of an agent, a file of each kind; a 51st is there for most
PADDING = 3  # rows of zeros at an episode's beginning
_AT_ONCE = 2_048  # rows that are read on to a file's end
_FILE = re.compile(r"\$store\$_observation_ckpt\.(\d+)\.gz")
_KINDS = {"action": "iu", "reward": "f", "terminal": "iub"}


def source(
    folder: str | os.PathLike[str], game: str, run: int = 1, checkpoints: int | None = None
) -> frames.Source:
    """A game's replay logs of one agent, of five.

    Args:
      folder: where the games' folders lie.
      game: one of `atari.GAMES`.
      run: 1 to 5.
      checkpoints: how many files of a kind there must be at least; None: as many as all games have.

    Raises:
      FileNotFoundError: if there are no such files.
      DatasetError: if some are missing.
      ValueError: if there is no such game or run.
    """
    name = atari.folder_name(game)
    run = checks.within("run", run, 1, 5, integer=True)
    place = files.expanded(folder) / name / str(run) / "replay_logs"
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {place}")
    numbers = sorted(int(m[1]) for path in place.iterdir() if (m := _FILE.fullmatch(path.name)))
    if not numbers:
        raise FileNotFoundError(f"no files $store$_observation_ckpt.N.gz in {place}")
    for number in range(max(numbers[-1] + 1, checkpoints or CHECKPOINTS)):
        kinds = ("observation", *_KINDS)
        for path in (*(_path(place, kind, number) for kind in kinds), _count(place, number)):
            if not path.is_file():
                raise DatasetError(
                    f"{place} lacks {path.name}: get it, since what is left is another dataset, or "
                    "say how many files you have (checkpoints)"
                )
    # A last file to which nothing was added is the one before it again.
    while numbers[-1] and _added(place, numbers[-1]) in (0, _added(place, numbers[-2])):
        numbers.pop()

    def episodes(shard: int, share: float) -> Iterator[frames.Episode]:
        return _episodes(place, shard, share, final=shard == numbers[-1])

    return frames.Source(
        frames.of_game(game, run, "DQN Replay"),
        [_path(place, "observation", number).name for number in numbers],
        episodes,
    )


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"$store$_{kind}_ckpt.{number}.gz"


def _count(folder: Path, number: int) -> Path:
    return folder / f"add_count_ckpt.{number}.gz"


def _added(folder: Path, number: int) -> int:
    """How many rows had been added when a file was written."""
    path = _count(folder, number)
    found = _read(path)
    if found.size != 1 or found.dtype.kind not in "iu" or found.reshape(-1)[0] < 0:
        raise DatasetError(f"{path}: it holds {found.tolist()}, expected a count; get it again")
    return int(found.reshape(-1)[0])


def _before(folder: Path, number: int, rows: int) -> int:
    """Rows of an episode at the end of the file before, its padding and the lost row included."""
    if not number:
        return 0
    ends = np.flatnonzero(_read(_path(folder, "terminal", number - 1))[: rows - 1])
    return rows - 1 - int(ends[-1]) if len(ends) else rows


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype]]:
    """The content of a gzipped .npy, its shape and its type; what is damaged is named."""
    try:
        with gzip.open(path, "rb") as stream:
            file = cast(BinaryIO, stream)
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
            if dtype.hasobject or fortran:
                raise DatasetError("it holds pickled objects, or columns, which are never read")
            yield file, shape, dtype
            if file.read(1):  # To its end, where gzip's own checksum stands.
                raise DatasetError("it has more in it than its header says")
    except (DatasetError, EOFError, zlib.error, OSError, ValueError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        why = "it is cut short" if isinstance(error, EOFError) else error
        raise DatasetError(f"{path}: {why}; get the file again") from error


def _taken(file: BinaryIO, count: int, dtype: np.dtype) -> np.ndarray:
    """The next `count` values."""
    content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise EOFError
    return np.frombuffer(content, dtype)


def _read(path: Path) -> np.ndarray:
    with _opened(path) as (file, shape, dtype):
        return _taken(file, math.prod(shape), dtype).reshape(shape)


def _episodes(folder: Path, number: int, share: float, *, final: bool) -> Iterator[frames.Episode]:
    """Episodes of a file, its frames read once from beginning to end."""
    columns = {kind: _read(_path(folder, kind, number)) for kind in _KINDS}
    for kind, column in columns.items():
        if column.ndim != 1 or column.dtype.kind not in _KINDS[kind]:
            form = f"{column.dtype} {list(column.shape)}"
            raise DatasetError(f"{_path(folder, kind, number)}: is {form}, expected a list")
    rows = len(columns["action"])
    added = _added(folder, number)
    # The cursor stands on the last row, but in the last file where the additions ended.
    valid = min(rows - 1, added % rows) if final and added % rows else rows - 1
    if (most := np.abs(columns["reward"][:valid]).max(initial=0.0)) > 1.0:
        path = _path(folder, "reward", number)
        raise DatasetError(f"{path}: has a reward {most:g}, and clipped ones are within 1")
    ends = np.flatnonzero(columns["terminal"][:valid])
    begins = np.append(0, ends + 1)
    ends = np.append(ends, valid - 1)
    pieces = [(b, e) for b, e in zip(begins.tolist(), ends.tolist()) if b <= e]
    kept = frames.first(len(pieces), share)
    path = _path(folder, "observation", number)
    with _opened(path) as (file, shape, dtype):
        if len(shape) != 3 or shape[0] != rows or dtype != np.uint8:
            raise DatasetError(f"is {dtype} {list(shape)}, expected uint8 [{rows}, 84, 84]")
        if any(len(column) != rows for column in columns.values()):
            raise DatasetError(f"has {rows} actions and other numbers of rewards or ends")
        pixels = math.prod(shape[1:])
        for index, (begin, end) in enumerate(pieces):
            # What is not kept is read too: the file's checksum comes last.
            images = _taken(file, (end + 1 - begin) * pixels, dtype).reshape(-1, *shape[1:])
            if index >= kept:
                continue
            part = {kind: column[begin : end + 1] for kind, column in columns.items()}
            empty = (
                ~images[: PADDING + 1].any(axis=(1, 2))
                & ((part["action"] == 0) & (part["reward"] == 0) & (part["terminal"] == 0))[
                    : PADDING + 1
                ]
            )
            padding = min(PADDING, int(np.argmin(np.append(empty, False))))
            if begin > 0 and padding < min(PADDING, len(images)):
                raise DatasetError(
                    f"row {begin}: an episode begins without {PADDING} rows of zeros"
                )
            if padding == len(images):
                continue
            ended = bool(part["terminal"][-1])
            steps = len(images) - padding
            if not begin and padding < PADDING:  # It goes on from the file before.
                steps = _before(folder, number, rows) + len(images) - PADDING
            yield frames.Episode(
                frames=images[padding:],
                action=part["action"][padding:],
                reward=part["reward"][padding:].astype(np.float32),
                terminated=ended and steps < atari.LENGTH,
                checkpoint=number,
                number=index,
                last=frames.TRANSITION,
            )
        for row in range(valid, rows, _AT_ONCE):
            _taken(file, min(_AT_ONCE, rows - row) * pixels, dtype)
