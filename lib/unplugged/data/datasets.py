"""Recorded episodes: flat arrays over steps, on disk as one file that vouches for itself."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks, files
from unplugged.data import npz
from unplugged.model.actions import Actions, Discrete, Normal, described, of_metadata

VERSION = 1
# Of the code that records, part of a recording's metadata and so of its checksum: raised when what
# is recorded changes, not with every release.
CODE_VERSION = "0.1.0"
_KINDS: dict[str, Any] = {
    "observation": np.float32, "action": np.int32, "reward": np.float32, "discount": np.float32,
    "is_first": np.bool_, "is_last": np.bool_,
}  # fmt: skip
_ARRAYS = tuple(_KINDS)
# What only some recordings know; where it is None it is no part of file or checksum.
_OPTIONAL: dict[str, Any] = {"probability": np.float32, "allowed": np.bool_}
_EPISODE = ("observation", "action", "reward", "terminated")
_LARGEST = 1e15  # Of more, squares that are summed over a network's units overflow float32.
_WHOLE = 2**24  # Up to here float32 holds every whole number.
_AT_ONCE = 4_096  # steps of which more exact copies are made
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_STEPS = 2**31 - 1  # Windows count steps in int32.

# What metadata may say, if they say it: numbers by their least and largest value, and texts.
_COUNTS = {
    "num_actions": (1, 2**31 - 1), "action_dims": (1, 2**31 - 1), "episodes": (1, _STEPS),
    "seed": (0, float("inf")), "max_episode_steps": (1, float("inf")),
}  # fmt: skip
_TEXTS = ("benchmark", "environment", "collected_by", "code_version")


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
      action: [N] int32, what the agent chose; or, if the metadata name `action_dims`, D,
        [N, D] float32 within [-1, 1].
      reward: [N] float32, what followed the action.
      discount: [N] float32, 0 at the final transition and the last step of an episode that
        truly ended, else 1. An episode whose discounts are all 1 was truncated.
      is_first: [N] bool.
      is_last: [N] bool.
      metadata: JSON-ready facts: benchmark, environment, num_actions or action_dims, noise, how
        collected. `action_low` and `action_high` are the environment's own bounds, D numbers each,
        where they are not -1 and 1. NumPy's numbers become Python's.
      probability: [N] float32, with which the action was taken, of a continuous one its density; 1
        at last steps; None: not recorded.
      allowed: [N, A] bool, which actions could be taken; None: all could.

    Raises:
      DatasetError: if JSON cannot hold the metadata.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    metadata: Mapping[str, Any]
    probability: np.ndarray | None = None
    allowed: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", _facts(self.metadata))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Its arrays by name, those that it has."""
        found = {name: getattr(self, name) for name in (*_ARRAYS, *_OPTIONAL)}
        return {name: array for name, array in found.items() if array is not None}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation, unpacked."""
        return tuple(self.metadata.get("packed_shape") or self.observation.shape[1:])

    @property
    def actions(self) -> Discrete | Normal:
        """The action space, of which the metadata tell, and whether there are masks."""
        return _actions(self.metadata, masked=self.allowed is not None)

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
        """The dataset of some episodes, in the order given.

        Raises:
          DatasetError: if there is no such episode, or none is asked for.
        """
        numbers = np.asarray(which)
        if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
            raise DatasetError(
                f"which episodes must be a list of numbers, got {reprlib.repr(which)}"
            )
        if numbers.min() < 0 or numbers.max() >= self.num_episodes:
            raise DatasetError(
                f"episodes are 0..{self.num_episodes - 1}, got {reprlib.repr(which)}"
            )
        first, last = np.flatnonzero(self.is_first), np.flatnonzero(self.is_last)
        index = np.concatenate([np.arange(first[i], last[i] + 1) for i in numbers])
        arrays = {name: array[index] for name, array in self.arrays.items()}
        return Dataset(**arrays, metadata=dict(self.metadata))


def _actions(metadata: Mapping[str, Any], *, masked: bool) -> Discrete | Normal:
    return Discrete(metadata["num_actions"], masked=True) if masked else of_metadata(metadata)


def _facts(value: Any, name: str = "metadata") -> Any:
    """The value as JSON gives it back, numbers of NumPy as plain ones."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise DatasetError(f"{name} must have names as keys, got {wrong[0]!r}")
        return {key: _facts(x, f"{name}[{key!r}]") for key, x in value.items()}
    if name == "metadata":
        raise DatasetError(f"metadata must map names to facts, got {reprlib.repr(value)}")
    if isinstance(value, (list, tuple)):
        return [_facts(x, f"{name}[{i}]") for i, x in enumerate(value)]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise DatasetError(
        f"{name} is {reprlib.repr(value)}, which JSON cannot hold; give numbers, texts, true or "
        "false, None, and lists and mappings of them"
    )


def from_episodes(episodes: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any]) -> Dataset:
    """Builds a dataset from whole episodes.

    Args:
      episodes: each with `observation` [L + 1, ...], `action` [L] or [L, D], `reward` [L] and
        `terminated` (bool: it truly ended; False: it was truncated). All or none may have
        `probability` [L] and `allowed` [L + 1, A], see `Dataset`.
      metadata: see `Dataset`; `num_actions` or, for continuous actions, `action_dims` is required.

    Raises:
      DatasetError: if an episode lacks something, or holds what is no number; if its lengths do
        not fit, an action is no whole number or outside its bounds, or a value is not finite or
        float32 cannot hold it; if `terminated` is not one truth for the whole episode; or if the
        metadata are wrong.
    """
    metadata = _facts(metadata)
    _check_facts(metadata)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for number, episode in enumerate(episodes):
        try:
            steps = _steps(episode, metadata.get("action_dims"))
            before, shape = parts["observation"], steps["observation"].shape[1:]
            if before and before[0].shape[1:] != shape:
                raise DatasetError(f"observations {shape}, the first's {before[0].shape[1:]}")
        except DatasetError as error:
            raise DatasetError(f"episode {number}: {error}") from error
        for name, array in steps.items():
            parts.setdefault(name, []).append(array)
    if not parts["action"]:
        raise DatasetError("a dataset needs at least one episode")
    for name in _OPTIONAL:
        if len(parts.get(name, parts["action"])) != len(parts["action"]):
            raise DatasetError(f"some episodes have {name} and some have not; give all or none")
    arrays = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    dataset = Dataset(**arrays, metadata=metadata)
    validate(dataset)
    return dataset


def _steps(episode: Mapping[str, Any], dims: int | None) -> dict[str, np.ndarray]:
    """An episode's steps, laid out as a dataset's; `dims` of its actions, None if discrete."""
    if not isinstance(episode, Mapping):
        raise DatasetError(f"must be a mapping, is a {type(episode).__name__}")
    if missing := [name for name in _EPISODE if name not in episode]:
        raise DatasetError(
            f"lacks {', '.join(missing)}; it must have {', '.join(_EPISODE)}, and has "
            f"{', '.join(map(str, episode)) or 'nothing'}"
        )
    observation, action, reward = (_numbers(name, episode[name]) for name in _EPISODE[:3])
    terminated = np.asarray(episode["terminated"])
    if terminated.ndim or terminated.dtype != np.bool_:
        raise DatasetError(
            "terminated must be one true or false for the whole episode, such as "
            f"bool(terminated[-1]), got {reprlib.repr(episode['terminated'])}"
        )
    for name, array in (("action", action), ("reward", reward)):
        if array.ndim != 1 and (name == "reward" or dims is None):
            raise DatasetError(f"{name} must have shape [L], one number a step, has {array.shape}")
    action = _whole(action) if dims is None else _within_bounds(action, dims)
    length = len(action)
    if length < 1 or len(observation) != length + 1 or len(reward) != length:
        raise DatasetError(
            f"{len(observation)} observations, {length} actions and {len(reward)} rewards; "
            "expected L + 1, L and L with L at least 1"
        )
    step = np.arange(length + 1)
    ended = bool(terminated) & (step >= length - 1)
    with np.errstate(over="ignore"):  # What becomes infinite so is refused.
        observation, reward = observation.astype(np.float32), reward.astype(np.float32)
    return {
        **_optional_steps(episode, length),
        "observation": observation,
        "action": np.concatenate([action, np.zeros_like(action[:1])]),
        "reward": np.append(reward, 0).astype(np.float32),
        "discount": np.where(ended, 0.0, 1.0).astype(np.float32),
        "is_first": step == 0,
        "is_last": step == length,
    }


def _optional_steps(episode: Mapping[str, Any], length: int) -> dict[str, np.ndarray]:
    """Probabilities and masks of an episode of some transitions, if it has them."""
    found = {}
    if (chances := episode.get("probability")) is not None:
        found["probability"] = np.append(_numbers("probability", chances), 1.0).astype(np.float32)
    if (allowed := episode.get("allowed")) is not None:
        found["allowed"] = _numbers("allowed", allowed) != 0
    for name, array in found.items():
        if len(array) != length + 1:
            wanted = "L" if name == "probability" else "L + 1"
            raise DatasetError(f"{length} actions, and {name} is not of {wanted} steps")
    return found


def _whole(action: np.ndarray) -> np.ndarray:
    """Discrete actions [L] as int32."""
    with np.errstate(invalid="ignore"):
        whole = action.astype(np.int32)
    if not np.array_equal(action, whole):
        where = np.flatnonzero(action != whole)[0]
        raise DatasetError(f"actions must be whole numbers, got {action[where]} at step {where}")
    return whole


def _within_bounds(action: np.ndarray, dims: int) -> np.ndarray:
    """Continuous actions [L, D] as float32, within [-1, 1]."""
    if action.ndim != 2 or action.shape[1] != dims:
        raise DatasetError(
            f"action must have shape [L, {dims}], as action_dims says, has {action.shape}"
        )
    with np.errstate(over="ignore"):
        action = action.astype(np.float32)
    _check_bounds(action)
    return action


def _check_bounds(action: np.ndarray) -> None:
    wrong = np.argwhere(~(np.abs(action) <= 1.0))
    if len(wrong):
        step, dimension = wrong[0]
        raise DatasetError(
            f"action is {action[step, dimension]} at step {step}, dimension {dimension}, outside "
            "[-1, 1]; rescale actions from their own bounds"
        )


def _numbers(name: str, values: Any) -> np.ndarray:
    """Numbers of any real kind, as an array of at least one axis."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # Of different lengths.
        raise DatasetError(f"{name} must be numbers in one shape ({error})") from error
    if array.dtype.kind not in "biuf" or not array.ndim:
        what = "a single value" if not array.ndim else f"values of type {array.dtype}"
        raise DatasetError(f"{name} must be a list of numbers, got {what}")
    if array.dtype.kind in "iu" and array.size and name != "action":
        largest = max(int(array.max()), -int(array.min()))
        if largest > _WHOLE:
            raise DatasetError(
                f"{name} reaches {largest}, and beyond {_WHOLE} float32 does not hold every whole "
                "number; subtract an offset, or divide"
            )
    return array


def _check_facts(metadata: Mapping[str, Any]) -> None:
    """Raises DatasetError if metadata say something of the wrong type or out of range."""
    if "num_actions" in metadata and "action_dims" in metadata:
        raise DatasetError("metadata have num_actions and action_dims: actions are of one kind")
    if "num_actions" not in metadata and "action_dims" not in metadata:
        raise DatasetError("metadata lacks num_actions, or action_dims if actions are continuous")
    shape = metadata.get("packed_shape")
    try:
        for name, (low, high) in _COUNTS.items():
            if name in metadata and (name, metadata[name]) != ("max_episode_steps", None):
                checks.within(name, metadata[name], low, high, integer=True)
        if "noise" in metadata:
            checks.within("noise", metadata["noise"], 0.0, 1.0)
        if shape is not None and (not isinstance(shape, list) or not shape):
            raise ValueError(f"packed_shape must be a list of sizes, got {shape!r}")
        for size in shape or ():
            checks.within("a size of packed_shape", size, 1, integer=True)
        for name in ("action_low", "action_high"):
            _check_bound(name, metadata.get(name), metadata.get("action_dims"))
    except ValueError as error:
        raise DatasetError(f"metadata: {error}") from error
    for name in _TEXTS:
        if not isinstance(metadata.get(name, ""), str):
            raise DatasetError(f"metadata: {name} must be a text, got {metadata[name]!r}")


def _check_bound(name: str, bound: Any, dims: int | None) -> None:
    """Raises ValueError if bounds of the environment's actions are there and are not D numbers."""
    if bound is None:
        return
    if dims is None or not isinstance(bound, list) or len(bound) != dims:
        raise ValueError(f"{name} must be a list of action_dims numbers, got {bound!r}")
    for number in bound:
        checks.within(f"a number of {name}", number, -_LARGEST, _LARGEST)


def _check_forms(forms: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raises DatasetError if arrays, of which only shape and type are looked at, do not fit."""
    steps = forms["action"].shape[:1]
    packed, actions = metadata.get("packed_shape"), of_metadata(metadata)
    for name, kind in {**_KINDS, "action": actions.dtype}.items():
        shape, dtype = forms[name].shape, forms[name].dtype
        if name == "observation" and packed:
            if dtype != np.uint8 or shape[1:] != (-(-math.prod(packed) // 8),):
                raise DatasetError(
                    f"observations of shape {tuple(packed)} packed to bits must be uint8 "
                    f"[N, {-(-math.prod(packed) // 8)}], got {dtype} {list(shape)}"
                )
        elif dtype != kind:
            raise DatasetError(f"{name} must be {np.dtype(kind)}, is {dtype}")
        if name == "action" and actions.shape:
            if shape[1:] != actions.shape:
                raise DatasetError(
                    f"action must have shape [N, {actions.shape[0]}], as action_dims says, has "
                    f"{list(shape)}"
                )
        elif name != "observation" and len(shape) != 1:
            raise DatasetError(f"{name} must have shape [N], has {list(shape)}")
        if not shape or 0 in shape[1:]:
            raise DatasetError(f"{name} must have shape [N, ...], has {list(shape)}")
        if shape[:1] != steps:
            raise DatasetError(f"{name} has {shape[0]} steps, action has {steps[0]}")
    for name, kind in _OPTIONAL.items():
        if name not in forms:
            continue
        if actions.continuous and name == "allowed":
            raise DatasetError("allowed is of discrete actions only; leave it out")
        wanted = (*steps, metadata["num_actions"]) if name == "allowed" else steps
        if (forms[name].shape, forms[name].dtype) != (wanted, kind):
            raise DatasetError(
                f"{name} must be {np.dtype(kind)} {list(wanted)}, is {forms[name].dtype} "
                f"{list(forms[name].shape)}"
            )
    if steps[0] > _STEPS:
        raise DatasetError(f"{steps[0]:,} steps are more than the {_STEPS:,} that windows count")


def _check_finite(name: str, array: np.ndarray) -> None:
    low, high = array.min(), array.max()  # NaN if there is one.
    if max(-low, high) <= _LARGEST:
        return
    wrong = ~(np.abs(array) <= _LARGEST)
    where = int(np.argwhere(wrong)[0][0])
    value = float(array[wrong][0])
    if math.isfinite(value):
        raise DatasetError(
            f"{name} is {value:.4g} at step {where}, and at most {_LARGEST:g} can be learned from: "
            "a mark for what is missing, or to be divided"
        )
    raise DatasetError(
        f"{name} is not finite (NaN, infinity, or too large for float32) at step {where}"
    )


def validate(dataset: Dataset) -> None:
    """Raises DatasetError, naming the array and the step, if a dataset breaks its contract."""
    _check_facts(dataset.metadata)
    for name in _ARRAYS:
        if not isinstance(array := getattr(dataset, name), np.ndarray):
            raise DatasetError(f"{name} must be a NumPy array, is a {type(array).__name__}")
    _check_forms(dataset.arrays, dataset.metadata)
    steps = dataset.num_steps
    first, last = np.flatnonzero(dataset.is_first), np.flatnonzero(dataset.is_last)
    if not len(first) or len(first) != len(last) or first[0] != 0 or last[-1] != steps - 1:
        raise DatasetError("episodes are not whole: is_first and is_last do not pair up")
    if (first[1:] != last[:-1] + 1).any() or (first >= last).any():
        raise DatasetError("episodes are not whole: is_first and is_last do not pair up")
    for name in _ARRAYS:
        if getattr(dataset, name).dtype.kind == "f":
            _check_finite(name, getattr(dataset, name))
    if not np.isin(dataset.discount, (0.0, 1.0)).all():
        raise DatasetError("discount must be 0 at a true end and 1 elsewhere")
    ends = np.flatnonzero(dataset.discount == 0.0)
    near_end = dataset.is_last | np.append(dataset.is_last[1:], False)
    if not near_end[ends].all() or (dataset.discount[last] != dataset.discount[last - 1]).any():
        raise DatasetError("discount is 0 inside an episode, or its last two steps disagree")
    for name in ("action", "reward"):
        after = getattr(dataset, name)[last]
        if after.any():
            where = int(np.argwhere(after)[0][0])
            raise DatasetError(
                f"{name} must be 0 at the last step of an episode, where nothing follows; it is "
                f"{after[where]} at step {last[where]}"
            )
    if dataset.actions.continuous:
        _check_bounds(dataset.action)
        return _check_optional(dataset)
    num_actions = dataset.metadata["num_actions"]
    wrong = np.flatnonzero((dataset.action < 0) | (dataset.action >= num_actions))
    if wrong.size:
        raise DatasetError(
            f"action {dataset.action[wrong[0]]} at step {wrong[0]} is outside 0..{num_actions - 1}"
        )
    _check_optional(dataset)


def _check_optional(dataset: Dataset) -> None:
    """Raises DatasetError if probabilities or masks contradict the actions that were taken."""
    if dataset.probability is not None:
        most = _LARGEST if dataset.actions.continuous else 1.0
        wrong = np.flatnonzero(~((dataset.probability > 0.0) & (dataset.probability <= most)))
        if wrong.size:
            raise DatasetError(
                f"probability is {dataset.probability[wrong[0]]} at step {wrong[0]}, and of an "
                f"action that was taken it is above 0, at most {most:g}"
            )
    if dataset.allowed is not None:
        taken = np.take_along_axis(dataset.allowed, dataset.action[:, None], axis=1)[:, 0]
        wrong = np.flatnonzero(~np.where(dataset.is_last, dataset.allowed.any(axis=1), taken))
        if wrong.size:
            raise DatasetError(
                f"allowed at step {wrong[0]} is {dataset.allowed[wrong[0]].tolist()}, and action "
                f"{dataset.action[wrong[0]]} was taken there"
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


def moments(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each element of an observation, float64 [...], over all steps.

    The deviation is 0 where it is no more than float32's rounding of the values.

    Raises:
      DatasetError: if observations are packed to bits.
    """
    if dataset.metadata.get("packed_shape"):
        raise DatasetError("observations packed to bits are not standardised")
    steps = dataset.observation
    mean = steps.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for begin in range(0, len(steps), _AT_ONCE):
        squares += np.square(steps[begin : begin + _AT_ONCE] - mean).sum(axis=0)
    deviation = np.sqrt(squares / len(steps))
    largest = np.maximum(np.abs(steps.min(axis=0)), np.abs(steps.max(axis=0)))
    return mean, np.where(deviation <= _ROUNDING * largest, 0.0, deviation)


def returns_to_go(dataset: Dataset, discount: float) -> np.ndarray:
    """The discounted return that follows each step in the data, 0 at last ones. Shape [N]."""
    reward, total, found = dataset.reward.astype(np.float64), 0.0, []
    for one, last in zip(reward[::-1].tolist(), dataset.is_last[::-1].tolist()):
        total = 0.0 if last else one + discount * total
        found.append(total)
    return np.asarray(found[::-1])


def statistics(dataset: Dataset, random_returns: np.ndarray, seed: int) -> pd.DataFrame:
    """One row about a recording of an online agent's training, the normalised score's ends in it.

    Args:
      dataset: the recording.
      random_returns: episode returns of the uniform policy, the score's 0 on average. Shape
        [episodes].
      seed: of the recording.

    Returns:
      `environment`, `noise`, `episodes`, `transitions`, `mean_return`, `online_return` (the mean
      of the last tenth of the episodes, exploration included: the score's 1), `random_return`,
      `random_episodes`, `seed` and `checksum`.

    Raises:
      DatasetError: if the metadata do not name the environment.
      ValueError: if the random returns are not finite, or there are none.
    """
    if "environment" not in dataset.metadata:
        raise DatasetError("metadata lacks environment, in which it was recorded")
    random_returns = np.asarray(random_returns, np.float64)
    if random_returns.ndim != 1 or not np.isfinite(random_returns).all() or not len(random_returns):
        raise ValueError("random_returns must be finite numbers [episodes], at least one")
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
    """SHA-256 over every array (name, type, shape, bytes) and the metadata.

    A recording whose observations are on disk (`frames.Recording`) has its own.
    """
    if not isinstance(dataset, Dataset):
        return dataset.checksum
    digest = hashlib.sha256()
    for name, array in dataset.arrays.items():
        array = np.ascontiguousarray(array)
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
    arrays: dict[str, Any] = {"header": json.dumps(header, sort_keys=True), **dataset.arrays}
    np.savez_compressed(buffer, **arrays)
    files.write_whole(path, buffer.getvalue())


_ADVICE = (
    "not a dataset of ours: make whole episodes of its rows with datasets.from_episodes, and write "
    "those with datasets.save"
)


def load(path: str | os.PathLike[str]) -> Dataset:
    """Reads a dataset and checks that it is whole, unaltered and well formed.

    Sizes and types are looked at before any data are read.

    Raises:
      FileNotFoundError: if there is no such file, naming the folder and what is like it there.
      DatasetError: if the file is another kind of file, cut short or damaged, holds pickled
        objects, needs more memory than there is, is of another version, fails its checksum, or
        breaks the contract of `Dataset`.
    """
    path = files.expanded(path)
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    try:
        with npz.opened(path, ("header", *_ARRAYS), tuple(_OPTIONAL)) as archive:
            header = _header(archive)
            _check_facts(header["metadata"])
            _check_forms(archive.forms, header["metadata"])
            arrays = {name: archive.read(name) for name in archive.forms if name != "header"}
        dataset = Dataset(**arrays, metadata=header["metadata"])
        if checksum(dataset) != header["checksum"]:
            raise DatasetError("altered since it was written (its checksum does not match)")
        validate(dataset)
        episodes = dataset.metadata.get("episodes", dataset.num_episodes)
        if episodes != dataset.num_episodes:
            raise DatasetError(f"metadata count {episodes} episodes, of {dataset.num_episodes}")
    except npz.OtherKindError as error:
        raise DatasetError(f"{path}: {error}; {_ADVICE}") from error
    except npz.DamagedError as error:
        raise DatasetError(f"{path}: {error}; collect it again") from error
    except (npz.NpzError, DatasetError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return dataset


def form(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], Actions]:
    """Shape of an observation and action space of a dataset's file, whose data stay unread.

    Raises:
      FileNotFoundError: if there is no such file.
      DatasetError: see `load`.
    """
    path = files.expanded(path)
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    try:
        with npz.opened(path, ("header", *_ARRAYS), tuple(_OPTIONAL)) as archive:
            metadata = _header(archive)["metadata"]
            _check_facts(metadata)
            _check_forms(archive.forms, metadata)
            shape = metadata.get("packed_shape") or archive.forms["observation"].shape[1:]
            return tuple(shape), _actions(metadata, masked="allowed" in archive.forms)
    except (npz.NpzError, DatasetError) as error:
        raise DatasetError(f"{path}: {error}") from error


def _missing(path: Path) -> str:
    """What to say of a dataset that is not there."""
    if path.is_dir():
        return f"{path} is a folder, not a dataset; name a file in it, such as NAME.npz"
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"no dataset {path}: there is no folder {folder}"
    beside = sorted(p.name for p in folder.glob("*.npz"))
    if close := checks.nearest(path.name, beside).partition("Valid:")[0].strip():
        return f"no dataset {path.name} in {folder}: {close}"
    there = ", ".join(beside[:5]) + (f" and {len(beside) - 5} more" if len(beside) > 5 else "")
    return f"no dataset {path.name} in {folder}; it has {there or 'none'}"


def _header(archive: npz.Archive) -> dict[str, Any]:
    """The header of a dataset's file, its version checked."""
    text = str(archive.read("header"))
    try:
        header = json.loads(text)
        if not isinstance(header, dict) or not {"version", "checksum", "metadata"} <= header.keys():
            raise DatasetError("its header is not a dataset's; collect it again")
        header["metadata"] = _facts(header["metadata"])
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"its header is no JSON ({error}); collect it again") from error
    if header["version"] != VERSION:
        raise DatasetError(
            f"format version {header['version']}, this code reads {VERSION}; collect it again"
        )
    return header


def check_fits(dataset: Dataset, observation_shape: Sequence[int], actions: Actions) -> None:
    """Raises DatasetError if a dataset was not recorded in an environment of this form."""
    got = dataset.observation_shape
    if got != tuple(observation_shape):
        raise DatasetError(
            f"dataset of {dataset.metadata.get('environment')} has observations {got}, "
            f"the environment {tuple(observation_shape)}"
        )
    if dataset.actions != actions:
        raise DatasetError(
            f"dataset of {dataset.metadata.get('environment')} has {described(dataset.actions)}, "
            f"the environment {described(actions)}"
        )
