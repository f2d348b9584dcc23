"""Recording of a BSuite DQN through its training (ROSMO, Appendix E)."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from bsuite.baselines.jax import dqn
from tqdm.auto import tqdm

from unplugged.common import checks, hashing
from unplugged.data import datasets
from unplugged.envs import environments
from unplugged.recording.partial import Arrays, Partial

SAVE_EVERY = 2_000  # transitions between two saved states of a recording, some seconds
_NOT_AS_BEFORE = "the environment does not play its episodes as before"

_Episode = dict[str, Any]  # as `datasets.from_episodes` wants it


def _episode(
    world: dm_env.Environment,
    act: Callable[[dm_env.TimeStep], int],
    learn: Callable[[dm_env.TimeStep, int, dm_env.TimeStep], None],
) -> _Episode:
    step = world.reset()
    observation, action, reward = [step.observation], [], []
    while not step.last():
        chosen = act(step)
        new_step = world.step(chosen)
        learn(step, chosen, new_step)
        action.append(chosen)
        reward.append(new_step.reward)
        observation.append(new_step.observation)
        step = new_step
    return {
        "observation": observation,
        "action": action,
        "reward": reward,
        "terminated": step.discount == 0.0,
    }


def _seen(episode: _Episode) -> np.ndarray:
    """A hash of what an environment showed in an episode. Shape [32]."""
    shown = np.asarray(episode["observation"]).tobytes() + np.asarray(episode["reward"]).tobytes()
    return np.frombuffer(hashlib.sha256(shown).digest(), np.uint8)


def _part(episodes: Sequence[_Episode]) -> Arrays:
    """Episodes as what is needed to play them again."""
    return {
        "action": np.concatenate([episode["action"] for episode in episodes]),
        "seen": np.stack([_seen(episode) for episode in episodes]),
    }


def _state(agent: dqn.DQN) -> Arrays:
    """What the agent has learned, and NumPy's global generator, of which it draws."""
    generator = np.random.get_state(legacy=False)
    learned = {f"agent_{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(agent._state))}
    drawn = {name: np.asarray(generator[name]) for name in ("has_gauss", "gauss")}
    return {**learned, **drawn, **generator["state"]}


def _next(actions: Iterator[int], _: dm_env.TimeStep) -> int:
    return next(actions)


def _go_on(
    world: dm_env.Environment, agent: dqn.DQN, parts: Sequence[Arrays], state: Arrays
) -> list[_Episode]:
    """Brings a fresh environment and agent to where a recording was cut off.

    The environment plays the recorded actions again, which takes it to its state, whatever that
    consists of, and fills the agent's replay; the agent does not learn meanwhile. Neither needs
    to be saved.

    Returns:
      The episodes so far.

    Raises:
      RuntimeError: if the environment does not show what it showed before.
    """
    least, agent._min_replay_size = agent._min_replay_size, math.inf
    recorded = []
    for part in parts:
        actions = iter(part["action"].tolist())
        for seen in part["seen"]:
            try:
                recorded.append(_episode(world, functools.partial(_next, actions), agent.update))
            except StopIteration:
                raise RuntimeError(_NOT_AS_BEFORE) from None
            if not np.array_equal(_seen(recorded[-1]), seen):
                raise RuntimeError(_NOT_AS_BEFORE)
    agent._min_replay_size = least
    leaves = [jnp.asarray(state[f"agent_{i}"]) for i in range(len(jax.tree.leaves(agent._state)))]
    agent._state = jax.tree.unflatten(jax.tree.structure(agent._state), leaves)
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": state["key"], "pos": int(state["pos"])},
            "has_gauss": int(state["has_gauss"]),
            "gauss": float(state["gauss"]),
        }
    )
    return recorded


def train_dqn(
    environment: str,
    *,
    episodes: int,
    noise: float,
    seed: int,
    partial: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Trains the DQN that bsuite ships, default agent, and records every episode.

    The agent draws from NumPy's global generator, which is seeded here.

    Args:
      environment: a bsuite environment.
      episodes: how many episodes to train for.
      noise: probability that the environment replaces an action. In [0, 1].
      seed: seed of environment, noise and agent.
      partial: folder for what is recorded so far, from where it goes on after a kill to the same
        bytes; it is the caller's to remove. None: nothing is kept.

    Raises:
      ValueError: if an argument is out of range or there is no such environment.
      RuntimeError: if the environment cannot be brought to where a recording was cut off.
    """
    checks.within("episodes", episodes, 1, integer=True)
    checks.within("seed", seed, 0, integer=True)
    packages = ("jax", "bsuite", "dm-haiku", "optax", "rlax", "numpy")
    identity = {
        "environment": environment, "episodes": episodes, "noise": noise, "seed": seed,
        "code": hashing.of_modules([__name__]), "versions": hashing.versions(packages),
        "device": jax.default_backend(),
    }  # fmt: skip
    kept = Partial(partial, identity)
    world = environments.make("bsuite", environment, seed=seed, noise=noise)
    np.random.seed(seed)
    agent = dqn.default_agent(world.observation_spec(), world.action_spec(), seed)
    recorded: list[_Episode] = []
    if (found := kept.restore()) is not None:
        try:
            recorded = _go_on(world, agent, *found)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: delete {partial} to record anew") from None
    saved, waiting = len(recorded), 0
    name = f"{environment}, noise {noise}"
    for number in tqdm(
        range(saved, episodes), desc=name, mininterval=5.0, initial=saved, total=episodes
    ):
        recorded.append(_episode(world, agent.select_action, agent.update))
        waiting += len(recorded[-1]["action"])
        if waiting >= SAVE_EVERY or number == episodes - 1:
            kept.save(_part(recorded[saved:]), _state(agent))
            saved, waiting = len(recorded), 0
    metadata = {
        "benchmark": "bsuite",
        "environment": environment,
        "num_actions": int(world.action_spec().num_values),
        "noise": noise,
        "episodes": episodes,
        "seed": seed,
        "collected_by": "bsuite.baselines.jax.dqn, default_agent, through training",
        "bsuite_version": importlib.metadata.version("bsuite"),
        "code_version": datasets.CODE_VERSION,
    }
    return datasets.from_episodes(recorded, metadata)


def random_returns(environment: str, *, episodes: int, seed: int) -> np.ndarray:
    """Returns of the uniform policy, without noise. Shape [episodes]."""
    checks.within("episodes", episodes, 1, integer=True)
    world = environments.make("bsuite", environment, seed=seed)
    rng = np.random.default_rng(seed)
    returns = np.zeros(episodes)
    for i in range(episodes):
        step = world.reset()
        while not step.last():
            step = world.step(int(rng.integers(world.action_spec().num_values)))
            returns[i] += step.reward
    return returns
