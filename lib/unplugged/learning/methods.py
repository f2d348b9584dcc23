"""The table of methods. A method is data: a row names what it learns from and how it acts.

The papers compare like with like: between methods only the policy target, the value target
and the regulariser change (ROSMO, Appendix D.2.2). To add a method, add a row, and at most
one new function for whatever it does that no other does. A method in a file of one's own goes by
`module:name`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import types
from pathlib import Path

from unplugged.common import checks
from unplugged.learning import continuous, imagination, losses, objectives, world_model
from unplugged.learning.method import Method
from unplugged.planning import improvement

__all__ = ["METHODS", "Method", "get", "is_own"]

METHODS: dict[str, Method] = {
    "bc": Method(
        summary="behaviour cloning",
        objective=objectives.cloning,
        unrolls=False,
        bootstraps=False,
        selector="policy",
        spaces="both",
    ),
    "cql": Method(
        summary="conservative Q-learning, CQL(H), categorical Q",
        objective=objectives.conservative,
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "dqn": Method(
        summary="DQN: double Q-learning with a Huber loss",
        objective=objectives.q_learning,
        critic="scalar",
        double=True,
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "qrdqn": Method(
        summary="QR-DQN: Q-learning by regression of 200 quantiles",
        objective=objectives.quantile_regression,
        critic="quantiles",
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "iqn": Method(
        summary="IQN: Q-learning by regression of drawn quantiles, cosine embedding",
        objective=objectives.quantile_regression,
        critic="implicit",
        learns_policy=False,
        unrolls=False,
        selector="implicit",
    ),
    "rem": Method(
        summary="REM: Q-learning on random mixtures of 200 heads",
        objective=objectives.q_learning,
        critic="heads",
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "bcq": Method(
        summary="discrete BCQ: double Q-learning among actions that cloning finds likely",
        objective=objectives.q_learning,
        critic="scalar",
        double=True,
        unrolls=False,
        selector="constrained",
    ),
    "cql_qr": Method(
        summary="CQL(H) as published for Atari: QR-DQN with the conservative penalty",
        objective=objectives.quantile_regression,
        critic="quantiles",
        conservative=True,
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "crr": Method(
        summary="critic-regularised regression, exponential weights",
        objective=objectives.critic_regularized,
        weighting=losses.exponential,
        extend=continuous.with_actor,
        unrolls=False,
        selector="policy",
        spaces="both",
    ),
    "crr_binary": Method(
        summary="critic-regularised regression, binary weights",
        objective=objectives.critic_regularized,
        weighting=losses.heaviside,
        extend=continuous.with_actor,
        unrolls=False,
        selector="policy",
        spaces="both",
    ),
    "supervised_q": Method(
        summary="behaviour cloning beside a Q of the data's returns, no model (0-step unroll)",
        objective=objectives.critic_regularized,
        weighting=losses.always,
        unrolls=False,
        selector="critic",
    ),
    "supervised": Method(
        summary="MuZero's model with behaviour cloning as the policy loss",
        regularizer=losses.dynamics_advantage,
        weighting=losses.always,
        selector="search",
        spaces="both",
    ),
    "crr_model": Method(
        summary="MuZero's model with CRR as the policy loss, exponential weights",
        regularizer=losses.dynamics_advantage,
        weighting=losses.exponential,
        selector="search",
        spaces="both",
    ),
    "mzu": Method(
        summary="MuZero Unplugged: tree search for both targets",
        operator=improvement.mcts,
        bootstrap="operator",
        selector="search",
        spaces="both",
    ),
    "reanalyse": Method(
        summary="MuZero Unplugged with the value target of its Table 2: n steps, then the network",
        operator=improvement.mcts,
        bootstrap="network",
        selector="search",
        spaces="both",
    ),
    "mzu_q": Method(
        summary="MZU-Q: policy target from the search's Q instead of its visits",
        operator=improvement.mcts_q,
        bootstrap="operator",
        selector="search_q",
        spaces="both",
    ),
    "mzu_reg": Method(
        summary="MuZero Unplugged with ROSMO's behaviour regulariser (in neither paper)",
        operator=improvement.mcts,
        bootstrap="operator",
        regularizer=losses.dynamics_advantage,
        selector="search",
        spaces="both",
    ),
    "gumbel": Method(
        summary="Gumbel MuZero's search for both targets (in neither paper)",
        operator=improvement.gumbel,
        bootstrap="operator",
        selector="gumbel",
    ),
    "rosmo": Method(
        summary="ROSMO: exact one-step look-ahead, behaviour regulariser",
        operator=improvement.one_step,
        regularizer=losses.lookahead_advantage,
        selector="improved",
    ),
    "rosmo_recorded": Method(
        summary="ROSMO, its filter from the recorded reward and next observation",
        operator=improvement.one_step,
        regularizer=losses.recorded_advantage,
        selector="improved",
    ),
    "rosmo_sampled": Method(
        summary="ROSMO with the look-ahead at sampled actions",
        operator=improvement.one_step_sampled,
        regularizer=losses.dynamics_advantage,
        selector="policy",
        sampled=True,
        spaces="both",
    ),
    "onestep": Method(
        summary="ROSMO without its behaviour regulariser",
        operator=improvement.one_step,
        selector="improved",
        spaces="both",
    ),
    "behavior": Method(
        summary="ROSMO's behaviour regulariser alone",
        regularizer=losses.dynamics_advantage,
        selector="policy",
        spaces="both",
    ),
    "d4pg": Method(
        summary="D4PG: a deterministic policy climbs a distributional critic",
        objective=continuous.distributional_gradient,
        critic="atoms",
        extend=continuous.with_actor,
        climbs=True,
        unrolls=False,
        selector="greedy",
        spaces="continuous",
    ),
    "brac": Method(
        summary="BRAC-v: actor and critic pay for the KL from the cloned policy",
        objective=continuous.behavior_regularized,
        extend=continuous.with_behavior,
        climbs=True,
        unrolls=False,
        selector="policy",
        spaces="continuous",
    ),
    "rabm": Method(
        summary="RABM: MPO on a prior that imitates advantageous actions",
        objective=continuous.advantage_weighted_prior,
        extend=continuous.with_multipliers,
        unrolls=False,
        selector="policy",
        spaces="continuous",
    ),
    "world_model": Method(
        summary="DreamerV2's world model with an ensemble of priors; no policy, acts at random",
        objective=world_model.evidence,  # type: ignore[arg-type]  # Its model is a `World`.
        bootstraps=False,
        imagines=True,
        selector="uniform",
    ),
    "morel": Method(
        summary="MOReL: PPO in a world model that ends where its ensemble disagrees",
        objective=imagination.clipped_surrogate,  # type: ignore[arg-type]  # On `Experience`.
        unrolls=False,
        bootstraps=False,
        imagines=True,
        selector="policy",
    ),
    "combo": Method(
        summary="COMBO: conservative Q-learning on recorded and imagined steps",
        objective=imagination.conservative,
        learns_policy=False,
        unrolls=False,
        imagines=True,
        selector="critic",
    ),
}


def is_own(name: str) -> bool:
    """Whether a name is that of a method in a file of one's own, `module:name`."""
    return ":" in name and name not in METHODS


def get(name: str) -> Method:
    """The method of that name, a row of the table or `module:name`.

    The module is found in the current folder or on PYTHONPATH. What it has by that name is a
    `Method`, or an operator: then the policy learns from it, values bootstrap from the network, and
    the agent acts by the policy.

    Raises:
      ValueError: if there is none, naming the nearest, or the module cannot be imported.
    """
    if not is_own(name):
        return METHODS[checks.one_of("method", name, METHODS)]
    place, _, inner = name.partition(":")
    if not all(part.isidentifier() for part in (*place.split("."), inner)):
        raise ValueError(f"method {name!r} must be module:name, such as my_methods:bolder")
    module = _module(place, name)
    found = getattr(module, inner, None)
    if isinstance(found, Method):
        return found
    if inspect.isfunction(found):
        lines = (inspect.getdoc(found) or f"by {inner}").splitlines()
        return Method(summary=lines[0].rstrip("."), operator=found, selector="policy")
    if found is not None:
        raise ValueError(
            f"method {name!r}: {inner} must be a Method or an operator, a function, got "
            f"{type(found).__name__}"
        )
    has = [
        one
        for one, what in vars(module).items()
        if isinstance(what, Method)
        or (inspect.isfunction(what) and what.__module__ == module.__name__)
    ]
    raise ValueError(f"method {name!r}: {place} has no {inner!r}: {checks.nearest(inner, has)}")


def _module(place: str, name: str) -> types.ModuleType:
    """A module of one's own; the current folder comes last, so that it hides nothing."""
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()  # It may have been written a moment ago.
    try:
        return importlib.import_module(place)
    except Exception as error:  # Whatever its code raises.
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and (place == missing or place.startswith(f"{missing}.")):
            files = checks.nearest(place, [path.stem for path in Path(here).glob("*.py")])
            raise ValueError(
                f"method {name!r}: there is no module {place!r} in {here} or on PYTHONPATH; {files}"
            ) from None
        raise ValueError(
            f"method {name!r}: {place} cannot be imported: {type(error).__name__}: {error}"
        ) from error
