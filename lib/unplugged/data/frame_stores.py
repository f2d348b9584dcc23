"""Recordings of single frames as what is trained on: on the device, or fed to it by the host.

Frames are kept as bytes and stacked when windows are drawn, the same windows for the same key as of
any other store.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from unplugged.common import files, memory
from unplugged.data import frames
from unplugged.data.datasets import DatasetError
from unplugged.data.windows import Store
from unplugged.envs import atari
from unplugged.model.actions import Actions, Discrete

_BLOCK = 8_192  # frames that go to the device at once
_SHARE = 0.9  # of a device's free memory that frames may take; the learner needs some
# Bytes left on an accelerator for the learner. By XLA's count for a CPU, rosmo and mzu at the
# papers' size need some 6e9; no accelerator was there to measure.
_LEARNER = 9e9
_UNPACKED = "frames.raw"  # all frames as they are, for what does not fit the device


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameStore(Store):
    """A recording's N steps on the device; `observation` are single frames, [N, H * W] uint8.

    Attributes:
      begin: [N] int32, index of the first step of each step's episode.
      frame_shape: H and W.
      stack: frames of an observation.
    """

    begin: jax.Array
    frame_shape: tuple[int, int]
    stack: int

    def observe(self, index: jax.Array) -> jax.Array:
        """Observations at steps [...], float32 [..., H, W, stack] in [0, 1], the newest last.

        Before an episode's start its first frame stands.
        """
        return self._stacked(self.observation[self._of_stacks(index)])

    def _of_stacks(self, index: jax.Array) -> jax.Array:
        """Steps [..., stack] whose frames make up the observations at steps [...]."""
        back = jnp.arange(self.stack - 1, -1, -1)
        return jnp.maximum(index[..., None] - back, self.begin[index][..., None])

    def _stacked(self, frames: jax.Array) -> jax.Array:
        """Observations of their frames [..., stack, H * W]."""
        images = frames.reshape(*frames.shape[:-1], *self.frame_shape)
        return jnp.moveaxis(images, -3, -1).astype(jnp.float32) * atari.SCALE


jax.tree_util.register_dataclass(
    FrameStore,
    data_fields=["observation", "action", "reward", "discount", "end", "start", "begin"],
    meta_fields=["packed_shape", "frame_shape", "stack"],
)


class FedStore(FrameStore):
    """A recording's steps on the device, with the frames of some windows alone.

    `observation` are the frames of B windows of T steps and of those that their stacks reach back
    to, [B, T + stack - 1, H * W] uint8, see `Host.gather`. Nothing else can be observed.
    """

    def observe(self, index: jax.Array) -> jax.Array:
        """Observations at the windows' steps [T, B], as `FrameStore.observe` has them."""
        first = index[0][:, None] - (self.stack - 1)  # where each window's frames begin
        window = jnp.arange(index.shape[1])[:, None]
        return self._stacked(self.observation[window, self._of_stacks(index) - first])


jax.tree_util.register_dataclass(
    FedStore,
    data_fields=["observation", "action", "reward", "discount", "end", "start", "begin"],
    meta_fields=["packed_shape", "frame_shape", "stack"],
)


@dataclasses.dataclass(frozen=True)
class Host:
    """A recording whose frames do not fit the device: they are read from a file, window by window.

    Attributes:
      frames: [F, H * W] uint8, mapped from the file, as the system's memory holds it.
      row: [N] where each step's frame stands there.
      begin: [N] first step of each step's episode.
      end: [N] last step of it.
      steps: all but the frames, on the device.
    """

    frames: np.ndarray
    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    steps: FedStore

    @property
    def action(self) -> jax.Array:
        """[N] int32."""
        return self.steps.action

    @property
    def reward(self) -> jax.Array:
        """[N] float32."""
        return self.steps.reward

    def observe(self, index: np.ndarray) -> jax.Array:
        """Observations at some steps [...], as `FrameStore.observe` has them."""
        flat = np.asarray(index).reshape(-1)
        store = dataclasses.replace(self.steps, observation=jnp.asarray(self.gather(flat, 1)))
        found = store.observe(jnp.asarray(flat)[None])[0]
        return found.reshape(*np.shape(index), *found.shape[1:])

    def gather(self, start: np.ndarray, length: int) -> np.ndarray:
        """Frames of windows of T steps, for a `FedStore`.

        Args:
          start: [B] first step of each window.
          length: T.

        Returns:
          [B, T + stack - 1, H * W] uint8; the first are those before the windows. What lies
          outside of a window's episode is not filled.
        """
        before = self.steps.stack - 1
        found = np.empty([len(start), length + before, self.frames.shape[1]], np.uint8)
        low = np.maximum(start - before, self.begin[start])
        high = np.minimum(start + length - 1, self.end[start])
        places = zip(
            found, (low - start + before).tolist(), (high - start + before).tolist(),
            self.row[low].tolist(), self.row[high].tolist(),
        )  # fmt: skip
        for window, begin, last, row, last_row in places:
            window[begin : begin + last_row + 1 - row] = self.frames[row : last_row + 1]
            window[last] = self.frames[last_row]  # A frame may stand for two steps.
        return found


def device_memory() -> int:
    """Bytes that the first device can give; the system, where that is the device."""
    found = jax.local_devices()[0].memory_stats()
    if not found or "bytes_limit" not in found:
        return memory.free()
    return int(found["bytes_limit"] - found.get("bytes_in_use", 0))


def opened(recording: frames.Recording) -> FrameStore | Host:
    """The frames on the device where they fit, else on the host.

    Raises:
      DatasetError: if neither has room, or frames are damaged.
    """
    try:
        check_fits(recording)
    except DatasetError as error:
        try:
            return host(recording)
        except DatasetError as beside:
            raise DatasetError(f"{error}; or make room to unpack them: {beside}") from None
    return store(recording)


def check_fits(recording: frames.Recording) -> None:
    """Raises DatasetError if a recording's frames need more memory than the device has."""
    needed = recording.num_steps * math.prod(recording.frame_shape)
    free = device_memory()
    room = int(_SHARE * free)
    if jax.default_backend() != "cpu":
        room = max(0, min(room, int(free - _LEARNER)))
    if needed > room:
        raise DatasetError(
            f"{recording.num_steps:,} frames of {recording.metadata.get('environment')} need "
            f"{needed / 1e9:.3g} GB of the device's memory, and {room / 1e9:.3g} GB can be had: "
            f"lower fraction to at most {room / needed:.2g} of what it is"
        )


def store(recording: frames.Recording) -> FrameStore:
    """Puts a recording on the device, frames as uint8.

    Raises:
      DatasetError: if it needs more memory than the device has, before any is taken; or if frames
        are damaged.
    """
    check_fits(recording)
    steps = _steps(recording)
    pixels = math.prod(recording.frame_shape)
    held = _resident(recording.frames(), recording.num_steps, pixels)
    return FrameStore(observation=held, **steps)


def host(recording: frames.Recording) -> Host:
    """A recording whose frames stay on the host, unpacked to a file in its folder once.

    What it needs of a file that is there already is read and held against the recording's
    checksums; if it is damaged, the file is made anew, and a warning says so.

    Raises:
      DatasetError: if the disk has no room for that, before anything is written; or if frames are
        damaged.
    """
    whole = frames.load(recording.folder)
    path = recording.folder / _UNPACKED
    total, pixels = int(whole.table.rows.sum()), math.prod(recording.frame_shape)
    # An episode is known by its shard and its first row there.
    places = whole.table.shard.astype(np.int64) << 40 | whole.table.row
    offsets = np.cumsum(whole.table.rows) - whole.table.rows
    mine = recording.table.shard.astype(np.int64) << 40 | recording.table.row
    offsets = offsets[np.searchsorted(places, mine)]
    made = path.exists() and path.stat().st_size == total * pixels
    if not made:
        _unpack(whole, path, total * pixels)
    elif not _is_whole(_mapped(path, total, pixels), offsets, recording.table):
        warnings.warn(f"{path} is damaged; it is unpacked anew", stacklevel=2)
        path.unlink()
        _unpack(whole, path, total * pixels)
    last = np.flatnonzero(recording.is_last)
    lengths = np.diff(last, prepend=-1)
    begin = np.repeat(last + 1 - lengths, lengths)
    within = np.arange(recording.num_steps) - begin
    row = np.repeat(offsets, lengths) + np.minimum(
        within, np.repeat(recording.table.rows, lengths) - 1
    )
    nothing: Any = None  # A batch's frames take its place.
    return Host(
        frames=_mapped(path, total, pixels),
        row=row,
        begin=begin,
        end=np.repeat(last, lengths),
        steps=FedStore(observation=nothing, **_steps(recording)),
    )


def _mapped(path: Path, rows: int, pixels: int) -> np.ndarray:
    return np.memmap(path, np.uint8, "r", shape=(rows, pixels))


def _is_whole(held: np.ndarray, offsets: np.ndarray, table: frames.Table) -> bool:
    """Whether the rows of each episode of `table`, which begin at `offsets`, have its checksum."""
    episodes = zip(offsets, table.rows, table.crc)
    with tqdm(episodes, "checking frames", len(offsets), unit="episode", mininterval=5.0) as each:
        return all(zlib.crc32(held[row : row + rows].data) == crc for row, rows, crc in each)


def _unpack(recording: frames.Recording, path: Path, size: int) -> None:
    """Writes all rows' frames to one file, which has its name when it is whole."""
    if size > (free := shutil.disk_usage(path.parent).free):
        raise DatasetError(
            f"{path.parent} needs {size / 1e9:.3g} GB of disk for that, and {free / 1e9:.3g} GB "
            "are free"
        )
    temporary = path.with_name(path.name + files.TEMPORARY)
    lock, busy = path.parent / frames.LOCK, f"{path} is being written"
    with files.lock(lock, patience=float("inf"), busy=busy):
        if path.exists() and path.stat().st_size == size:
            return  # Somebody else was first.
        episodes = zip(recording.frames(), recording.table.rows)
        count = recording.num_episodes
        with (
            temporary.open("wb") as file,
            tqdm(episodes, "unpacking frames", count, unit="episode", mininterval=5.0) as each,
        ):
            for episode, rows in each:
                file.write(np.ascontiguousarray(episode[:rows]).data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


def _steps(recording: frames.Recording) -> dict[str, Any]:
    """All fields of a store but its observations."""
    last = np.flatnonzero(recording.is_last)
    lengths = np.diff(last, prepend=-1)
    return {
        "action": jnp.asarray(recording.action),
        "reward": jnp.asarray(recording.reward),
        "discount": jnp.asarray(recording.discount),
        "end": jnp.asarray(np.repeat(last, lengths), jnp.int32),
        "start": jnp.asarray(np.flatnonzero(~recording.is_last), jnp.int32),
        "begin": jnp.asarray(np.repeat(last + 1 - lengths, lengths), jnp.int32),
        "frame_shape": recording.frame_shape,
        "stack": recording.metadata["stack"],
    }


@functools.partial(jax.jit, donate_argnums=0)
def _put(held: jax.Array, block: jax.Array, at: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(held, block, (at, jnp.zeros_like(at)))


def _resident(episodes: Iterator[np.ndarray], steps: int, pixels: int) -> jax.Array:
    """Frames [steps, pixels] on the device, of which the host holds a block at a time."""
    found, at, held = jnp.zeros([steps, pixels], jnp.uint8), 0, 0
    waiting: list[np.ndarray] = []
    for episode in episodes:
        waiting.append(episode.reshape(len(episode), pixels))
        held += len(episode)
        while held >= _BLOCK or (held and at + held == steps):
            block = np.concatenate(waiting)
            waiting = [block[_BLOCK:]]
            block = block[:_BLOCK]
            found = _put(found, block, jnp.int32(at))
            at, held = at + len(block), held - len(block)
    return found


def described(shape: Sequence[int], steps: int, transitions: int, actions: Actions) -> FrameStore:
    """The form of a store without its content, see `windows.described`.

    Args:
      shape: of one observation, height, width and frames.
      steps: N.
      transitions: M.
      actions: the action space, discrete.
    """
    height, width, stack = shape
    assert isinstance(actions, Discrete)

    def array(length: int, kind: Any, *rest: int) -> Any:  # Stands for an array; JAX takes it.
        return jax.ShapeDtypeStruct((length, *rest), kind)

    return FrameStore(
        observation=array(steps, jnp.uint8, height * width),
        action=array(steps, jnp.int32),
        reward=array(steps, jnp.float32),
        discount=array(steps, jnp.float32),
        end=array(steps, jnp.int32),
        start=array(transitions, jnp.int32),
        begin=array(steps, jnp.int32),
        frame_shape=(height, width),
        stack=stack,
    )
