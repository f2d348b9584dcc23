"""Returns of a policy on the real environments, compiled or with episodes in lock-step."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from unplugged.common import checks, hashing
from unplugged.envs import environments, games, tabular
from unplugged.learning import contracts
from unplugged.learning.settings import Settings
from unplugged.model.networks import Model, Params
from unplugged.planning import acting

Policy = Callable[[Params, np.ndarray, jax.Array], jax.Array]

MAX_STEPS = 1_000_000
# Seconds after which an evaluation tells how far it is, and again and again.
_PATIENCE = 30.0


def draw(model: Model, selector: str, settings: Settings, *, greedy: bool = False) -> Any:
    """(params, observation [B, ...], key) -> actions and their probabilities, to be compiled.

    Actions [B] are drawn by a selector from the probabilities [B, A] or, if `greedy`, are the most
    probable ones. Continuous actions are [B, D], and have no probabilities (None).
    """
    if greedy and selector == "policy" and model.actions.continuous:
        selector = "greedy"  # Of all actions, not of those drawn.
    select = acting.SELECTORS[checks.one_of("selector", selector, acting.SELECTORS)]

    def act(
        params: Params, observation: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        select_key, draw_key = jax.random.split(key)
        answer = contracts.select(select, model, params, observation, select_key, settings)
        choice = answer if isinstance(answer, acting.Choice) else None
        probabilities = answer if choice is None else choice.probabilities
        if greedy:
            chosen = jnp.argmax(probabilities, axis=-1)
        else:
            chosen = jax.random.categorical(draw_key, jnp.log(probabilities))
        if choice is None:
            return chosen, probabilities
        return jnp.take_along_axis(choice.actions, chosen[:, None, None], axis=1)[:, 0], None

    return act


def make_policy(model: Model, selector: str, settings: Settings, *, greedy: bool = False) -> Policy:
    """Compiles (params, observation [B, ...], key) -> action [B] or [B, D], see `draw`."""
    act = draw(model, selector, settings, greedy=greedy)
    return jax.jit(lambda params, observation, key: act(params, observation, key)[0])


def playable(action: np.ndarray) -> int | np.ndarray:
    """An action as environments take it, a continuous one clipped to [-1, 1]."""
    return np.clip(action, -1.0, 1.0) if action.ndim else int(action)


def evaluate(
    policy: Policy,
    params: Params,
    environments: Sequence[dm_env.Environment],
    key: jax.Array,
    max_steps: int = MAX_STEPS,
) -> np.ndarray:
    """Plays one episode in each environment, with one batched policy call a step.

    Args:
      policy: see `make_policy`; continuous actions are clipped to [-1, 1].
      params: the policy's parameters.
      environments: B environments, each with a seed of its own.
      key: the policy's randomness.
      max_steps: after how many steps an episode is taken to be endless.

    Returns:
      Undiscounted returns. Shape [B]. How far it is, is printed now and then if it takes long.

    Raises:
      RuntimeError: if an episode does not end.
    """
    begin = said = time.perf_counter()
    steps = [environment.reset() for environment in environments]
    observation = np.stack([step.observation for step in steps]).astype(np.float32)
    returns = np.zeros(len(environments))
    running = list(range(len(environments)))
    number = 0
    while running:
        if number == max_steps:
            raise RuntimeError(
                f"{len(running)} of {len(environments)} episodes go on after {max_steps:,} steps; "
                "register the environment with a time limit (max_episode_steps)"
            )
        actions = np.asarray(policy(params, observation, jax.random.fold_in(key, number)))
        still_running = []
        for i in running:
            step = environments[i].step(playable(actions[i]))
            returns[i] += step.reward
            observation[i] = step.observation
            if not step.last():
                still_running.append(i)
        running = still_running
        number += 1
        if (now := time.perf_counter()) - said > _PATIENCE:
            said = now
            tqdm.write(
                f"evaluation: {len(running)} of {len(environments)} episodes go on at step "
                f"{number:,}, after {now - begin:.0f} s",
                file=sys.stdout,
            )
    return returns


class Evaluator(Protocol):
    """Fresh episodes: the same seed and update give the same ones."""

    def __call__(self, params: Params, seed: int, update: int) -> np.ndarray:
        """Undiscounted returns [episodes]."""
        ...

    def identity(self, params: Params) -> str:
        """A hash of the program that plays or acts, see `identity`."""
        ...


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Episodes of a game that is JAX functions, in one compiled call.

    Attributes:
      game: the game.
      policy: see `make_policy`.
      episodes: how many.
    """

    game: games.Game
    policy: Policy
    episodes: int

    @functools.cached_property
    def _play(self) -> Any:
        def play(params: Params, key: jax.Array) -> jax.Array:
            act = functools.partial(self.policy, params)
            return games.play(self.game, act, key, self.episodes)[0]

        return jax.jit(play)

    def __call__(self, params: Params, seed: int, update: int) -> np.ndarray:
        """Undiscounted returns [episodes]."""
        key = jax.random.fold_in(jax.random.key(seed), update)
        return np.asarray(self._play(params, key), np.float64)

    def identity(self, params: Params) -> str:
        """A hash of the program that plays."""
        return hashing.of_program(self._play, params, jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Tabular:
    """Episodes of a known decision process, all at once.

    Attributes:
      process: what is acted in.
      policy: see `make_policy`; its observations end with the masks.
      episodes: how many.
    """

    process: Callable[[], tabular.Process]
    policy: Policy
    episodes: int

    def __call__(self, params: Params, seed: int, update: int) -> np.ndarray:
        """Undiscounted returns [episodes]."""
        process, rng = self.process(), np.random.default_rng([seed, update])
        keys = _keys(jax.random.fold_in(jax.random.key(seed), update))
        rows = process.play(
            lambda state: np.asarray(self.policy(params, process.observe(state), next(keys))),
            self.episodes,
            rng,
        )
        return rows.groupby("episode")["reward"].sum().to_numpy()

    def identity(self, params: Params) -> str:
        """A hash of the policy's program."""
        seen = self.process().observe(np.zeros(self.episodes, int))
        observation = jax.ShapeDtypeStruct(seen.shape, np.float32)
        return hashing.of_program(self.policy, params, observation, jax.random.key(0))


class Exact:
    """The discounted return of a policy in a known process, by a linear solve.

    Args:
      process: what is acted in.
      probabilities: (params, observation, key) -> probabilities [B, A], to be compiled.
      discount: gamma.
    """

    def __init__(self, process: tabular.Process, probabilities: Any, discount: float):
        self._process, self._discount = process, discount
        self._act = jax.jit(probabilities)
        self._seen = process.observe(np.arange(len(process.begin)))
        self._references = {
            f"exact_{name}": process.value(policy, discount)
            for name, policy in (
                ("data", process.behavior), ("uniform", process.uniform()),
                ("best", process.optimal(discount)),
            )
        }  # fmt: skip

    def __call__(self, params: Params, seed: int, update: int) -> dict[str, float]:
        """`exact_return`; and `exact_data`, `exact_uniform` and `exact_best`, of the recorded
        policy, of the one that takes each allowed action as often, and of the best that is allowed.
        """
        key = jax.random.fold_in(jax.random.key(seed), update)
        policy = np.asarray(self._act(params, self._seen, key), np.float64)
        return {"exact_return": self._process.value(policy, self._discount), **self._references}


def _keys(key: jax.Array) -> Iterator[jax.Array]:
    return (jax.random.fold_in(key, number) for number in itertools.count())


@dataclasses.dataclass(frozen=True)
class LockStep:
    """Episodes of an environment in Python, one batched policy call a step.

    Attributes:
      make: seed -> environment.
      policy: see `make_policy`.
      episodes: how many.
    """

    make: Callable[[int], dm_env.Environment]
    policy: Policy
    episodes: int

    def __call__(self, params: Params, seed: int, update: int) -> np.ndarray:
        """Undiscounted returns [episodes]."""
        worlds = [
            self.make(int(np.random.SeedSequence([seed, update, i]).generate_state(1)[0]))
            for i in range(self.episodes)
        ]
        try:
            key = jax.random.fold_in(jax.random.key(seed), update)
            return evaluate(self.policy, params, worlds, key)
        finally:
            for world in worlds:
                world.close()

    def identity(self, params: Params) -> str:
        """A hash of the policy's program."""
        world = self.make(0)
        try:
            shape, _ = environments.form(world)
        finally:
            world.close()
        observation = jax.ShapeDtypeStruct((self.episodes, *shape), np.float32)
        return hashing.of_program(self.policy, params, observation, jax.random.key(0))
