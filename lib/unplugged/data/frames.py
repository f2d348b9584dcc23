"""Recordings of single frames, on disk as they were recorded; `frame_stores` stacks them.

A recording is a folder. Each shard of its source is a folder in it: `frames`, a zarr array
[F, H, W] uint8 under zstd, and `rows.npz`, what belongs to the frames and a checksum of each
episode's. A shard has its name only when it was read back and found whole; `recording.json` comes
last. A row is a frame, an action and the reward that followed; how the last row of an episode is
meant differs between sources, see `Episode`, and is settled when all of them are there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorstore
from tqdm import tqdm

from unplugged.common import checks, files
from unplugged.data import npz
from unplugged.data.datasets import CODE_VERSION, DatasetError
from unplugged.envs import atari
from unplugged.model.actions import Actions, of_metadata

VERSION = 1
CHUNK = 256  # frames that are compressed together
_FLUSH = 16 * CHUNK  # frames that are written at once
_CACHE = {"cache_pool": {"total_bytes_limit": 64 * 2**20}}
_ROWS = (
    "action", "reward", "length", "terminated", "checkpoint", "number", "crc", "last",
)  # fmt: skip
_PLAN, _DONE, LOCK = "conversion.json", "recording.json", ".lock"
_INSTEAD = "remove that folder to convert into it anew, or give another"

# What the last row of an episode is: only its frame means something, or it is a transition, too. Or
# that cannot be told, since the episode's return is no sum of its rewards.
FRAME, TRANSITION, UNCLEAR = "frame", "transition", "unclear"
_LAST = (None, FRAME, TRANSITION, UNCLEAR)  # by the numbers in files
_MOST_UNCLEAR = 0.01  # of a shard's episodes


class Episode(NamedTuple):
    """An episode's T rows, as a source has them.

    Attributes:
      frames: [T, H, W] uint8.
      action: [T] whole numbers.
      reward: [T] float32, what followed the action.
      terminated: whether the episode truly ended.
      checkpoint: of the agent that was recorded.
      number: the episode's within the checkpoint.
      last: what the last row is, `FRAME` or `TRANSITION`, as far as the episode shows it; None: it
        does not; `UNCLEAR`: its return is no sum of its rewards.
    """

    frames: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    checkpoint: int
    number: int
    last: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Where episodes come from: a reader of a format on the files of one game.

    Attributes:
      facts: metadata of the recording, see `of_game`.
      shards: names of the shards, in order.
      episodes: (number of a shard, share) -> the first episodes of each checkpoint in it, that
        share of them. It raises DatasetError, when exhausted at the latest, if the shard is not
        whole.
    """

    facts: Mapping[str, Any]
    shards: Sequence[str]
    episodes: Callable[[int, float], Iterable[Episode]]


def of_game(game: str, run: int, collected_by: str) -> dict[str, Any]:
    """Facts of a recording of an Atari game, as the public datasets have it, rewards clipped."""
    return {
        "benchmark": "atari",
        "environment": atari.check(game),
        "num_actions": atari.GAMES[game],
        "noise": 0.0,
        "sticky": atari.Atari.sticky,
        "max_episode_steps": atari.LENGTH,
        "frame_shape": [atari.SIZE, atari.SIZE],
        "stack": atari.STACK,
        "rewards": "clipped to [-1, 1]",
        "run": run,
        "collected_by": collected_by,
        "code_version": CODE_VERSION,
    }


def first(count: int, share: float) -> int:
    """How many are the first `share` of `count` episodes: rounded, at least one."""
    return max(1, round(share * count))


# --- Conversion ---------------------------------------------------------------------------------


def convert(source: Source, folder: str | os.PathLike[str], *, share: float = 1.0) -> Recording:
    """Writes a recording, or goes on where a conversion was cut off; a finished one is read.

    Args:
      source: the episodes.
      folder: where the recording goes.
      share: of each checkpoint's episodes, the first. In (0, 1].

    Raises:
      ValueError: if `share` is out of range.
      DatasetError: if a shard is damaged or missing; if shards disagree on what an episode's last
        row is; if the folder holds another recording; if the disk is full.
      PermissionError: if nothing can be written to the folder.
    """
    checks.within("share", share, 0.0, 1.0, open_low=True)
    folder = files.writable_folder(folder)
    busy = f"another process converts in {folder}"
    with files.lock(folder / LOCK, patience=0.0, busy=busy):
        files.sweep(folder)
        with _room(folder, 0, len(source.shards)):
            _claim(folder, source, share)
        if (folder / _DONE).exists():
            return load(folder)
        names = [_name(number) for number in range(len(source.shards))]
        here = [(folder / name).exists() for name in names]
        frames = 0
        shown: dict[str, str] = {}
        for name, shard in zip(
            itertools.compress(names, here), itertools.compress(source.shards, here)
        ):
            _agree(shown, _rows(folder / name)["last"], shard, folder)
        with tqdm(total=len(names), initial=sum(here), unit="shard", mininterval=5.0) as progress:
            for number, name in enumerate(names):
                if here[number]:
                    continue
                progress.set_description(Path(source.shards[number]).name)
                with _room(folder, number, len(names)):
                    frames += _convert_shard(source, number, share, folder / name, shown)
                progress.update()
                progress.set_postfix(frames=f"{frames:,}")
        facts = {**source.facts, "share": share, **_settled(folder, names, source)}
        with _room(folder, len(names), len(names)):
            _finish(folder, names, facts)
    return load(folder)


def _claim(folder: Path, source: Source, share: float) -> None:
    """Notes what is converted into a folder; raises DatasetError if that is something else."""
    plan = {"version": VERSION, "share": share, **source.facts, "shards": list(source.shards)}
    plan = json.loads(json.dumps(plan))
    if not (folder / _PLAN).exists():
        if (folder / _DONE).exists() or list(folder.glob("shard-*")):
            raise DatasetError(f"{folder} holds something else: {_INSTEAD}")
        return files.write_whole(folder / _PLAN, json.dumps(plan, indent=1))
    try:
        before = dict(json.loads((folder / _PLAN).read_text()))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{folder / _PLAN} is damaged ({error}): {_INSTEAD}") from error
    for name in sorted({*plan, *before}):
        if before.get(name) != plan.get(name):
            raise DatasetError(
                f"{folder} holds another conversion: {name} is {_short(before.get(name))} there "
                f"and {_short(plan.get(name))} here; {_INSTEAD}"
            )


def _short(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)


@contextlib.contextmanager
def _room(folder: Path, number: int, total: int) -> Iterator[None]:
    """Says what to do where a disk is full; it is an error of many kinds beneath."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and "No space left on device" not in str(error):
            raise
        raise DatasetError(
            f"the disk of {folder} is full, {number} of {total} shards are there: make room and "
            "run it again, it goes on there"
        ) from error


def _array(path: Path, shape: Sequence[int] | None = None) -> Any:
    """An array of frames on disk, made anew if it is given the shape of one."""
    spec: dict[str, Any] = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "context": _CACHE,
    }
    if shape is not None:
        compressor = {"id": "zstd", "level": 3}
        form = {"shape": [0, *shape], "chunks": [CHUNK, *shape], "dtype": "|u1"}
        spec |= {"create": True, "metadata": {**form, "compressor": compressor}}
    return tensorstore.open(spec).result()


class _Writer:
    """Appends frames to an array, many at once."""

    def __init__(self, path: Path, shape: Sequence[int]):
        self._array = _array(path, shape)
        self._waiting: list[np.ndarray] = []
        self._count = self._held = 0

    def add(self, frames: np.ndarray) -> None:
        self._waiting.append(frames)
        self._held += len(frames)
        if self._held >= _FLUSH:
            self.flush(self._held // CHUNK * CHUNK)  # whole chunks

    def flush(self, count: int | None = None) -> None:
        waiting = np.concatenate(self._waiting) if self._waiting else np.zeros([0])
        count = len(waiting) if count is None else count
        if count:
            end = self._count + count
            grown = self._array.resize(exclusive_max=[end, *self._array.shape[1:]])
            self._array = grown.result()
            self._array[self._count : end].write(waiting[:count]).result()
            self._count = end
        self._waiting = [waiting[count:]] if len(waiting) > count else []
        self._held -= count


def _convert_shard(
    source: Source, number: int, share: float, path: Path, shown: dict[str, str]
) -> int:
    """Writes a shard whole, or nothing of it; returns how many frames it has.

    It must agree with the shards before it on what a last row is, see `_agree`.
    """
    temporary = path.with_name(path.name + files.TEMPORARY)
    temporary.mkdir()
    try:
        writer: _Writer | None = None
        found: dict[str, list[Any]] = {name: [] for name in _ROWS}
        for episode in source.episodes(number, share):
            _check_episode(episode, source.facts)
            if writer is None:
                writer = _Writer(temporary / "frames", source.facts["frame_shape"])
            writer.add(episode.frames)
            found["action"].append(np.asarray(episode.action, np.int32))
            found["reward"].append(np.asarray(episode.reward, np.float32))
            found["length"].append(len(episode.frames))
            found["terminated"].append(bool(episode.terminated))
            found["checkpoint"].append(episode.checkpoint)
            found["number"].append(episode.number)
            found["crc"].append(zlib.crc32(np.ascontiguousarray(episode.frames).data))
            found["last"].append(_LAST.index(episode.last))
        if writer is None:
            raise DatasetError("it holds no episodes")
        _agree(shown, np.array(found["last"]), source.shards[number], path.parent)
        writer.flush()
        rows: dict[str, Any] = {
            "action": np.concatenate(found["action"]),
            "reward": np.concatenate(found["reward"]),
            "length": np.array(found["length"], np.int32),
            "terminated": np.array(found["terminated"], np.bool_),
            "checkpoint": np.array(found["checkpoint"], np.int32),
            "number": np.array(found["number"], np.int32),
            "crc": np.array(found["crc"], np.uint32),
            "last": np.array(found["last"], np.int8),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **rows)
        files.write_whole(temporary / "rows.npz", buffer.getvalue())
        begins = np.cumsum(rows["length"], dtype=np.int64) - rows["length"]
        for _ in _episodes_of(temporary, begins, rows["length"], rows["crc"]):
            pass  # Read back, every frame is what it was.
        files.sync(temporary)
        temporary.rename(path)
        files.sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, DatasetError):
            name = source.shards[number]
            text = str(error)
            raise DatasetError(text if name in text else f"{name}: {text}") from error
        raise
    return int(rows["length"].sum())


def _check_episode(episode: Episode, facts: Mapping[str, Any]) -> None:
    """Raises DatasetError if an episode's arrays do not fit each other or the game."""
    rows = len(episode.action)
    where = f"episode {episode.number} of checkpoint {episode.checkpoint}"
    if episode.frames.dtype != np.uint8 or episode.frames.ndim != 3:
        form = f"{episode.frames.dtype} {list(episode.frames.shape)}"
        raise DatasetError(f"{where} has frames {form}, expected uint8 [T, H, W]")
    if list(episode.frames.shape[1:]) != list(facts["frame_shape"]):
        sizes = [
            " x ".join(map(str, of)) for of in (episode.frames.shape[1:], facts["frame_shape"])
        ]
        raise DatasetError(f"{where} has frames of {sizes[0]}, expected {sizes[1]}")
    if not rows or not rows == len(episode.frames) == len(episode.reward):
        raise DatasetError(
            f"{where} has {len(episode.frames)} frames, {rows} actions and "
            f"{len(episode.reward)} rewards"
        )
    actions = facts["num_actions"]
    wrong = np.flatnonzero((episode.action < 0) | (episode.action >= actions))
    if len(wrong):
        raise DatasetError(
            f"{where} has action {episode.action[wrong[0]]}, and {facts['environment']} has "
            f"0..{actions - 1}"
        )
    if not np.isfinite(episode.reward).all():
        raise DatasetError(f"{where} has a reward that is not finite")


def _rows(path: Path) -> dict[str, np.ndarray]:
    """What a shard holds beside its frames."""
    try:
        with npz.opened(path / "rows.npz", _ROWS) as archive:
            return {name: archive.read(name) for name in _ROWS}
    except (npz.NpzError, OSError) as error:
        raise DatasetError(f"{path}: {error}; remove this folder and {_DONE}, convert") from error


def episodes_of(folder: str | os.PathLike[str], shard: int) -> Iterator[Episode]:
    """Episodes of a shard that is converted, as they were given, while others may be to come.

    Raises:
      DatasetError: if it is not there, or damaged.
    """
    path = files.expanded(folder) / _name(shard)
    rows = _rows(path)
    ends = np.cumsum(rows["length"], dtype=np.int64)
    begins = ends - rows["length"]
    every = _episodes_of(path, begins, rows["length"], rows["crc"])
    for i, images in enumerate(every):
        yield Episode(
            images,
            rows["action"][begins[i] : ends[i]],
            rows["reward"][begins[i] : ends[i]],
            bool(rows["terminated"][i]),
            int(rows["checkpoint"][i]),
            int(rows["number"][i]),
            _LAST[rows["last"][i]],
        )


def _name(shard: int) -> str:
    return f"shard-{shard:05d}"


def _agree(shown: dict[str, str], last: np.ndarray, shard: str, folder: Path) -> None:
    """Adds what a shard's last rows are to the kinds `shown`, each with its first shard.

    Raises:
      DatasetError: if there is more than one kind, or more of its episodes than one and one in a
        hundred are unclear.
    """
    unclear = int(np.count_nonzero(last == _LAST.index(UNCLEAR)))
    if unclear > max(1, _MOST_UNCLEAR * len(last)):
        raise DatasetError(
            f"the returns of {unclear} of {len(last)} episodes in {shard} are no sums of their "
            "rewards, with or without the last: get the file again, or files of another source"
        )
    for code in np.unique(last):
        if (kind := _LAST[code]) in (FRAME, TRANSITION):
            shown.setdefault(kind, shard)
    if len(shown) > 1:
        raise DatasetError(
            f"episodes disagree: the last row is a frame alone in {shown[FRAME]}, and a transition "
            f"in {shown[TRANSITION]}; the files are of several sources: get all from one, and "
            f"remove {folder} if what is converted is of another"
        )


def _settled(folder: Path, names: Sequence[str], source: Source) -> dict[str, Any]:
    """What the last row of every episode is, how many show it, and how many are unclear.

    Raises DatasetError if they disagree.

    If none does, the last row's reward is 0 in all of them, and it is taken for a frame alone.
    """
    shown: dict[str, str] = {}
    episodes = unclear = 0
    for name, shard in zip(names, source.shards):
        last = _rows(folder / name)["last"]
        _agree(shown, last, shard, folder)
        odd = int(np.count_nonzero(last == _LAST.index(UNCLEAR)))
        episodes, unclear = episodes + int(np.count_nonzero(last)) - odd, unclear + odd
    return {
        "last_row": next(iter(shown), FRAME),
        "last_row_shown_by": episodes,
        "last_row_unclear": unclear,
    }


def _finish(folder: Path, names: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Writes down what a converted folder holds."""
    header: dict[str, Any] = {"version": VERSION, "shards": list(names), "metadata": dict(facts)}
    recording = _read(folder, header)
    facts = {**facts, "episodes": recording.num_episodes}
    header["metadata"] = facts
    header["checksum"] = dataclasses.replace(recording, metadata=facts).checksum
    files.write_whole(folder / _DONE, json.dumps(header, indent=1, sort_keys=True))


# --- Recordings ---------------------------------------------------------------------------------


class Table(NamedTuple):
    """Where E episodes lie on disk.

    Attributes:
      shard: number of its folder. Shape [E], like the others.
      row: its first row there.
      rows: how many it has, T.
      crc: CRC-32 of its frames.
      checkpoint: of the agent that was recorded.
    """

    shard: np.ndarray
    row: np.ndarray
    rows: np.ndarray
    crc: np.ndarray
    checkpoint: np.ndarray


@dataclasses.dataclass(frozen=True)
class Recording:
    """Episodes whose frames are on disk: a `datasets.Dataset` without its observations.

    An episode of L transitions has L + 1 steps. Where its last row is a transition, the frame
    after a true end was not recorded and the last one stands for it; of an episode that was cut
    off the last row gives its frame alone.

    Attributes:
      folder: where it lies.
      shards: names of the folders in it.
      table: where the episodes lie.
      action: [N] int32, as in `Dataset`, like those below.
      reward: [N] float32.
      discount: [N] float32.
      is_first: [N] bool.
      is_last: [N] bool.
      metadata: facts; `frame_shape` and `stack` make an observation.
      probability: None, as of a dataset that does not say how probable its actions were.
      allowed: None: all actions are.
    """

    folder: Path
    shards: tuple[str, ...]
    table: Table
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    metadata: Mapping[str, Any]
    probability: None = None
    allowed: None = None

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        height, width = self.metadata["frame_shape"]
        return height, width

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation, stacked."""
        return (*self.frame_shape, self.metadata["stack"])

    @property
    def actions(self) -> Actions:
        """The action space."""
        return of_metadata(self.metadata)

    @property
    def num_steps(self) -> int:
        """Steps, the last steps of episodes included."""
        return len(self.action)

    @property
    def num_episodes(self) -> int:
        """Episodes."""
        return len(self.table.rows)

    @property
    def num_transitions(self) -> int:
        """Transitions: steps at which an action was taken."""
        return self.num_steps - self.num_episodes

    @property
    def episode_returns(self) -> np.ndarray:
        """Undiscounted return of each episode, of the rewards as recorded. Shape [num_episodes]."""
        return np.add.reduceat(self.reward.astype(np.float64), np.flatnonzero(self.is_first))

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 over the steps, the frames' checksums and the metadata."""
        digest = hashlib.sha256()
        for name in ("action", "reward", "discount", "is_first", "is_last"):
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        digest.update(np.ascontiguousarray(self.table.crc).data)
        facts = {**self.metadata, "episodes": self.num_episodes}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()

    def episodes(self, which: Sequence[int]) -> Recording:
        """The recording of some episodes, in the order given; raises DatasetError if of none."""
        numbers = np.asarray(which)
        if not numbers.size or numbers.min() < 0 or numbers.max() >= self.num_episodes:
            raise DatasetError(f"episodes are 0..{self.num_episodes - 1}, at least one")
        begin, end = np.flatnonzero(self.is_first), np.flatnonzero(self.is_last) + 1
        index = np.concatenate([np.arange(begin[i], end[i]) for i in numbers])
        steps = ("action", "reward", "discount", "is_first", "is_last")
        return dataclasses.replace(
            self,
            table=Table(*(x[numbers] for x in self.table)),
            **{name: getattr(self, name)[index] for name in steps},
        )

    def frames(self) -> Iterator[np.ndarray]:
        """Each episode's frames, a step each, [L + 1, H, W] uint8.

        Raises:
          DatasetError: if they are damaged.
        """
        lengths = np.diff(np.flatnonzero(self.is_last), prepend=-1)
        begin = 0
        for shard, episodes in _runs(self.table.shard):
            table = Table(*(x[episodes] for x in self.table))
            path = self.folder / self.shards[shard]
            for frames in _episodes_of(path, table.row, table.rows, table.crc):
                beyond = lengths[begin] - len(frames)
                yield np.concatenate([frames, frames[-1:]]) if beyond else frames
                begin += 1


def returns(recording: Recording) -> pd.DataFrame:
    """A row an episode: environment, checkpoint, episode, transitions so far, and return."""
    lengths = np.diff(np.flatnonzero(recording.is_last), prepend=-1)
    return pd.DataFrame(
        {
            "environment": recording.metadata["environment"],
            "checkpoint": recording.table.checkpoint,
            "episode": range(recording.num_episodes),
            "transition": np.cumsum(lengths - 1),
            "return": recording.episode_returns,
        }
    )


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Equal neighbours: the number and where it stands."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for begin, end in itertools.pairwise(edges):
        yield int(numbers[begin]), slice(begin, end)


def _episodes_of(
    path: Path, begins: np.ndarray, lengths: np.ndarray, sums: np.ndarray
) -> Iterator[np.ndarray]:
    """Frames of episodes in a shard, each [T, H, W], their checksums compared."""
    advice = f"remove this folder and {_DONE}, and convert again"
    try:
        array = _array(path / "frames")
        ahead = None  # One episode is read while the one before is used.
        for number in range(len(begins) + 1):
            following = None
            if number < len(begins):
                begin = int(begins[number])
                following = array[begin : begin + int(lengths[number])].read()
            if ahead is not None:
                frames = ahead.result()
                if zlib.crc32(np.ascontiguousarray(frames).data) != sums[number - 1]:
                    raise DatasetError(f"{path}: episode {number - 1} is damaged; {advice}")
                yield frames
            ahead = following
    except (ValueError, OSError) as error:  # tensorstore's are ValueErrors.
        if isinstance(error, DatasetError) or "No space left on device" in str(error):
            raise
        raise DatasetError(f"{path}: frames cannot be read ({error}); {advice}") from error


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a recording of frames, or is becoming one."""
    return (files.expanded(path) / _PLAN).is_file()


def load(folder: str | os.PathLike[str]) -> Recording:
    """Opens a recording; its frames are read, and their checksums compared, when they are used.

    Raises:
      FileNotFoundError: if there is none.
      DatasetError: if its conversion is not finished, or what it says is not what it holds.
    """
    folder = files.expanded(folder)
    if not (folder / _DONE).is_file():
        if is_recording(folder):
            raise DatasetError(f"{folder} is not whole: its conversion must go on, to the end")
        raise FileNotFoundError(f"there is no recording {folder}")
    try:
        header = json.loads((folder / _DONE).read_text())
        version, claimed = header["version"], header["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / _DONE} is damaged ({error}): remove it, convert") from error
    if version != VERSION:
        raise DatasetError(
            f"{folder}: format version {version}, this code reads {VERSION}; convert again"
        )
    recording = _read(folder, header)
    if recording.checksum != claimed:
        raise DatasetError(
            f"{folder} was altered since it was written (its checksum does not match); remove it "
            "and convert again"
        )
    return recording


def _read(folder: Path, header: Mapping[str, Any]) -> Recording:
    """The recording of a folder's shards, laid out in steps."""
    shards = [_rows(folder / name) for name in header["shards"]]
    joined = {name: np.concatenate([rows[name] for rows in shards]) for name in _ROWS}
    length, terminated = joined["length"].astype(np.int64), joined["terminated"]
    begins = np.cumsum(length) - length  # in the rows of all shards
    number = np.repeat(np.arange(len(shards)), [len(rows["length"]) for rows in shards])
    offsets = np.cumsum([0, *(len(rows["action"]) for rows in shards)])[:-1]
    beyond = terminated & (header["metadata"]["last_row"] == TRANSITION)
    keep = np.flatnonzero(length + beyond >= 2)
    if not len(keep):
        raise DatasetError(f"{folder} holds no episode with a transition")
    steps = (length + beyond)[keep]
    last = np.cumsum(steps) - 1
    episode = np.repeat(keep, steps)
    within = np.arange(last[-1] + 1) - np.repeat(last + 1 - steps, steps)
    is_last = np.zeros(last[-1] + 1, np.bool_)
    is_last[last] = True
    row = begins[episode] + np.minimum(within, length[episode] - 1)
    near_end = within >= np.repeat(steps, steps) - 2
    table = Table(
        number[keep], (begins - offsets[number])[keep], length[keep], joined["crc"][keep],
        joined["checkpoint"][keep],
    )  # fmt: skip
    return Recording(
        folder=folder,
        shards=tuple(header["shards"]),
        table=table,
        action=np.where(is_last, 0, joined["action"][row]).astype(np.int32),
        reward=np.where(is_last, 0.0, joined["reward"][row]).astype(np.float32),
        discount=np.where(terminated[episode] & near_end, 0.0, 1.0).astype(np.float32),
        is_first=within == 0,
        is_last=is_last,
        metadata=header["metadata"],
    )
