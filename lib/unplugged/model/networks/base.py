"""The bundle of three pure functions that every network is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from unplugged.model import transforms

Params = Any


@dataclasses.dataclass(frozen=True)
class Model:
    """The functions h, g and f of the papers (ROSMO, Section 2.2).

    Attributes:
      init: key -> parameters, one pytree for the three functions.
      represent: (params, observation [B, ...]) -> state [B, S].
      dynamics: (params, state [..., S], action [...]) -> (reward_logits [..., bins],
        state [..., S]). Leading shapes broadcast: a state [B, 1, S] with actions [1, A] is
        unrolled with every action, and what depends on the state alone is computed once.
      predict: (params, state [..., S]) -> (policy_logits [..., A], value_logits [..., bins]).
      num_actions: A.
      support: what the bins of reward and value logits stand for.
    """

    init: Callable[[jax.Array], Params]
    represent: Callable[[Params, jax.Array], jax.Array]
    dynamics: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    predict: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    num_actions: int
    support: transforms.Support
