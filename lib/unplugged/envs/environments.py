"""Environments by name, all as `dm_env.Environment`; they know nothing of learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dm_env
import gymnasium
import numpy as np
from bsuite.environments import cartpole, catch, mountain_car
from dm_env import specs

from unplugged.common import checks

BSUITE: dict[str, Callable[..., dm_env.Environment]] = {
    "cartpole": cartpole.Cartpole,
    "catch": catch.Catch,
    "mountain_car": mountain_car.MountainCar,
}

BENCHMARKS = ("bsuite", "gymnasium", "minatar", "gymnax")


class ActionNoise(dm_env.Environment):
    """Replaces the agent's action by a uniform one with some probability (ROSMO, Appendix E).

    The agent is not told: datasets store the action that it chose.
    """

    def __init__(self, environment: dm_env.Environment, noise: float, seed: int):
        self._environment = environment
        self._noise = noise
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        return self._environment.reset()

    def step(self, action: int) -> dm_env.TimeStep:
        """One step, with `action` or with a random one."""
        if self._rng.random() < self._noise:
            action = int(self._rng.integers(self.action_spec().num_values))
        return self._environment.step(action)

    def close(self) -> None:
        """Closes the wrapped environment."""
        self._environment.close()

    def observation_spec(self) -> Any:
        """The wrapped environment's."""
        return self._environment.observation_spec()

    def action_spec(self) -> Any:
        """The wrapped environment's."""
        return self._environment.action_spec()


class FromGymnasium(dm_env.Environment):
    """A Gymnasium environment with Box observations and Discrete actions."""

    def __init__(self, environment: gymnasium.Env, seed: int):
        actions, observations = environment.action_space, environment.observation_space
        if not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
            raise ValueError(f"actions must be Discrete from 0, got {actions}")
        if not isinstance(observations, gymnasium.spaces.Box):
            raise ValueError(f"observations must be a Box, got {observations}")
        self._environment = environment
        self._seed: int | None = seed

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        observation, _ = self._environment.reset(seed=self._seed)
        self._seed = None  # Seeded once; later episodes go on from there.
        return dm_env.restart(np.asarray(observation, np.float32))

    def step(self, action: int) -> dm_env.TimeStep:
        """One step; a Gymnasium truncation keeps discount 1."""
        observation, reward, terminated, truncated, _ = self._environment.step(int(action))
        observation = np.asarray(observation, np.float32)
        if terminated:
            return dm_env.termination(float(reward), observation)
        if truncated:
            return dm_env.truncation(float(reward), observation)
        return dm_env.transition(float(reward), observation)

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def observation_spec(self) -> specs.Array:
        """Shape and type of an observation."""
        return specs.Array(self._environment.observation_space.shape, np.float32)

    def action_spec(self) -> specs.DiscreteArray:
        """Actions 0..num_values - 1."""
        return specs.DiscreteArray(int(self._environment.action_space.n))


def make(benchmark: str, name: str, *, seed: int, noise: float = 0.0) -> dm_env.Environment:
    """Builds an environment whose episodes are a stream of its own, given by `seed`.

    Args:
      benchmark: "bsuite" or "gymnasium".
      name: "cartpole", "catch" or "mountain_car"; or a Gymnasium id such as "CartPole-v1".
      seed: seed of the episodes, and of the noise.
      noise: probability that an action is replaced by a uniform one. In [0, 1].

    Raises:
      ValueError: if there is no such benchmark or environment, naming the nearest.
    """
    checks.one_of("benchmark", benchmark, BENCHMARKS)
    checks.within("noise", noise, 0.0, 1.0)
    environment_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2)
    if benchmark == "bsuite":
        checks.one_of("bsuite environment", name, BSUITE)
        environment = BSUITE[name](seed=int(environment_seed))
    else:
        try:
            raw = gymnasium.make(name)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError(f"gymnasium environment {name!r} cannot be made: {error}") from error
        except (gymnasium.error.Error, ModuleNotFoundError) as error:
            close = checks.nearest(name, gymnasium.registry).split("Valid:")[0].strip()
            hint = close or "see gymnasium.registry"
            raise ValueError(f"unknown gymnasium environment {name!r}: {hint}") from error
        environment = FromGymnasium(raw, int(environment_seed))
    return ActionNoise(environment, noise, int(noise_seed)) if noise else environment


def form(environment: dm_env.Environment) -> tuple[tuple[int, ...], int]:
    """Shape of an observation, and the number of actions."""
    return tuple(environment.observation_spec().shape), int(environment.action_spec().num_values)
