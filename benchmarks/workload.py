"""What is measured on: datasets of the papers' sizes and the presets' learners."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unplugged import atari, datasets, frame_stores, methods, networks
from unplugged.learner import Learner
from unplugged.model.actions import Discrete, Normal
from unplugged.model.critic import Critic
from unplugged.runs.spec import model_of
from unplugged.settings import BSUITE, CONTROL, MINATAR, Settings

NUM_ACTIONS = 3
ACTIONS = Discrete(NUM_ACTIONS)
# On pixels: MinAtar's preset, and the pixel study's settings.
NETWORKS: dict[str, dict[str, Any]] = {
    "conv": {},
    "conv_mlp": {
        "network": "conv_mlp",
        "representation": (16, 16, 128),
        "dynamics": (128, 128),
        "prediction": (64,),
        "ties": "node",
    },
}


@dataclasses.dataclass(frozen=True)
class Form:
    """Shape of a dataset, and what learns from it.

    Attributes:
      observation_shape: of one observation.
      episodes: how many.
      mean_length: transitions an episode, on average.
      spread: lengths are uniform within mean_length +- spread.
      settings: the preset.
      packed: whether observations are bits, packed.
      actions: the action space.
    """

    observation_shape: tuple[int, ...]
    episodes: int
    mean_length: int
    spread: int
    settings: Settings = BSUITE
    packed: bool = False
    actions: Discrete | Normal = ACTIONS


# Sampled MuZero's search at a size for DM Control: K = 20, 50 simulations, batch 256.
SAMPLED = dataclasses.replace(
    CONTROL,
    representation=(256, 512),
    dynamics=(256, 512),
    prediction=(256,),
    batch_size=256,
    unroll_steps=5,
    num_candidates=20,
    num_simulations=50,
    standardize=False,
)

# ROSMO, Table 5: cartpole 630,262 transitions, catch 18,000; MinAtar's breakout as recorded
# here, a million. 3 actions each. A walker has 24 numbers and 6 dimensions of actions.
FORMS = {
    "cartpole": Form((1, 6), episodes=1000, mean_length=630, spread=370),
    "catch": Form((10, 5), episodes=2000, mean_length=9, spread=0),
    "breakout": Form(
        (10, 10, 4), episodes=27_000, mean_length=37, spread=36, settings=MINATAR, packed=True
    ),
    "walker": Form(
        (24,), episodes=20, mean_length=1000, spread=0, settings=SAMPLED, actions=Normal(6)
    ),
}


REFERENCED = ("cartpole", "catch", "breakout")  # what the reference loop learns from, too


def dataset(name: str, *, seed: int = 0) -> datasets.Dataset:
    """Episodes of random numbers in the form of a dataset; half of them truncated."""
    form = FORMS[name]
    rng = np.random.default_rng(seed)
    low, high = form.mean_length - form.spread, form.mean_length + form.spread
    episodes = []
    for i in range(form.episodes):
        length = int(rng.integers(low, high + 1))
        if form.packed:
            size = -(-math.prod(form.observation_shape) // 8)
            observation = rng.integers(256, size=(length + 1, size), dtype=np.uint8)
        else:
            shape = (length + 1, *form.observation_shape)
            observation = rng.standard_normal(shape, dtype=np.float32)
        episodes.append(
            {
                "observation": observation,
                "action": _actions(rng, form.actions, length),
                "reward": rng.standard_normal(length, dtype=np.float32),
                "terminated": i % 2 == 0,
            }
        )
    space = form.actions
    facts = (
        {"action_dims": space.dims} if isinstance(space, Normal) else {"num_actions": NUM_ACTIONS}
    )
    found = datasets.from_episodes(episodes, {"environment": name, **facts})
    if not form.packed:
        return found
    return dataclasses.replace(
        found,
        observation=found.observation.astype(np.uint8),
        metadata={**found.metadata, "packed_shape": list(form.observation_shape)},
    )


def recording(folder: Path, steps: int, *, length: int = 1_000) -> frame_stores.Host:
    """Atari's frames at random in a file, for a host to feed from; episodes of equal length.

    Args:
      folder: where the file goes, 7 KB a frame; it is in the system's memory then.
      steps: N, a multiple of the length.
      length: of an episode.
    """
    pixels = atari.SIZE**2
    some = np.random.default_rng(0).integers(256, size=(length, pixels), dtype=np.uint8)
    with (folder / "frames.raw").open("wb") as file:
        for _ in range(steps // length):
            file.write(some.data)
    row = np.arange(steps)
    nothing: Any = None  # Only frames are gathered.
    return frame_stores.Host(
        frames=np.memmap(folder / "frames.raw", np.uint8, "r", shape=(steps, pixels)),
        row=row,
        begin=row // length * length,
        end=row // length * length + length - 1,
        steps=frame_stores.FedStore(
            *[nothing] * 6, begin=nothing, frame_shape=(atari.SIZE,) * 2, stack=atari.STACK
        ),
    )


def table(rows: int, columns: int) -> pd.DataFrame:
    """A table of random numbers and of four texts, episodes of 20 rows, in no order."""
    rng = np.random.default_rng(0)
    found = pd.DataFrame(rng.normal(size=(rows, columns - 1)), columns=_numbers(columns))
    found = found.assign(
        ward=rng.choice(list("abcd"), rows), stay=np.arange(rows) // 20, hour=np.arange(rows) % 20,
        drug=rng.choice(["none", "some", "high"], rows), gain=rng.normal(size=rows),
    )  # fmt: skip
    return found.sample(frac=1, random_state=0)


def roles(columns: int) -> dict[str, Any]:
    """What the columns of `table` are to `logs.from_table`."""
    return {
        "episode": "stay", "step": "hour", "observation": [*_numbers(columns), "ward"],
        "action": "drug", "reward": "gain", "ended": True,
    }  # fmt: skip


def _numbers(columns: int) -> list[str]:
    return [f"x{i}" for i in range(columns - 1)]


def _actions(rng: np.random.Generator, space: Discrete | Normal, length: int) -> np.ndarray:
    if isinstance(space, Discrete):
        return rng.integers(space.num_actions, size=length)
    return rng.uniform(-1.0, 1.0, (length, space.dims)).astype(np.float32)


def settings(name: str, network: str) -> Settings:
    """The preset for a dataset of `FORMS`, with a kind of network of `NETWORKS` or its own."""
    preset = FORMS[name].settings
    return preset if network == preset.network else preset.override(NETWORKS[network])


def model(
    name: str, settings: Settings | None = None, critic: Critic = "categorical"
) -> networks.Model:
    """The learned model for a dataset of `FORMS`, for a method with that critic."""
    settings = settings or FORMS[name].settings
    return model_of(settings, FORMS[name].observation_shape, FORMS[name].actions, critic)


def learner(method: str, name: str, settings: Settings | None = None) -> Learner:
    """The fused learner of a method for a dataset of `FORMS`; its preset if none is given."""
    settings = settings or FORMS[name].settings
    of_table = methods.get(method)
    return Learner(model(name, settings, of_table.critic), of_table, settings)
