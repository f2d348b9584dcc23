"""Recording of a BSuite DQN through its training (ROSMO, Appendix E)."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from bsuite.baselines.jax import dqn
from tqdm.auto import tqdm

from unplugged.common import checks
from unplugged.data import datasets
from unplugged.envs import environments


def train_dqn(environment: str, *, episodes: int, noise: float, seed: int) -> datasets.Dataset:
    """Trains the DQN that bsuite ships, default agent, and records every episode.

    The agent draws from NumPy's global generator, which is seeded here.

    Args:
      environment: a bsuite environment.
      episodes: how many episodes to train for.
      noise: probability that the environment replaces an action. In [0, 1].
      seed: seed of environment, noise and agent.

    Raises:
      ValueError: if an argument is out of range or there is no such environment.
    """
    checks.within("episodes", episodes, 1, integer=True)
    checks.within("seed", seed, 0, integer=True)
    world = environments.make("bsuite", environment, seed=seed, noise=noise)
    np.random.seed(seed)
    agent = dqn.default_agent(world.observation_spec(), world.action_spec(), seed)
    recorded = []
    for _ in tqdm(range(episodes), desc=f"{environment}, noise {noise}", mininterval=5.0):
        step = world.reset()
        observation, action, reward = [step.observation], [], []
        while not step.last():
            chosen = agent.select_action(step)
            new_step = world.step(chosen)
            agent.update(step, chosen, new_step)
            action.append(chosen)
            reward.append(new_step.reward)
            observation.append(new_step.observation)
            step = new_step
        recorded.append(
            {
                "observation": observation,
                "action": action,
                "reward": reward,
                "terminated": step.discount == 0.0,
            }
        )
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
