"""Evaluation without acting: what a run reports where its benchmark has no environment.

On the episodes that were held out: the loss, how far the policy departs from the log, what the
learned values promise and, if probabilities were recorded, what importance sampling says. All are
cheap; `ope.report` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unplugged.common import hashing
from unplugged.data import datasets, windows
from unplugged.learning.learner import Learner
from unplugged.model.networks import Params
from unplugged.runs import decisions, ope
from unplugged.runs.spec import Spec

MOST_WINDOWS = 2_048
MOST_STEPS = 8_192  # of whole held-out episodes, spread evenly
_DESCRIBED = 1_000, 900  # steps and transitions of the data that a program is known by


def held_out_loss(learner: Learner, held_out: windows.Store) -> Callable[[Params, Params], float]:
    """(params, target_params) -> the method's training loss on held-out episodes.

    Over all windows, or `MOST_WINDOWS` spread evenly if there are more; the same randomness
    each time.
    """
    number = min(MOST_WINDOWS, held_out.start.shape[0])
    which = np.linspace(0, held_out.start.shape[0] - 1, number).round().astype(int)
    length = sum(learner.method.window(learner.settings)) + 1

    @jax.jit
    def loss(params: Params, target_params: Params) -> jax.Array:
        batch = windows.at(held_out, held_out.start[which], length)
        return learner.loss(params, target_params, batch, jax.random.key(0))[0]

    return lambda params, target_params: float(loss(params, target_params))


class Evaluation:
    """(state, seed, update) -> the columns of an evaluation.

    Args:
      spec: a run of a benchmark without an environment.
      learner: its learner.
      held: the episodes that it holds out.
    """

    def __init__(self, spec: Spec, learner: Learner, held: datasets.Dataset):
        self._loss = held_out_loss(learner, windows.store(held))
        self._held = some_episodes(held, MOST_STEPS)
        self._steps = windows.store(self._held)
        continuous, known = held.actions.continuous, held.probability is not None
        self._ask = None if continuous else _ask(spec, learner)
        self._density = None
        if continuous and not decisions.no_density(learner, spec.acts_by, known):
            self._density = jax.jit(decisions.density(learner))
        self._discount = spec.settings.discount
        some = self._held
        self._episodes = some.num_episodes
        which, lengths = ope.decided(some)
        log = ope.Log(lengths, some.reward[which].astype(np.float64), np.ones(len(which)))
        self._data_return = float(ope.mean_return(log, self._discount)[0])

    def __call__(self, state: Any, seed: int, update: int) -> dict[str, Any]:
        """Columns of the results; those that do not apply are empty."""
        row: dict[str, Any] = {
            "mean_return": None,
            "episodes": self._episodes,
            "holdout_loss": self._loss(state.params, state.target_params),
            "data_return": self._data_return,
            **dict.fromkeys(("value_return", "differs", "wis_return", "effective")),
        }
        held = self._held
        if self._ask is None:  # Continuous actions have densities, if anything.
            if self._density is not None:
                taken = ope.at_actions(self._density, self._steps, state.params)
                row |= self._weighted(taken)
            return row
        key = jax.random.fold_in(jax.random.key(seed), update)
        policy, value = ope.at_steps(self._ask, self._steps, state.params, key)
        which, _ = ope.decided(held)
        row["differs"] = ope.differs(policy[which], held.action[which])
        if not np.isnan(value).any():
            row["value_return"] = float(value[held.is_first].mean())
        if held.probability is not None:
            row |= self._weighted(np.take_along_axis(policy, held.action[:, None], axis=1)[:, 0])
        return row

    def _weighted(self, taken: np.ndarray) -> dict[str, Any]:
        """Importance sampling, of the policy's probabilities of what was done at all steps [N]."""
        held = self._held
        which, lengths = ope.decided(held)
        ratio = (taken / held.probability)[which]
        log = ope.Log(lengths, held.reward[which].astype(np.float64), ratio)
        estimate = float(ope.importance(log, self._discount)[0])
        return {
            "effective": ope.effective(log),
            "wis_return": None if np.isnan(estimate) else estimate,
        }


def _ask(spec: Spec, learner: Learner) -> Any:
    """(params, observation, key) -> probabilities [B, A] and values [B]; NaN: none are learned."""
    act, expected = decisions.probabilities(learner, spec.acts_by), decisions.expected(learner)

    def ask(params: Params, observation: jax.Array, key: jax.Array) -> tuple:
        policy = act(params, observation, key)
        if expected is None:
            return policy, jnp.full(observation.shape[0], jnp.nan)
        return policy, expected(params, observation).value

    return jax.jit(ask)


def some_episodes(dataset: datasets.Dataset, steps: int) -> datasets.Dataset:
    """Episodes spread evenly, at least one, of about so many steps in all; or all if they fit."""
    if dataset.num_steps <= steps:
        return dataset
    number = max(1, int(dataset.num_episodes * steps / dataset.num_steps))
    which = np.linspace(0, dataset.num_episodes - 1, number).round().astype(int)
    return dataset.episodes(which.tolist())


def identity(spec: Spec, learner: Learner, state: Any) -> str:
    """A hash of the programs that evaluate, whatever the number of held-out episodes."""
    shape, actions = spec.form()
    store = windows.described(shape, False, *_DESCRIBED, actions)
    key = jax.random.key(0)
    length = sum(learner.method.window(learner.settings)) + 1

    @jax.jit
    def loss(params: Params, target_params: Params, store: windows.Store) -> jax.Array:
        batch = windows.at(store, store.start, length)
        return learner.loss(params, target_params, batch, key)[0]

    of_loss = hashing.of_program(loss, state.params, state.target_params, store)
    if actions.continuous:
        return of_loss
    observation = jax.ShapeDtypeStruct((_DESCRIBED[0], *store.observation.shape[1:]), np.float32)
    return hashing.digest(
        of_loss,
        hashing.of_program(_ask(spec, learner), state.params, observation, key),
    )
