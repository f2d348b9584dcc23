"""What is measured on: datasets of the papers' sizes, Table 4's learner, and how to time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from unplugged import datasets, methods, networks
from unplugged.learner import Learner
from unplugged.settings import BSUITE, Settings

NUM_ACTIONS = 3


@dataclasses.dataclass(frozen=True)
class Form:
    """Shape of a dataset.

    Attributes:
      observation_shape: of one observation.
      episodes: how many.
      mean_length: transitions an episode, on average.
      spread: lengths are uniform within mean_length +- spread.
    """

    observation_shape: tuple[int, ...]
    episodes: int
    mean_length: int
    spread: int


# ROSMO, Table 5: cartpole 630,262 transitions, catch 18,000; 3 actions each.
FORMS = {
    "cartpole": Form((1, 6), episodes=1000, mean_length=630, spread=370),
    "catch": Form((10, 5), episodes=2000, mean_length=9, spread=0),
}


def dataset(name: str, *, seed: int = 0) -> datasets.Dataset:
    """Episodes of random numbers in the form of a bsuite dataset; half of them truncated."""
    form = FORMS[name]
    rng = np.random.default_rng(seed)
    low, high = form.mean_length - form.spread, form.mean_length + form.spread
    episodes = []
    for i in range(form.episodes):
        length = int(rng.integers(low, high + 1))
        shape = (length + 1, *form.observation_shape)
        episodes.append(
            {
                "observation": rng.standard_normal(shape, dtype=np.float32),
                "action": rng.integers(NUM_ACTIONS, size=length),
                "reward": rng.standard_normal(length, dtype=np.float32),
                "terminated": i % 2 == 0,
            }
        )
    return datasets.from_episodes(episodes, {"environment": name, "num_actions": NUM_ACTIONS})


def model(name: str, settings: Settings = BSUITE) -> networks.Model:
    """The learned model for a dataset of `FORMS`."""
    return networks.mlp(
        observation_shape=FORMS[name].observation_shape,
        num_actions=NUM_ACTIONS,
        num_bins=settings.num_bins,
        representation=settings.representation,
        dynamics=settings.dynamics,
        prediction=settings.prediction,
    )


def learner(method: str, name: str, settings: Settings = BSUITE) -> Learner:
    """The fused learner of a method for a dataset of `FORMS`."""
    return Learner(model(name, settings), methods.get(method), settings)


def rates(
    step: Callable[[], int],
    *,
    seconds: float,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Calls `step`, which does and returns some units of work, for a while, several times.

    Args:
      step: one call; returns when its work is done.
      seconds: least time of a repeat, which has at least one call.
      repeats: how often to time; one call before the first is not timed.
      clock: `time.process_time` where another process may take the core for a while.

    Returns:
      Units per second of each repeat.
    """
    step()
    found = []
    for _ in range(repeats):
        done, elapsed, begin = 0, 0.0, clock()
        while not done or elapsed < seconds:
            done += step()
            elapsed = clock() - begin
        found.append(done / elapsed)
    return found
