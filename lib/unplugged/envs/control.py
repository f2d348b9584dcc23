"""The DM Control suite's tasks of MuZero Unplugged's Table 3, by name (Tassa et al., 2018).

Observations are a task's arrays raveled in the order of their sorted names, float32. Actions lie in
[-1, 1]. A step is a step of the task, without repeated actions. An episode is 1,000 steps long and
ends as a truncation: its last discount is 1.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from unplugged.common import checks

TASKS = (
    "cartpole.swingup", "finger.turn_hard", "fish.swim", "manipulator.insert_ball",
    "manipulator.insert_peg", "walker.stand", "walker.walk", "cheetah.run", "humanoid.run",
)  # fmt: skip
LENGTH = 1_000


def suite() -> Any:
    """`dm_control.suite`, which draws nothing unless MUJOCO_GL says how.

    Raises:
      ValueError: if it is not installed, naming the extra; or cannot be imported with that
        MUJOCO_GL.
    """
    os.environ.setdefault("MUJOCO_GL", "disabled")  # It is read at the import.
    try:
        return importlib.import_module("dm_control.suite")
    except ImportError as error:
        raise ValueError(
            f"control needs dm_control and mujoco ({error}): pip install -e '.[control]'"
        ) from error
    except (AttributeError, RuntimeError) as error:  # No such way to draw, or not here.
        raise ValueError(
            f"dm_control cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']} "
            f"({type(error).__name__}: {error}); leave it unset, which is disabled"
        ) from error


def flat(observation: Mapping[str, Any]) -> np.ndarray:
    """Arrays by name as one vector, float32, in the order of the sorted names."""
    return np.concatenate([np.ravel(observation[name]) for name in sorted(observation)]).astype(
        np.float32
    )


class Control(dm_env.Environment):
    """A task of the suite, its observations raveled; actions [D] in [-1, 1]."""

    def __init__(self, name: str, seed: int):
        domain, _, task = checks.one_of("control task", name, TASKS).partition(".")
        self._environment = suite().load(domain, task, task_kwargs={"random": seed})
        self._dims = self._environment.action_spec().shape

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        step = self._environment.reset()
        return step._replace(observation=flat(step.observation))

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        """One step, with an action [D]."""
        step = self._environment.step(action)
        return step._replace(observation=flat(step.observation))

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def observation_spec(self) -> specs.Array:
        """Shape and type of an observation."""
        sizes = [int(np.prod(spec.shape)) for spec in self.parts().values()]
        return specs.Array((sum(sizes),), np.float32)

    def action_spec(self) -> specs.BoundedArray:
        """Actions [D] in [-1, 1], which all of these tasks have for bounds of their own."""
        return specs.BoundedArray(self._dims, np.float32, -1.0, 1.0)

    def parts(self) -> dict[str, specs.Array]:
        """Of what an observation is made: the suite's spec of each array, by sorted names."""
        return dict(sorted(self._environment.observation_spec().items()))
