"""Recorded episodes: flat arrays over steps, on disk as one file that vouches for itself."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks, files

VERSION = 1
# Of the code that records, part of a recording's metadata and so of its checksum: raised when what
# is recorded changes, not with every release.
CODE_VERSION = "0.1.0"
_ARRAYS = ("observation", "action", "reward", "discount", "is_first", "is_last")


class DatasetError(ValueError):
    """A dataset that cannot be used, and why."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Whole episodes, laid end to end, in the RLDS step convention.

    An episode of L transitions has L + 1 steps; the last holds the final observation, and
    neither its action nor its reward means anything (both are 0).

    Attributes:
      observation: [N, ...] float32; or, if the metadata names a `packed_shape`, bits of
        that shape packed to bytes, [N, bytes] uint8.
      action: [N] int32, what the agent chose.
      reward: [N] float32, what followed the action.
      discount: [N] float32, 0 at the final transition and the last step of an episode that
        truly ended, else 1. An episode whose discounts are all 1 was truncated.
      is_first: [N] bool.
      is_last: [N] bool.
      metadata: JSON-ready facts: benchmark, environment, num_actions, noise, how collected.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    metadata: Mapping[str, Any]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation, unpacked."""
        return tuple(self.metadata.get("packed_shape") or self.observation.shape[1:])

    @property
    def num_steps(self) -> int:
        """Steps, the last steps of episodes included."""
        return len(self.action)

    @property
    def num_episodes(self) -> int:
        """Episodes."""
        return int(self.is_last.sum())

    @property
    def num_transitions(self) -> int:
        """Transitions: steps at which an action was taken."""
        return self.num_steps - self.num_episodes

    @property
    def episode_returns(self) -> np.ndarray:
        """Undiscounted return of each episode. Shape [num_episodes]."""
        return np.add.reduceat(self.reward.astype(np.float64), np.flatnonzero(self.is_first))

    def episodes(self, which: Sequence[int]) -> Dataset:
        """The dataset of some episodes, in the order given."""
        first, last = np.flatnonzero(self.is_first), np.flatnonzero(self.is_last)
        index = np.concatenate([np.arange(first[i], last[i] + 1) for i in which])
        arrays = {name: getattr(self, name)[index] for name in _ARRAYS}
        return Dataset(**arrays, metadata=dict(self.metadata))


def from_episodes(episodes: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any]) -> Dataset:
    """Builds a dataset from whole episodes.

    Args:
      episodes: each with `observation` [L + 1, ...], `action` [L], `reward` [L] and
        `terminated` (bool: it truly ended; False: it was truncated).
      metadata: see `Dataset`; `num_actions` is required.

    Raises:
      DatasetError: if an episode's lengths do not fit, an action is no whole number, or a value
        is not finite.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for number, episode in enumerate(episodes):
        observation = np.asarray(episode["observation"], np.float32)
        action, reward = np.asarray(episode["action"]), np.asarray(episode["reward"])
        if not np.array_equal(action, action.astype(np.int32)):
            raise DatasetError(f"episode {number}: actions must be whole numbers, got {action}")
        length = len(action)
        if length < 1 or len(observation) != length + 1 or len(reward) != length:
            raise DatasetError(
                f"episode {number}: {len(observation)} observations, {length} actions and "
                f"{len(reward)} rewards; expected L + 1, L and L with L at least 1"
            )
        step = np.arange(length + 1)
        ended = bool(episode["terminated"]) & (step >= length - 1)
        parts["observation"].append(observation)
        parts["action"].append(np.append(action, 0).astype(np.int32))
        parts["reward"].append(np.append(reward, 0).astype(np.float32))
        parts["discount"].append(np.where(ended, 0.0, 1.0).astype(np.float32))
        parts["is_first"].append(step == 0)
        parts["is_last"].append(step == length)
    if not parts["action"]:
        raise DatasetError("a dataset needs at least one episode")
    dataset = Dataset(
        **{name: np.concatenate(arrays) for name, arrays in parts.items()},
        metadata=dict(metadata),
    )
    validate(dataset)
    return dataset


def validate(dataset: Dataset) -> None:
    """Raises DatasetError, naming the array and the step, if a dataset breaks its contract."""
    steps = dataset.num_steps
    for name in _ARRAYS:
        array = getattr(dataset, name)
        if len(array) != steps:
            raise DatasetError(f"{name} has {len(array)} steps, action has {steps}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DatasetError(f"{name} is not finite (NaN or infinity) at step {where}")
    shape = dataset.metadata.get("packed_shape")
    if shape and (
        dataset.observation.dtype != np.uint8
        or dataset.observation.shape[1:] != (-(-math.prod(shape) // 8),)
    ):
        raise DatasetError(
            f"observations of shape {tuple(shape)} packed to bits must be uint8 "
            f"[N, {-(-math.prod(shape) // 8)}], got {dataset.observation.dtype} "
            f"{list(dataset.observation.shape)}"
        )
    first, last = np.flatnonzero(dataset.is_first), np.flatnonzero(dataset.is_last)
    if not len(first) or len(first) != len(last) or first[0] != 0 or last[-1] != steps - 1:
        raise DatasetError("episodes are not whole: is_first and is_last do not pair up")
    if (first[1:] != last[:-1] + 1).any() or (first >= last).any():
        raise DatasetError("episodes are not whole: is_first and is_last do not pair up")
    if not np.isin(dataset.discount, (0.0, 1.0)).all():
        raise DatasetError("discount must be 0 at a true end and 1 elsewhere")
    ends = np.flatnonzero(dataset.discount == 0.0)
    near_end = dataset.is_last | np.append(dataset.is_last[1:], False)
    if not near_end[ends].all() or (dataset.discount[last] != dataset.discount[last - 1]).any():
        raise DatasetError("discount is 0 inside an episode, or its last two steps disagree")
    num_actions = dataset.metadata.get("num_actions")
    if num_actions is None:
        raise DatasetError("metadata lacks num_actions")
    wrong = np.flatnonzero((dataset.action < 0) | (dataset.action >= num_actions))
    if wrong.size:
        raise DatasetError(
            f"action {dataset.action[wrong[0]]} at step {wrong[0]} is outside 0..{num_actions - 1}"
        )


def subsample(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Keeps a fraction of the episodes, whole and spread evenly over the recording.

    The recording is cut into as many equal stretches as episodes are kept, and one episode
    is drawn from each.

    Raises:
      ValueError: if `fraction` is not in (0, 1].
    """
    checks.within("fraction", fraction, 0.0, 1.0, open_low=True)
    if fraction == 1.0:
        return dataset
    return dataset.episodes(_evenly(dataset.num_episodes, fraction, seed))


def _evenly(total: int, fraction: float, seed: int) -> list[int]:
    """A share of 0..total-1, at least one: one drawn from each of as many equal stretches."""
    keep = max(1, round(fraction * total))
    edges = np.linspace(0, total, keep + 1).round().astype(int)
    rng = np.random.default_rng(seed)
    return [int(rng.integers(a, b)) for a, b in itertools.pairwise(edges)]


def best(dataset: Dataset, share: float) -> Dataset:
    """Keeps the share of the episodes that have the highest return, at least one, in order.

    Raises:
      ValueError: if `share` is not in (0, 1].
    """
    checks.within("share", share, 0.0, 1.0, open_low=True)
    keep = max(1, round(share * dataset.num_episodes))
    ranked = np.argsort(-dataset.episode_returns, kind="stable")[:keep]
    return dataset.episodes(sorted(ranked.tolist()))


def split(dataset: Dataset, holdout: float, seed: int) -> tuple[Dataset, Dataset]:
    """Splits off a share of the episodes, at least one, spread as in `subsample`.

    Returns:
      The episodes that are left to train on, and those held out.

    Raises:
      ValueError: if `holdout` is not in (0, 1), or no episode would be left.
    """
    checks.within("holdout", holdout, 0.0, 1.0, open_low=True)
    held = _evenly(dataset.num_episodes, holdout, seed)
    rest = sorted(set(range(dataset.num_episodes)) - set(held))
    if not rest:
        raise ValueError(
            f"holdout {holdout} of {dataset.num_episodes} episodes leaves none to train on"
        )
    return dataset.episodes(rest), dataset.episodes(held)


def statistics(dataset: Dataset, random_returns: np.ndarray, seed: int) -> pd.DataFrame:
    """One row about a recording of an online agent's training, the normalised score's ends in it.

    Args:
      dataset: the recording.
      random_returns: episode returns of the uniform policy, the score's 0 on average.
      seed: of the recording.

    Returns:
      `environment`, `noise`, `episodes`, `transitions`, `mean_return`, `online_return` (the mean
      of the last tenth of the episodes, exploration included: the score's 1), `random_return`,
      `random_episodes`, `seed` and `checksum`.
    """
    returns = pd.Series(dataset.episode_returns)
    row = {
        "environment": dataset.metadata["environment"],
        "noise": dataset.metadata.get("noise", 0.0),
        "episodes": dataset.num_episodes,
        "transitions": dataset.num_transitions,
        "mean_return": returns.mean(),
        "online_return": returns.tail(max(1, len(returns) // 10)).mean(),
        "random_return": random_returns.mean(),
        "random_episodes": len(random_returns),
        "seed": seed,
        "checksum": checksum(dataset),
    }
    return pd.DataFrame([row])


def checksum(dataset: Dataset) -> str:
    """SHA-256 over every array (name, type, shape, bytes) and the metadata."""
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = np.ascontiguousarray(getattr(dataset, name))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    digest.update(json.dumps(dataset.metadata, sort_keys=True).encode())
    return digest.hexdigest()


def save(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Writes a dataset to one .npz file, which appears under its name only when whole.

    The metadata's count of episodes, if there is one, is made that of the dataset.
    """
    validate(dataset)
    if "episodes" in dataset.metadata:
        metadata = {**dataset.metadata, "episodes": dataset.num_episodes}
        dataset = dataclasses.replace(dataset, metadata=metadata)
    header = {
        "version": VERSION,
        "checksum": checksum(dataset),
        "metadata": dict(dataset.metadata),
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        header=np.array(json.dumps(header, sort_keys=True)),
        **{name: getattr(dataset, name) for name in _ARRAYS},
    )
    files.write_whole(path, buffer.getvalue())


def load(path: str | os.PathLike[str]) -> Dataset:
    """Reads a dataset and checks that it is whole, unaltered and well formed.

    Raises:
      FileNotFoundError: if there is no such file.
      DatasetError: if the file is cut short, holds pickled objects, is of another version,
        fails its checksum, or breaks the contract of `Dataset`.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted(p.stem for p in path.parent.glob("*.npz"))
        raise FileNotFoundError(
            f"no dataset {path}; {checks.nearest(path.stem, beside) if beside else 'none beside'}"
        )
    if not zipfile.is_zipfile(path):
        if path.read_bytes()[:1] == b"\x80":
            raise DatasetError(f"{path}: a pickle, which is never loaded")
        raise DatasetError(f"{path}: cut short or not a dataset of ours; collect it again")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("header", *_ARRAYS) if name not in file.files]
            if missing:
                raise DatasetError(f"{path}: not one of our datasets, lacks {', '.join(missing)}")
            header = json.loads(str(file["header"]))
            if header.get("version") != VERSION:
                raise DatasetError(
                    f"{path}: format version {header.get('version')}, this code reads {VERSION}; "
                    "collect it again"
                )
            arrays = {name: file[name] for name in _ARRAYS}
    except DatasetError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DatasetError(f"{path}: holds pickled objects, which are never loaded") from error
        raise DatasetError(f"{path}: not readable ({error}); it may be cut short") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise DatasetError(f"{path}: cut short or damaged ({error}); collect it again") from error
    dataset = Dataset(**arrays, metadata=header["metadata"])
    if checksum(dataset) != header["checksum"]:
        raise DatasetError(f"{path}: altered since it was written (its checksum does not match)")
    try:
        validate(dataset)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    return dataset


def check_fits(dataset: Dataset, observation_shape: Sequence[int], num_actions: int) -> None:
    """Raises DatasetError if a dataset was not recorded in an environment of this form."""
    got = dataset.observation_shape
    if got != tuple(observation_shape):
        raise DatasetError(
            f"dataset of {dataset.metadata.get('environment')} has observations {got}, "
            f"the environment {tuple(observation_shape)}"
        )
    if dataset.metadata["num_actions"] != num_actions:
        raise DatasetError(
            f"dataset of {dataset.metadata.get('environment')} has "
            f"{dataset.metadata['num_actions']} actions, the environment {num_actions}"
        )
