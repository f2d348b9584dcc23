"""Environments by name, all as `dm_env.Environment`; they know nothing of learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dm_env
import gymnasium
import numpy as np
from bsuite.environments import (
    cartpole,
    catch,
    discounting_chain,
    memory_chain,
    mountain_car,
    umbrella_chain,
)
from dm_env import specs

from unplugged.common import checks

BSUITE: dict[str, Callable[[int], dm_env.Environment]] = {  # seed -> environment
    "cartpole": lambda seed: cartpole.Cartpole(seed=seed),
    "catch": lambda seed: catch.Catch(seed=seed),
    "mountain_car": lambda seed: mountain_car.MountainCar(seed=seed),
    # Of their sweeps one setting each; the first has no randomness, the last needs a memory.
    "discounting_chain_1": lambda seed: discounting_chain.DiscountingChain(mapping_seed=1),
    "umbrella_length_10": lambda seed: umbrella_chain.UmbrellaChain(chain_length=10, seed=seed),
    "memory_len_2": lambda seed: memory_chain.MemoryChain(memory_length=2, seed=seed),
}


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
        # Discrete, as the constructor saw. No check here: a run is known by this class's code.
        return specs.DiscreteArray(int(self._environment.action_space.n))  # type: ignore[attr-defined]


def _bsuite(name: str, seed: int) -> dm_env.Environment:
    return BSUITE[checks.one_of("bsuite environment", name, BSUITE)](seed)


def _gymnasium(name: str, seed: int) -> dm_env.Environment:
    try:
        raw = gymnasium.make(name)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"gymnasium environment {name!r} cannot be made: {error}") from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        close = checks.nearest(name, gymnasium.registry).split("Valid:")[0].strip()
        hint = close or "see gymnasium.registry"
        raise ValueError(f"unknown gymnasium environment {name!r}: {hint}") from error
    return FromGymnasium(raw, seed)


MAKERS: dict[str, Callable[[str, int], dm_env.Environment]] = {
    "bsuite": _bsuite,
    "gymnasium": _gymnasium,
}


def make(benchmark: str, name: str, *, seed: int, noise: float = 0.0) -> dm_env.Environment:
    """Builds an environment whose episodes are a stream of its own, given by `seed`.

    Args:
      benchmark: one of `MAKERS`.
      name: one of `BSUITE`; or a Gymnasium id such as "CartPole-v1".
      seed: seed of the episodes, and of the noise.
      noise: probability that an action is replaced by a uniform one. In [0, 1].

    Raises:
      ValueError: if there is no such benchmark or environment, naming the nearest.
    """
    maker = MAKERS[checks.one_of("benchmark", benchmark, MAKERS)]
    checks.within("noise", noise, 0.0, 1.0)
    environment_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2)
    environment = maker(name, int(environment_seed))
    return ActionNoise(environment, noise, int(noise_seed)) if noise else environment


def form(environment: dm_env.Environment) -> tuple[tuple[int, ...], int]:
    """Shape of an observation, and the number of actions."""
    return tuple(environment.observation_spec().shape), int(environment.action_spec().num_values)
