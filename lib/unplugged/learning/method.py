"""What a method is: a record that names what it learns from and how it acts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import jax

from unplugged.common import checks
from unplugged.data.windows import Windows
from unplugged.learning.losses import always, dynamics_advantage, heaviside
from unplugged.learning.settings import Settings
from unplugged.model.actions import Actions
from unplugged.model.critic import Critic
from unplugged.model.networks import Model, Params
from unplugged.planning.improvement import Operator

Loss = tuple[jax.Array, dict[str, jax.Array]]


class Objective(Protocol):
    """The signature of an objective, see `objectives`."""

    def __call__(
        self,
        params: Params,
        target_params: Params,
        windows: Windows,
        key: jax.Array,
        *,
        model: Model,
        method: Method,
        settings: Settings,
    ) -> Loss:
        """The loss of a batch of windows, and its parts."""
        ...


@dataclasses.dataclass(frozen=True)
class Method:
    """What sets a method apart.

    Attributes:
      summary: one line for tables.
      selector: name of the action selector it is evaluated with, see `acting.SELECTORS`.
      objective: its loss over windows; None: `objectives.planning`, the unrolled model's.
      operator: improvement operator that gives the policy target; None: the policy learns
        from the recorded actions alone.
      bootstrap: what the n-step value target bootstraps from: the target "network"'s value
        or the "operator"'s.
      regularizer: advantage of the recorded action, by which its imitation is weighted
        (ROSMO, eq. 11); None for no imitation beside the operator.
      weighting: from that advantage to the weight.
      critic: how the outputs of the dynamics' scalar head are read, see `critic.with_critic`.
      double: whether the current network chooses the action whose value, the target network's,
        a Q-learning target bootstraps from.
      conservative: whether quantile regression has CQL's penalty.
      extend: from the networks to those with parameters of the method's own; None: it has none.
      climbs: whether it takes the gradient of values by actions, which the policy must draw so that
        there is one.
      learns_policy: whether a policy is learned beside values.
      unrolls: whether a model is learned and unrolled for K steps.
      bootstraps: whether values are learned from n-step returns.
      sampled: whether the operator draws actions, so that its policy is weights that sum to 1 in
        the limit only (as ROSMO's, eq. 9); otherwise a run whose policy is no distribution is
        refused.
      spaces: which action spaces it is for.
      imagines: whether it is a world model or learns inside one; its runs are `worlds.WorldSpec`s.
    """

    summary: str
    selector: str
    objective: Objective | None = None
    operator: Operator | None = None
    bootstrap: Literal["network", "operator"] = "network"
    regularizer: Callable[..., jax.Array] | None = None
    weighting: Callable[[jax.Array], jax.Array] = heaviside
    critic: Critic = "categorical"
    double: bool = False
    conservative: bool = False
    extend: Callable[[Model], Model] | None = None
    climbs: bool = False
    learns_policy: bool = True
    unrolls: bool = True
    bootstraps: bool = True
    sampled: bool = False
    spaces: Literal["discrete", "continuous", "both"] = "discrete"
    imagines: bool = False

    def __post_init__(self) -> None:
        checks.one_of("critic", self.critic, get_args(Critic))
        checks.one_of("bootstrap", self.bootstrap, ("network", "operator"))
        checks.one_of("spaces", self.spaces, ("discrete", "continuous", "both"))
        for name in ("objective", "operator", "regularizer", "weighting", "extend"):
            found = getattr(self, name)
            if not callable(found) and (found is not None or name == "weighting"):
                raise ValueError(f"{name} must be a function, got {found!r}")
        if self.bootstrap == "operator" and self.operator is None:
            raise ValueError(
                'bootstrap="operator" takes the operator\'s value, and there is no operator; give '
                'one, or bootstrap="network"'
            )
        if self.objective is None and not (self.operator or self.regularizer):
            raise ValueError(
                "a method that plans needs an operator, a regularizer, or both; else its policy "
                "learns nothing"
            )
        if self.objective is None and self.critic != "categorical":
            raise ValueError(
                f'an unrolled model learns categorical values; give an objective that reads "'
                f'{self.critic}", or critic="categorical"'
            )

    def suits(self, actions: Actions) -> bool:
        """Whether it is for this action space."""
        return self.spaces in ("both", "continuous" if actions.continuous else "discrete")

    def window(self, settings: Settings) -> tuple[int, int]:
        """Unroll steps K and TD steps n that this method uses; T = K + n + 1."""
        return (
            settings.unroll_steps if self.unrolls else 0,
            settings.td_steps if self.bootstraps else 0,
        )

    def cloning(self) -> Method:
        """The same model and values with behaviour cloning as the policy loss.

        Raises:
          ValueError: if the method does not plan.
        """
        if self.objective is not None:
            raise ValueError("a method that does not plan has no cloning_updates before it")
        return dataclasses.replace(
            self,
            operator=None,
            bootstrap="network",
            regularizer=dynamics_advantage,
            weighting=always,
        )
