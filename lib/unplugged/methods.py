"""The table of methods. A method is data: a row names what it learns from and how it acts.

The papers compare like with like: between methods only the policy target, the value target
and the regulariser change (ROSMO, Appendix D.2.2). To add a method, add a row, and at most
one new function for whatever it does that no other does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax

from unplugged import checks, improvement, losses


@dataclasses.dataclass(frozen=True)
class Method:
    """What sets a method apart.

    Attributes:
      operator: improvement operator that gives the policy target; None: the policy imitates
        the dataset's actions.
      bootstrap: what the n-step value target bootstraps from: the target "network"'s value
        or the "operator"'s.
      regularizer: advantage of the dataset's action, whose sign filters the behaviour
        regulariser (ROSMO, eq. 11); None for no regulariser.
      selector: name of the action selector it is evaluated with, see `acting.SELECTORS`.
      model: whether a model is learned and unrolled; without one, only the policy of
        observed states is trained.
      summary: one line for tables.
    """

    summary: str
    operator: improvement.Operator | None
    selector: str
    bootstrap: Literal["network", "operator"] = "network"
    regularizer: Callable[..., jax.Array] | None = None
    model: bool = True

    def window(self, settings: Any) -> tuple[int, int]:
        """Unroll steps K and TD steps n that this method uses; T = K + n + 1."""
        return (settings.unroll_steps, settings.td_steps) if self.model else (0, 0)


METHODS: dict[str, Method] = {
    "bc": Method(
        summary="behaviour cloning",
        operator=None,
        selector="policy",
        model=False,
    ),
    "mzu": Method(
        summary="MuZero Unplugged: tree search for both targets",
        operator=improvement.mcts,
        bootstrap="operator",
        selector="search",
    ),
    "rosmo": Method(
        summary="ROSMO: exact one-step look-ahead, behaviour regulariser",
        operator=improvement.one_step,
        regularizer=losses.lookahead_advantage,
        selector="improved",
    ),
}


def get(name: str) -> Method:
    """The method of that name; raises ValueError naming the nearest if there is none."""
    return METHODS[checks.one_of("method", name, METHODS)]
