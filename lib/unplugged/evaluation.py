"""Returns of a policy on the real environments, episodes in lock-step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from unplugged import acting, checks, environments, games
from unplugged.networks import Model, Params
from unplugged.settings import Settings

Policy = Callable[[Params, np.ndarray, jax.Array], jax.Array]

MAX_STEPS = 1_000_000


def make_policy(model: Model, selector: str, settings: Settings) -> Policy:
    """Compiles (params, observation [B, ...], key) -> action [B], drawn by a selector."""
    select = acting.SELECTORS[checks.one_of("selector", selector, acting.SELECTORS)]

    def act(params: Params, observation: jax.Array, key: jax.Array) -> jax.Array:
        select_key, draw_key = jax.random.split(key)
        probabilities = select(model, params, observation, select_key, settings)
        return jax.random.categorical(draw_key, jnp.log(probabilities))

    return jax.jit(act)


def evaluate(
    policy: Policy,
    params: Params,
    environments: Sequence[dm_env.Environment],
    key: jax.Array,
    max_steps: int = MAX_STEPS,
) -> np.ndarray:
    """Plays one episode in each environment, with one batched policy call a step.

    Args:
      policy: see `make_policy`.
      params: the policy's parameters.
      environments: B environments, each with a seed of its own.
      key: the policy's randomness.
      max_steps: after how many steps an episode is taken to be endless.

    Returns:
      Undiscounted returns. Shape [B].

    Raises:
      RuntimeError: if an episode does not end.
    """
    steps = [environment.reset() for environment in environments]
    observation = np.stack([step.observation for step in steps]).astype(np.float32)
    returns = np.zeros(len(environments))
    running = list(range(len(environments)))
    time = 0
    while running:
        if time == max_steps:
            raise RuntimeError(
                f"{len(running)} of {len(environments)} episodes go on after {max_steps:,} steps; "
                "register the environment with a time limit (max_episode_steps)"
            )
        actions = np.asarray(policy(params, observation, jax.random.fold_in(key, time)))
        still_running = []
        for i in running:
            step = environments[i].step(int(actions[i]))
            returns[i] += step.reward
            observation[i] = step.observation
            if not step.last():
                still_running.append(i)
        running = still_running
        time += 1
    return returns


def evaluator(
    benchmark: str,
    environment: str,
    model: Model,
    selector: str,
    settings: Settings,
    episodes: int,
) -> Callable[[Params, int, int], np.ndarray]:
    """(params, seed, update) -> returns [episodes] of fresh episodes, for any benchmark.

    The same seed and update give the same episodes. Games that are JAX functions play in one
    compiled call, other environments in lock-step.
    """
    policy = make_policy(model, selector, settings)
    if benchmark in games.BENCHMARKS:
        game = games.make(benchmark, environment)

        @jax.jit
        def play(params: Params, key: jax.Array) -> jax.Array:
            act = functools.partial(policy, params)
            return games.play(game, act, key, episodes)[0]

        return lambda params, seed, update: np.asarray(
            play(params, jax.random.fold_in(jax.random.key(seed), update)), np.float64
        )

    def lock_step(params: Params, seed: int, update: int) -> np.ndarray:
        worlds = [
            environments.make(
                benchmark,
                environment,
                seed=int(np.random.SeedSequence([seed, update, i]).generate_state(1)[0]),
            )
            for i in range(episodes)
        ]
        try:
            key = jax.random.fold_in(jax.random.key(seed), update)
            return evaluate(policy, params, worlds, key)
        finally:
            for world in worlds:
                world.close()

    return lock_step
