"""What a world model sees and foresees beside what was recorded, as tidy frames."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from unplugged.common import checks
from unplugged.data import windows
from unplugged.learning import imagination, world_model
from unplugged.model.world import World, WorldState
from unplugged.runs import training
from unplugged.runs.worlds import WorldSpec

LEAST = 0.02  # probabilities below are left out of frames: most pixels are empty


class Dream(NamedTuple):
    """W recorded windows of T steps and what the world model makes of them.

    From step `context` on, the imagined states follow the recorded actions and see nothing more.

    Attributes:
      recorded: bits. Shape [T, W, ...].
      reconstructed: probabilities, decoded from states that saw each step. Shape [T, W, ...].
      imagined: the same of states that did not. Shape [T - context, W, ...].
      reward: of the steps that led there, recorded and imagined. Shape [2, T - context, W].
      discount: the same. Shape [2, T - context, W].
      inside: whether a step lies within its episode. Shape [T, W].
    """

    recorded: jax.Array
    reconstructed: jax.Array
    imagined: jax.Array
    reward: jax.Array
    discount: jax.Array
    inside: jax.Array


def dream(
    world: World, params: Any, windows: windows.Windows, key: jax.Array, *, context: int
) -> Dream:
    """Follows windows to their end, and imagines what comes after their first steps.

    Args:
      world: the world model.
      params: its parameters.
      windows: T steps of W windows.
      key: randomness.
      context: steps that are seen before imagination begins, less than T.
    """
    follow_key, member_key, key = jax.random.split(key, 3)
    states, _ = world_model.follow(world, params, windows.observation, windows.action, follow_key)
    start = jax.tree.map(lambda x: x[context - 1], states)
    member = imagination.members_of(world, params, start, member_key)

    def step(state: WorldState, now: tuple) -> tuple[WorldState, jax.Array]:
        state, _ = imagination.advance(world, params, state, now[0], member, now[1])
        return state, state.features

    actions = windows.action[context - 1 : -1]
    keys = jax.random.split(key, actions.shape[0])
    decoded = world.decode(params, jax.lax.scan(step, start, (actions, keys))[1])
    led = jax.tree.map(lambda x: x[context - 1 : -1], (windows.reward, windows.discount))
    return Dream(
        recorded=windows.observation,
        reconstructed=jax.nn.sigmoid(world.decode(params, states.features).observation),
        imagined=jax.nn.sigmoid(decoded.observation),
        reward=jnp.stack([led[0], decoded.reward]),
        discount=jnp.stack([led[1], jax.nn.sigmoid(decoded.discount)]),
        inside=world_model.inside(windows),
    )


def errors(found: Dream, context: int) -> pd.DataFrame:
    """How far recorded and imagined are apart, by steps ahead.

    Columns `ahead`; `windows`, those whose episode lasts so long; and, of a bit, reward or
    discount, in the mean: `imagined` and `repeated` (the last frame seen), the share of set bits
    in either frame that the other lacks; `reward` and `discount`, absolute errors.
    """
    rows = []
    seen = np.asarray(found.recorded[context - 1]) > 0.5
    for ahead in range(found.imagined.shape[0]):
        here = np.asarray(found.inside[context + ahead])
        truth = np.asarray(found.recorded[context + ahead]) > 0.5
        row: dict[str, float] = {"ahead": ahead + 1, "windows": int(here.sum())}
        for name, guess in (("imagined", np.asarray(found.imagined[ahead]) > 0.5),
                            ("repeated", seen)):  # fmt: skip
            either = (guess | truth)[here].sum()
            row[name] = (guess != truth)[here].sum() / max(either, 1)
        for name in ("reward", "discount"):
            pair = np.asarray(getattr(found, name))[:, ahead, here]
            row[name] = np.abs(pair[0] - pair[1]).mean() if here.any() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def frames(found: Dream, context: int, which: int) -> pd.DataFrame:
    """One window, a row a bit whose probability is `LEAST` or more.

    Columns `step` (0 is the first one imagined), `kind` (recorded, reconstructed, imagined), `row`,
    `column`, `channel` and `probability`.
    """
    parts = []
    last = int(np.asarray(found.inside[:, which]).sum())
    for kind, begin in (("recorded", 0), ("reconstructed", 0), ("imagined", context)):
        array = np.asarray(getattr(found, kind)[:, which])[: last - begin]
        step, row, column, channel = np.nonzero(array >= LEAST)
        values = {
            "step": step + begin - context,
            "kind": kind,
            "row": row,
            "column": column,
            "channel": channel,
            "probability": array[step, row, column, channel].round(3),
        }
        parts.append(pd.DataFrame(values))
    return pd.concat(parts, ignore_index=True)


def of_run(
    spec: WorldSpec,
    folder: str | os.PathLike[str],
    *,
    seed: int,
    context: int = 8,
    ahead: int = 15,
    number: int = 500,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of one recorded window and the errors over many, of a finished world model.

    Windows begin all over the dataset, which the model was trained on. The one that is shown is
    the first whose episode lasts so long, of those with the most reward.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      seed: which of its seeds.
      context: steps that are seen before imagination begins.
      ahead: steps imagined.
      number: windows the errors are of.

    Returns:
      See `frames` and `errors`; `environment` and `seed` come before.
    """
    for name, value in (("context", context), ("ahead", ahead), ("number", number)):
        checks.within(name, value, 1, integer=True)
    learner, state = training.restore(spec, folder, seed)
    _, store, _ = spec.build()
    start = store.start[np.linspace(0, len(store.start) - 1, number).round().astype(int)]
    of = windows.at(store, start, context + ahead)
    look = jax.jit(functools.partial(dream, learner.model, context=context))
    found = look(state.params, of, jax.random.key(seed))
    whole = np.asarray(found.inside[-1])
    shown = int(np.argmax(np.where(whole, np.asarray(of.reward).sum(axis=0), -np.inf)))
    who = {"environment": spec.environment, "seed": seed}
    return (
        frames(found, context, shown).assign(**who),
        errors(found, context).assign(**who),
    )
