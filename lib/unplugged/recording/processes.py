"""Recordings of known decision processes, under the policies that they come with."""

from __future__ import annotations

import os

import numpy as np

from unplugged.data import datasets
from unplugged.envs import tabular


def record(
    environment: str, *, seed: int, episodes: int, partial: str | os.PathLike[str] | None = None
) -> datasets.Dataset:
    """Whole episodes with their probabilities and masks.

    Args:
      environment: a row of `tabular.PROCESSES`.
      seed: of the recording.
      episodes: how many.
      partial: not needed, since it takes seconds.
    """
    del partial
    process = tabular.make(environment)
    rng = np.random.default_rng(seed)
    rows = process.play(lambda state: tabular.drawn(process.behavior[state], rng), episodes, rng)
    state, action, reward, following, over = (
        rows[name].to_numpy() for name in ("state", "action", "reward", "following", "ended")
    )
    index = np.repeat(np.arange(len(rows)), 1 + over)  # A row a step, the last one twice.
    is_last = np.zeros(len(index), bool)
    is_last[np.cumsum(1 + over)[over] - 1] = True
    seen = process.observe(np.where(is_last, following[index], state[index]))
    size = process.features.shape[1]
    near_end = is_last | np.append(is_last[1:], False)
    return datasets.Dataset(
        observation=seen[:, :size],
        action=np.where(is_last, 0, action[index]).astype(np.int32),
        reward=np.where(is_last, 0.0, reward[index]).astype(np.float32),
        discount=np.where(near_end, 0.0, 1.0).astype(np.float32),
        is_first=np.append(True, is_last[:-1]),
        is_last=is_last,
        probability=np.where(is_last, 1.0, process.behavior[state[index], action[index]]).astype(
            np.float32
        ),
        allowed=seen[:, size:] > 0.5,
        metadata={
            "benchmark": "tabular",
            "environment": environment,
            "num_actions": process.allowed.shape[1],
            "noise": 0.0,
            "seed": seed,
            "collected_by": "its own policy",
        },
    )


def random_returns(environment: str, *, episodes: int, seed: int) -> np.ndarray:
    """Returns of the policy that takes each allowed action as often. Shape [episodes]."""
    process = tabular.make(environment)
    table = process.record(episodes, seed, process.uniform())
    return table.groupby("episode")["reward"].sum().to_numpy()
