"""Minari datasets in and out: observations as vectors, Discrete or Box actions, whole episodes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path

from unplugged.common import checks
from unplugged.data import datasets
from unplugged.envs import environments

# Under this key Minari's metadata of an export carries ours, with a checksum.
_EXPORT_KEY = "unplugged"

# What Minari recommends and an export leaves out knowingly.
_EXPORT_WARNINGS = (
    r"`(code_permalink|author|author_email|eval_env)` is set to None|env_spec is None"
)


def from_minari(
    dataset: minari.MinariDataset | str, *, environment: str | None = None, masks: bool = True
) -> datasets.Dataset:
    """Reads a Minari dataset into memory.

    An episode truly ended if its last step is a termination. Any other was truncated: one
    whose last step is a truncation, one that is both not (cut off, and nobody said so).

    A dataset that `to_minari` wrote gets its metadata back as it was, and its checksum is
    compared. Any other is of the benchmark "gymnasium", with noise 0; or, where infos were recorded
    and have `action_mask`, of "gymnasium_masked", with which actions were allowed.

    Args:
      dataset: a Minari dataset, or the id of a local one (nothing is downloaded). Its
        observations are a Box of any shape and type, cast to float32, or Discrete, MultiDiscrete,
        MultiBinary, Dict or Tuple, flattened as Gymnasium does (images come as Minari
        keeps them, by its default as JPEG); its actions are Discrete and start at 0, or are a
        bounded Box of floats, and then rescaled from its bounds to [-1, 1] and raveled.
      environment: the Gymnasium id to evaluate in. None: the one that the dataset names.
      masks: whether `action_mask` is looked at; without, all actions are allowed.

    Returns:
      All episodes of the dataset, or of the selection that it is, in its order.

    Raises:
      FileNotFoundError: if there is no local dataset of that id, naming the nearest.
      DatasetError: if Minari cannot open it; if the spaces are of another kind; if there are
        no episodes, or one is damaged, goes on past an end, or holds what is not finite; if
        an export of ours was altered.
      ValueError: if `environment` is needed: the dataset names none, or it was recorded with
        other arguments or wrappers than `gymnasium.make` gives to the id that it names.
    """
    if isinstance(dataset, str):
        dataset = _local_minari(dataset)
    actions, observations = dataset.action_space, dataset.observation_space
    _check_actions(dataset.id, actions)
    if environments.flat_shape(observations) is None:
        raise datasets.DatasetError(
            f"{dataset.id}: observations must be a Box, got {observations}, or what "
            "Gymnasium flattens to one; record in an environment that is registered with a wrapper "
            "that makes a Box of it (docs/extending.md, Your own environment)"
        )
    if dataset.total_episodes == 0:
        raise datasets.DatasetError(f"{dataset.id}: holds no episodes")
    carried = dataset.storage.metadata.get(_EXPORT_KEY)
    if carried and not (
        isinstance(carried, Mapping) and {"checksum", "metadata"} <= carried.keys()
    ):
        raise datasets.DatasetError(f"{dataset.id}: its metadata under {_EXPORT_KEY!r} are damaged")
    metadata = carried["metadata"] if carried else _minari_facts(dataset, environment)
    try:
        episodes = [
            {
                **_minari_episode(episode, observations, actions),
                **_infos(episode, actions, masks or carried),
            }
            for episode in dataset.iterate_episodes()
        ]
        if any("allowed" in episode for episode in episodes) and not carried:
            metadata = {**metadata, "benchmark": "gymnasium_masked"}
        if not carried:  # A number of that name may be of anything.
            episodes = [{k: x for k, x in of.items() if k != "probability"} for of in episodes]
        result = datasets.from_episodes(episodes, metadata)
    except datasets.DatasetError as error:
        remedy = "; masks=False leaves masks out" if "allowed" in str(error) else ""
        raise datasets.DatasetError(f"{dataset.id}: {error}{remedy}") from error
    except (OSError, KeyError) as error:
        raise datasets.DatasetError(f"{dataset.id}: cut short or damaged ({error})") from error
    if carried:
        changed: dict[str, Any] = {}
        stored = np.arange(dataset.storage.total_episodes)
        if not np.array_equal(dataset.episode_indices, stored):
            changed["episodes"] = len(episodes)
        elif datasets.checksum(result) != carried["checksum"]:
            raise datasets.DatasetError(
                f"{dataset.id}: altered since it was exported (its checksum does not match)"
            )
        if environment not in (None, metadata.get("environment")):
            changed.update(benchmark="gymnasium", environment=environment)
        result = dataclasses.replace(
            result,
            allowed=result.allowed if masks else None,
            metadata={**result.metadata, **changed},
        )
    return result


def to_minari(
    dataset: datasets.Dataset,
    dataset_id: str,
    *,
    author: str | None = None,
    description: str | None = None,
) -> minari.MinariDataset:
    """Exports a dataset to Minari's local store; `from_minari` reads it back unchanged.

    The spaces are a Box without bounds, of the observation's shape and type float32, and
    Discrete(num_actions) or, of continuous actions, a Box of the environment's own bounds, to which
    they are rescaled; they come back up to rounding. The environment goes along if Gymnasium can
    make it; bsuite's are none of Gymnasium's, so theirs is None. Our metadata and a checksum are in
    Minari's metadata under "unplugged". What else Minari recommends for publishing can be added
    with `storage.update_metadata` of the result.

    Args:
      dataset: what to export.
      dataset_id: "(namespace/)name-v(number)", such as "catch/dqn-v0".
      author: who made it.
      description: what it is, in a sentence. None: a sentence made from the metadata.

    Returns:
      The Minari dataset.

    Raises:
      DatasetError: if the dataset breaks the contract of `Dataset`, or its observations are packed
        to bits, as MinAtar's are.
      ValueError: if the id is malformed, or there is a dataset of that id already.
    """
    _check_exportable(dataset)
    path = _free_minari_path(dataset_id)
    metadata = dict(dataset.metadata)
    actions, own = _own_actions(dataset)
    carried = {
        "checksum": datasets.checksum(_come_back(dataset, actions, own)),
        "metadata": metadata,
    }
    benchmark = metadata.get("benchmark")
    environment: Any = metadata.get("environment")
    collected_by = metadata.get("collected_by", "unknown")
    world = None
    if environment in gymnasium.registry or ":" in str(environment):  # One of Gymnasium's ids.
        world = _gymnasium_or_none(environment, metadata.get("max_episode_steps"))
    shape = dataset.observation.shape[1:]
    buffers = _episode_buffers(dataset, own)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _EXPORT_WARNINGS, UserWarning)
            exported = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=world,
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32),
                action_space=actions,
                algorithm_name=str(collected_by),
                author=author,
                description=description
                or f"{dataset.num_episodes} episodes of {benchmark} {environment}, "
                f"action noise {metadata.get('noise')}, collected by {collected_by}",
            )
        exported.storage.update_metadata({_EXPORT_KEY: carried})
    except (FileExistsError, ValueError):
        raise  # Another process may have taken the id since: its files, not ours to remove.
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        if world is not None:
            world.close()
    return exported


def _local_minari(dataset_id: str) -> minari.MinariDataset:
    root = get_dataset_path()
    if not dataset_id or not (root / dataset_id / "data").is_dir():
        # Not minari.list_local_datasets: one folder that it cannot name makes it raise.
        here = [p.parents[1].relative_to(root).as_posix() for p in root.rglob("data/metadata.json")]
        raise FileNotFoundError(
            f"no local Minari dataset {dataset_id!r} in {root}: "
            f"{checks.nearest(dataset_id, here) if here else 'there are none'}"
        )
    try:
        return minari.load_dataset(dataset_id)
    except (AssertionError, KeyError, OSError, ValueError) as error:
        raise datasets.DatasetError(f"{dataset_id}: Minari cannot open it ({error!r})") from error


def _minari_facts(dataset: minari.MinariDataset, environment: str | None) -> dict[str, Any]:
    """Our metadata for a Minari dataset that is no export of ours."""
    spec, stored = dataset.env_spec, dataset.storage.metadata
    if environment is None:
        if spec is None:
            raise ValueError(
                f"{dataset.id} does not say in which environment it was recorded: "
                "give environment=, a Gymnasium id"
            )
        differs = _beyond_the_id(spec)
        if differs:
            raise ValueError(
                f"{dataset.id} was recorded in {spec.id} with {differs}, which the id alone "
                "does not bring back: give environment=, the Gymnasium id to evaluate in"
            )
        environment = spec.id
    authors = ", ".join(sorted(stored.get("author", ())))
    algorithm = stored.get("algorithm_name")
    collected_by = f"Minari dataset {dataset.id}"
    collected_by += f", by {authors}" if authors else ""
    collected_by += f", with {algorithm}" if algorithm else ""
    return {
        "benchmark": "gymnasium",
        "environment": environment,
        **_action_facts(dataset.action_space),
        "noise": 0.0,
        "episodes": int(dataset.total_episodes),
        "max_episode_steps": None if spec is None else spec.max_episode_steps,
        "collected_by": collected_by,
        "minari_version": dataset.minari_version,
        "code_version": datasets.CODE_VERSION,
    }


def _beyond_the_id(spec: EnvSpec) -> str:
    """Arguments and wrappers of a spec that its id does not imply; "" if none, or not known.

    A time limit of its own does not count: it changes where episodes are cut, not the
    environment.
    """
    made = _gymnasium_or_none(spec.id, None)
    if made is None or made.spec is None:
        return ""
    made.close()
    implied_by_id = made.spec

    def plain(arguments: Mapping[str, Any]) -> dict[str, str]:
        return {
            name: json.dumps(value, sort_keys=True, default=str)
            for name, value in arguments.items()
            if name != "render_mode"
        }

    recorded, implied = plain(spec.kwargs), plain(implied_by_id.kwargs)
    names = sorted(recorded.keys() | implied.keys())
    differs = [
        f"{name}={recorded.get(name, 'its default')}"
        for name in names
        if recorded.get(name) != implied.get(name)
    ]
    if spec.additional_wrappers != implied_by_id.additional_wrappers:
        differs += [f"wrapper {wrapper.name}" for wrapper in spec.additional_wrappers]
    return ", ".join(differs)


def _check_actions(name: str, actions: gymnasium.Space) -> None:
    """Raises DatasetError if actions of a dataset of that name are of a kind that we have not."""
    try:
        if isinstance(actions, gymnasium.spaces.Box):
            environments.check_bounded(actions)
        elif not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
            raise ValueError(f"actions must be Discrete from 0 or a Box, got {actions}")
    except ValueError as error:
        raise datasets.DatasetError(f"{name}: {error}") from error


def _action_facts(actions: Any) -> dict[str, Any]:
    """What our metadata say of an action space."""
    if not isinstance(actions, gymnasium.spaces.Box):
        return {"num_actions": int(actions.n)}
    low, high = actions.low.ravel(), actions.high.ravel()
    bounds = {"action_low": low.tolist(), "action_high": high.tolist()}
    return {
        "action_dims": len(low),
        **({} if (low == -1.0).all() and (high == 1.0).all() else bounds),
    }


def _own_actions(dataset: datasets.Dataset) -> tuple[gymnasium.Space, np.ndarray]:
    """The space of an environment's own actions, and a dataset's actions in it, [N, ...]."""
    if not dataset.actions.continuous:
        return gymnasium.spaces.Discrete(dataset.metadata["num_actions"]), dataset.action
    low, high = (
        np.array(dataset.metadata.get(name, np.full(dataset.actions.shape, default)), np.float32)
        for name, default in (("action_low", -1.0), ("action_high", 1.0))
    )
    box = gymnasium.spaces.Box(low, high, dtype=np.float32)
    return box, environments.rescaled(dataset.action, box)


def _come_back(
    dataset: datasets.Dataset, actions: gymnasium.Space, own: np.ndarray
) -> datasets.Dataset:
    """What `from_minari` gives back: the dataset, continuous actions rounded."""
    if not isinstance(actions, gymnasium.spaces.Box):
        return dataset
    rounded = np.where(dataset.is_last[:, None], 0.0, environments.unscaled(own, actions))
    return dataclasses.replace(dataset, action=rounded.astype(np.float32))


def _minari_episode(
    episode: minari.EpisodeData, space: gymnasium.Space, actions: gymnasium.Space
) -> dict[str, Any]:
    """One episode as `datasets.from_episodes` takes it, which checks the other lengths."""
    shape = environments.flat_shape(space)
    if isinstance(space, gymnasium.spaces.Box):
        observation = np.asarray(episode.observations)
    else:
        observation = environments.flattened(space, episode.observations)
    if observation.shape[1:] != shape:
        raise datasets.DatasetError(
            f"episode {episode.id} has observations {observation.shape[1:]}, the space {shape}"
        )
    terminations, truncations = (
        np.asarray(ends) for ends in (episode.terminations, episode.truncations)
    )
    if not (np.isin(terminations, (0, 1)).all() and np.isin(truncations, (0, 1)).all()):
        raise datasets.DatasetError(
            f"episode {episode.id}: terminations and truncations must be true or false"
        )
    terminations, truncations = terminations.astype(bool), truncations.astype(bool)
    length, action = len(episode.actions), np.asarray(episode.actions)
    if isinstance(actions, gymnasium.spaces.Box):
        if action.shape[1:] != actions.shape:
            raise datasets.DatasetError(
                f"episode {episode.id} has actions {action.shape[1:]}, the space {actions.shape}"
            )
        action = environments.unscaled(action, actions)
    if length < 1 or len(terminations) != length or len(truncations) != length:
        raise datasets.DatasetError(
            f"episode {episode.id}: {length} actions, {len(terminations)} terminations and "
            f"{len(truncations)} truncations; expected as many of each, at least 1"
        )
    early = np.flatnonzero((terminations | truncations)[:-1])
    if early.size:
        raise datasets.DatasetError(
            f"episode {episode.id} goes on past the end it has at step {early[0]}"
        )
    return {
        "observation": observation,
        "action": action,
        "reward": episode.rewards,
        "terminated": bool(terminations[-1]),
    }


# What infos of Minari's episodes may have, and what it is called in ours; an entry a state.
_INFOS = {"action_mask": "allowed", "probability": "probability"}


def _infos(episode: minari.EpisodeData, actions: Any, masks: Any) -> dict[str, Any]:
    """Masks and probabilities of an episode, as `datasets.from_episodes` takes them."""
    found = {name: (episode.infos or {}).get(key) for key, name in _INFOS.items()}
    if not masks or isinstance(actions, gymnasium.spaces.Box):
        del found["allowed"]
    if found["probability"] is not None:
        found["probability"] = np.asarray(found["probability"])[: len(episode.actions)]
    return {name: x for name, x in found.items() if x is not None}


def _check_exportable(dataset: datasets.Dataset) -> None:
    """Raises DatasetError unless `from_minari` can give back every array as it is."""
    datasets.validate(dataset)
    if shape := dataset.metadata.get("packed_shape"):
        raise datasets.DatasetError(
            f"observations packed to bits, {tuple(shape)} as in MinAtar's recordings, are not "
            "exported; only float32 observations are"
        )


def _free_minari_path(dataset_id: str) -> Path:
    """Where a new dataset goes; raises ValueError if Minari would not take the id."""
    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:  # TypeError: an id without a version.
        raise ValueError(
            f"{dataset_id!r} is no Minari dataset id: (namespace/)name-v(number), "
            "such as 'catch/dqn-v0'"
        ) from error
    path = get_dataset_path(dataset_id)
    if path.exists():
        raise ValueError(
            f"there is a Minari dataset {dataset_id!r} already, and it is not overwritten: "
            "export to another id or version, or call minari.delete_dataset first"
        )
    return path


def _gymnasium_or_none(environment: str, max_episode_steps: int | None) -> gymnasium.Env | None:
    """The environment, if it can be made and Minari can write down what it is."""
    try:
        world = gymnasium.make(environment, max_episode_steps=max_episode_steps)
        if world.spec is not None:
            world.spec.to_json()
        return world
    except Exception:
        return None  # Not installed here, or of code without a name; the metadata have its id.


def _episode_buffers(dataset: datasets.Dataset, actions: np.ndarray) -> list[EpisodeBuffer]:
    """The episodes as Minari's buffers, views of our arrays, with the environment's own actions."""
    buffers = []
    for start, last in zip(np.flatnonzero(dataset.is_first), np.flatnonzero(dataset.is_last)):
        final = np.arange(start, last) == last - 1
        ended = bool(dataset.discount[last] == 0.0)
        told = ((key, getattr(dataset, name)) for key, name in _INFOS.items())
        infos = {key: x[start : last + 1] for key, x in told if x is not None}
        buffers.append(
            EpisodeBuffer(
                observations=dataset.observation[start : last + 1],
                actions=actions[start:last],
                rewards=dataset.reward[start:last],
                terminations=final & ended,
                truncations=final & (not ended),
                infos=infos or None,
            )
        )
    return buffers
