"""RL Unplugged's episodes of the DM Control suite (Gulcehre et al., 2020), from files on disk.

They are `dm_control_suite_episodes/{task}/train-*-of-00100`: whole episodes, a record each. A step
holds the reward and the discount that came with its observation, so both move by one to be what
followed the action. The same data in TFDS's form, `rlu_control_suite/{task}/1.0.0`, is read too;
its names begin with `steps/` and its rewards have moved already.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from unplugged.common import checks, files
from unplugged.data import datasets, tfrecord
from unplugged.data.datasets import DatasetError
from unplugged.envs import control

_STEPS = "steps/"  # of names in TFDS's form
_OBSERVATION = "observation/"
# Tasks by their folders' names; one is cut short in places.
_FOLDERS = {name.replace(".", "_"): name for name in control.TASKS} | {"swim": "fish.swim"}


def read(folder: str | os.PathLike[str], environment: str | None = None) -> datasets.Dataset:
    """Reads all episodes of a task.

    Args:
      folder: that of the task's files.
      environment: one of `control.TASKS`; None: the one that the folder, or one above, is named
        for, such as cartpole_swingup.

    Returns:
      The episodes, in the order of their timestamps where they have some. An observation is its
      parts raveled in the order of their sorted names, as in the live environment.

    Raises:
      FileNotFoundError: if there are no such files.
      DatasetError: if a file is missing or damaged; if a record is no whole episode; or if
        observations or actions are not those of the task, where dm_control is installed.
      ValueError: if there is no such task.
    """
    folder = files.expanded(folder)
    environment = _task(folder, environment)
    shards = tfrecord.shards(folder)
    found: list[tuple[tuple[int, int], dict[str, Any]]] = []
    sizes: dict[str, int] = {}
    for path in shards:
        for number, record in enumerate(tfrecord.records(path)):
            try:
                order, parts, episode = _episode(tfrecord.example(record), environment)
                if (sizes := sizes or parts) != parts:
                    raise DatasetError(f"its parts are {parts}, those before {sizes}")
            except DatasetError as error:
                raise DatasetError(f"{path}: record {number}: {error}") from error
            found.append((order, episode))
    if not found:
        raise DatasetError(f"{folder} holds no episodes")
    dims = found[0][1]["action"].shape[1]
    if environment == "finger.turn_hard" and "touch" not in sizes:
        raise DatasetError(
            f"{folder} lacks observation/touch, which TFDS leaves out and dm_control gives: take "
            "RL Unplugged's own files"
        )
    _check_live(folder, environment, sizes, dims)
    episodes = [episode for _, episode in sorted(found, key=lambda one: one[0])]
    return datasets.from_episodes(
        episodes,
        {
            "benchmark": "control",
            "environment": environment,
            "action_dims": dims,
            "noise": 0.0,
            "episodes": len(episodes),
            "max_episode_steps": control.LENGTH,
            "collected_by": "RL Unplugged, dm_control_suite_episodes",
            "code_version": datasets.CODE_VERSION,
        },
    )


def _task(folder: Path, environment: str | None) -> str:
    if environment is not None:
        return checks.one_of("control task", environment, control.TASKS)
    for name in reversed(folder.absolute().parts):
        if name in _FOLDERS:
            return _FOLDERS[name]
    raise ValueError(
        f"{folder} is named for no task: give environment=, one of {', '.join(control.TASKS)}"
    )


def _episode(
    features: dict[str, Any], environment: str
) -> tuple[tuple[int, int], dict[str, int], dict[str, Any]]:
    """When it was recorded, sizes of an observation's parts, and the episode."""
    moved = any(name.startswith(_STEPS) for name in features)
    steps = {name.removeprefix(_STEPS): values for name, values in features.items()}
    if missing := [name for name in ("action", "reward", "discount") if name not in steps]:
        raise DatasetError(f"lacks {', '.join(missing)}; it has {', '.join(sorted(steps))}")
    length = len(steps["reward"])
    if "episodic_reward" in steps or length <= 2:
        raise DatasetError(
            "is a transition of two steps, not an episode: take the folder "
            f"dm_control_suite_episodes/{environment.replace('.', '_')}"
        )
    parts = {
        name.removeprefix(_OBSERVATION): values
        for name, values in steps.items()
        if name.startswith(_OBSERVATION)
    }
    if not parts:
        raise DatasetError(f"has no observation/...; it has {', '.join(sorted(steps))}")
    discount = np.asarray(steps["discount"])
    if len(discount) != length:
        raise DatasetError(f"has {length} rewards and {len(discount)} discounts")
    followed = slice(0, -1) if moved else slice(1, None)
    discount = discount[followed]
    if (discount[:-1] != 1.0).any() or discount[-1] not in (0.0, 1.0):
        raise DatasetError("has a discount that is neither 1 nor, at the end, 0")
    kinds = np.asarray(steps.get("step_type", [0, *[1] * (length - 2), 2]))
    if kinds.tolist() != [0, *[1] * (length - 2), 2]:
        raise DatasetError("is no whole episode by its step_type")
    order = tuple(
        int(steps[name][0]) if name in steps else 0 for name in ("timestamp", "episode_id")
    )
    episode = {
        "observation": tfrecord.joined(parts, length),
        "action": tfrecord.joined({"action": steps["action"]}, length)[:-1],
        "reward": np.asarray(steps["reward"])[followed],
        "terminated": bool(discount[-1] == 0.0),
    }
    sizes = {name: len(values) // length for name, values in sorted(parts.items())}
    return (order[0], order[1]), sizes, episode


def _check_live(folder: Path, environment: str, sizes: dict[str, int], dims: int) -> None:
    """Raises DatasetError if the task, where it can be made, is of another form than the files."""
    try:
        world = control.Control(environment, 0)
    except ValueError:  # It is not installed.
        return
    live = {name: int(np.prod(spec.shape)) for name, spec in world.parts().items()}
    (live_dims,) = world.action_spec().shape
    world.close()
    if (sizes, dims) != (live, live_dims):
        raise DatasetError(
            f"{folder} is not of {environment} as dm_control has it: observations {sizes} and "
            f"actions of {dims}, there {live} and {live_dims}"
        )
