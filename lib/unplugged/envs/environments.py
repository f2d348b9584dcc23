"""Environments by name, all as `dm_env.Environment`; they know nothing of learning."""

from __future__ import annotations

import functools
import importlib
import math
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
from unplugged.envs import atari, control
from unplugged.model.actions import Actions, Discrete, Normal

BSUITE: dict[str, Callable[[int], dm_env.Environment]] = {  # seed -> environment
    "cartpole": lambda seed: cartpole.Cartpole(seed=seed),
    "catch": lambda seed: catch.Catch(seed=seed),
    "mountain_car": lambda seed: mountain_car.MountainCar(seed=seed),
    # Of their sweeps one setting each; the first has no randomness, the last needs a memory.
    "discounting_chain_1": lambda seed: discounting_chain.DiscountingChain(mapping_seed=1),
    "umbrella_length_10": lambda seed: umbrella_chain.UmbrellaChain(chain_length=10, seed=seed),
    "memory_len_2": lambda seed: memory_chain.MemoryChain(memory_length=2, seed=seed),
}


def uniform(actions: specs.Array, rng: np.random.Generator) -> int | np.ndarray:
    """An action of the uniform policy: a number, or an array [D] within its bounds, float32."""
    if isinstance(actions, specs.DiscreteArray):
        return int(rng.integers(actions.num_values))
    return rng.uniform(actions.minimum, actions.maximum, actions.shape).astype(np.float32)


# Gymnasium registers these without a time limit, which an evaluation needs.
LIMITS = {"Blackjack-v1": 100, "CliffWalking-v1": 1_000, "CliffWalkingSlippery-v1": 1_000}


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

    def step(self, action: Any) -> dm_env.TimeStep:
        """One step, with `action` or with a random one."""
        if self._rng.random() < self._noise:
            action = uniform(self.action_spec(), self._rng)
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
    """A Gymnasium environment with Box observations, and Discrete or bounded Box actions.

    Actions of a Box are given in [-1, 1]^D, raveled, and rescaled to its bounds.
    """

    def __init__(self, environment: gymnasium.Env, seed: int):
        actions, observations = environment.action_space, environment.observation_space
        if isinstance(actions, gymnasium.spaces.Box):
            check_bounded(actions)
        elif not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
            raise ValueError(f"actions must be Discrete from 0 or a Box, got {actions}")
        if not isinstance(observations, gymnasium.spaces.Box):
            raise ValueError(f"observations must be a Box, got {observations}")
        self._environment = environment
        self._actions: Any = actions
        self._seed: int | None = seed

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        observation, _ = self._environment.reset(seed=self._seed)
        self._seed = None  # Seeded once; later episodes go on from there.
        return dm_env.restart(np.asarray(observation, np.float32))

    def step(self, action: Any) -> dm_env.TimeStep:
        """One step; a Gymnasium truncation keeps discount 1."""
        box = isinstance(self._actions, gymnasium.spaces.Box)
        own = rescaled(action, self._actions) if box else int(action)
        observation, reward, terminated, truncated, _ = self._environment.step(own)
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

    def action_spec(self) -> specs.DiscreteArray | specs.BoundedArray:
        """Actions 0..num_values - 1, or [D] in [-1, 1]."""
        if isinstance(self._actions, gymnasium.spaces.Box):
            return specs.BoundedArray((math.prod(self._actions.shape),), np.float32, -1.0, 1.0)
        return specs.DiscreteArray(int(self._actions.n))


class WithMask(gymnasium.Wrapper):
    """Observations [D + A] that end with `info["action_mask"]`, which actions are allowed.

    Raises:
      ValueError: if observations are no vectors, actions are not Discrete, or there is no mask.
    """

    def __init__(self, environment: gymnasium.Env):
        super().__init__(environment)
        shape, actions = environment.observation_space.shape, environment.action_space
        if shape is None or len(shape) != 1 or not isinstance(actions, gymnasium.spaces.Discrete):
            raise ValueError(
                "masks are for observations that are vectors and Discrete actions, got "
                f"{environment.observation_space} and {actions}"
            )
        size = (shape[0] + int(actions.n),)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, size, np.float32)

    def reset(self, **options: Any) -> Any:
        """Begins an episode."""
        observation, info = self.env.reset(**options)
        return self._masked(observation, info), info

    def step(self, action: Any) -> Any:
        """One step."""
        observation, *rest, info = self.env.step(action)
        return (self._masked(observation, info), *rest, info)

    def _masked(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        if "action_mask" not in info:
            raise ValueError(
                f"{self.env} gives no info['action_mask'] but {sorted(info)}; leave out masks by "
                "benchmark: gymnasium"
            )
        return np.concatenate([observation, info["action_mask"]]).astype(np.float32)


def check_bounded(box: gymnasium.spaces.Box) -> None:
    """Raises ValueError if actions of a Box are not floats between finite bounds."""
    if (
        not np.issubdtype(box.dtype, np.floating)
        or not (np.isfinite(box.low) & np.isfinite(box.high)).all()
    ):
        raise ValueError(
            f"actions of a Box must be floats with finite bounds, got {box}; register it with "
            "gymnasium.wrappers.TransformAction(..., lambda action: action, Box(low, high)) around "
            "it, with bounds of your own"
        )


def _centre(box: gymnasium.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half the width of a Box, each float64 [*shape]."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    return (high + low) / 2.0, (high - low) / 2.0


def rescaled(action: np.ndarray, box: gymnasium.spaces.Box) -> np.ndarray:
    """Actions [..., D] in [-1, 1] as a bounded Box has them, [..., *shape]."""
    centre, half = _centre(box)
    action = np.asarray(action, np.float64)
    own = centre + half * action.reshape(*action.shape[:-1], *box.shape)
    return np.clip(own, box.low, box.high).astype(box.dtype)


def unscaled(action: np.ndarray, box: gymnasium.spaces.Box) -> np.ndarray:
    """Actions [N, *shape] of a bounded Box as float32 [N, D], in [-1, 1] if they are in the Box.

    It undoes `rescaled`, up to rounding; a dimension without width is 0.
    """
    centre, half = (x.ravel() for x in _centre(box))
    own = np.asarray(action, np.float64).reshape(len(action), -1)
    return ((own - centre) / np.where(half > 0.0, half, 1.0)).astype(np.float32)


def flat_shape(space: gymnasium.Space) -> tuple[int, ...] | None:
    """Shape of an observation of a Box, or of what `flattened` makes of a space; else None."""
    if isinstance(space, gymnasium.spaces.Box):
        return space.shape
    return gymnasium.spaces.flatten_space(space).shape if _flattens(space) else None


def _flattens(space: gymnasium.Space) -> bool:
    if isinstance(space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)):
        parts = space.spaces
        return all(map(_flattens, parts.values() if isinstance(parts, dict) else parts))
    kinds = gymnasium.spaces
    known = (kinds.Box, kinds.Discrete, kinds.MultiDiscrete, kinds.MultiBinary)
    return isinstance(space, known)


def flattened(space: gymnasium.Space, values: Any) -> np.ndarray:
    """What `gymnasium.spaces.flatten` makes of N values of a space, float32 [N, D], at once.

    Args:
      space: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these.
      values: [N, ...]; of a Dict or Tuple one such array for each of its parts.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [flattened(one, values[name]) for name, one in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, gymnasium.spaces.Tuple):
        return np.concatenate([flattened(*pair) for pair in zip(space.spaces, values)], axis=1)
    array = np.asarray(values)
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[array - space.start]
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        columns = (array - space.start).reshape(len(array), -1).T
        sizes = space.nvec.ravel()
        codes = [np.eye(size, dtype=np.float32)[x] for size, x in zip(sizes, columns)]
        return np.concatenate(codes, axis=1)
    return array.reshape(len(array), -1).astype(np.float32)


def _bsuite(name: str, seed: int) -> dm_env.Environment:
    return BSUITE[checks.one_of("bsuite environment", name, BSUITE)](seed)


def _gymnasium(name: str, seed: int, *, masked: bool = False) -> dm_env.Environment:
    raw = _registered(name)
    if name in LIMITS:
        raw = gymnasium.wrappers.TimeLimit(raw, LIMITS[name])
    space = raw.observation_space
    if not isinstance(space, gymnasium.spaces.Box) and flat_shape(space) is not None:
        raw = gymnasium.wrappers.FlattenObservation(raw)
    try:
        if not _limited(raw):
            raise ValueError(
                "has no time limit, so that an episode may never end; register it with one, as in "
                "gymnasium.register(..., max_episode_steps=1000)"
            )
        return FromGymnasium(WithMask(raw) if masked else raw, seed)
    except ValueError as error:
        raw.close()
        advice = ""
        if not isinstance(raw.observation_space, gymnasium.spaces.Box):
            advice = (
                ", or what Gymnasium flattens to one; register it with a wrapper that makes a Box "
                "of it (docs/extending.md, Your own environment)"
            )
        raise ValueError(f"gymnasium environment {name!r}: {error}{advice}") from error


def _registered(name: str) -> gymnasium.Env:
    """What Gymnasium makes of an id, or of "module:id" after it imported the module."""
    module, _, own = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"module {module!r} of gymnasium environment {name!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    try:
        return gymnasium.make(name)
    except Exception as error:
        if own in gymnasium.registry or isinstance(error, gymnasium.error.DependencyNotInstalled):
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"gymnasium environment {name!r} cannot be made: {why}") from error
        close = checks.nearest(own, gymnasium.registry).partition("Valid:")[0].strip()
        hint = close or "see gymnasium.registry"
        if not module:
            hint += f"; if a module of yours registers it, name that too: 'module:{name}'"
        raise ValueError(f"unknown gymnasium environment {name!r}: {hint}") from error


def _limited(world: gymnasium.Env) -> bool:
    """Whether any of what wraps an environment is a time limit."""
    while isinstance(world, gymnasium.Wrapper):
        if isinstance(world, gymnasium.wrappers.TimeLimit):
            return True
        world = world.env
    return False


def same(one: str, other: str) -> bool:
    """Whether two names are of one environment; only one may name its module, as "module:id"."""
    (module, _, own), (module_too, _, own_too) = one.rpartition(":"), other.rpartition(":")
    return own == own_too and (not module or not module_too or module == module_too)


MAKERS: dict[str, Callable[[str, int], dm_env.Environment]] = {
    "atari": atari.Atari,
    "bsuite": _bsuite,
    "control": control.Control,
    "gymnasium": _gymnasium,
    "gymnasium_masked": functools.partial(_gymnasium, masked=True),
}


def make(benchmark: str, name: str, *, seed: int, noise: float = 0.0) -> dm_env.Environment:
    """Builds an environment whose episodes are a stream of its own, given by `seed`.

    Args:
      benchmark: one of `MAKERS`.
      name: one of `BSUITE`, `control.TASKS` or `atari.GAMES`; or a Gymnasium id such as
        "CartPole-v1", or "module:id" if a module must be imported that registers it.
      seed: seed of the episodes, and of the noise.
      noise: probability that an action is replaced by a uniform one. In [0, 1].

    Returns:
      The environment. Its actions are numbers from 0, or arrays [D] in [-1, 1].

    Raises:
      ValueError: if there is no such benchmark or environment, naming the nearest; if one of
        Gymnasium's has no time limit, or other spaces than `FromGymnasium` takes; if what an
        environment needs is not installed.
    """
    maker = MAKERS[checks.one_of("benchmark", benchmark, MAKERS)]
    checks.within("noise", noise, 0.0, 1.0)
    environment_seed, noise_seed = np.random.SeedSequence(seed).generate_state(2)
    environment = maker(name, int(environment_seed))
    return ActionNoise(environment, noise, int(noise_seed)) if noise else environment


def form(environment: dm_env.Environment) -> tuple[tuple[int, ...], Actions]:
    """Shape of an observation, and the action space."""
    shape, actions = tuple(environment.observation_spec().shape), environment.action_spec()
    if isinstance(actions, specs.DiscreteArray):
        return shape, Discrete(int(actions.num_values))
    return shape, Normal(math.prod(actions.shape))
