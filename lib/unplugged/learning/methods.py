"""The table of methods. A method is data: a row names what it learns from and how it acts.

The papers compare like with like: between methods only the policy target, the value target
and the regulariser change (ROSMO, Appendix D.2.2). To add a method, add a row, and at most
one new function for whatever it does that no other does.
"""

from __future__ import annotations

from unplugged.common import checks
from unplugged.learning import imagination, losses, objectives, world_model
from unplugged.learning.method import Method
from unplugged.planning import improvement

__all__ = ["METHODS", "Method", "get"]

METHODS: dict[str, Method] = {
    "bc": Method(
        summary="behaviour cloning",
        objective=objectives.cloning,
        unrolls=False,
        bootstraps=False,
        selector="policy",
    ),
    "cql": Method(
        summary="conservative Q-learning, CQL(H), categorical Q",
        objective=objectives.conservative,
        learns_policy=False,
        unrolls=False,
        selector="critic",
    ),
    "crr": Method(
        summary="critic-regularised regression, exponential weights",
        objective=objectives.critic_regularized,
        weighting=losses.exponential,
        unrolls=False,
        selector="policy",
    ),
    "crr_binary": Method(
        summary="critic-regularised regression, binary weights",
        objective=objectives.critic_regularized,
        weighting=losses.heaviside,
        unrolls=False,
        selector="policy",
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
    ),
    "crr_model": Method(
        summary="MuZero's model with CRR as the policy loss, exponential weights",
        regularizer=losses.dynamics_advantage,
        weighting=losses.exponential,
        selector="search",
    ),
    "mzu": Method(
        summary="MuZero Unplugged: tree search for both targets",
        operator=improvement.mcts,
        bootstrap="operator",
        selector="search",
    ),
    "reanalyse": Method(
        summary="MuZero Unplugged with the value target of its Table 2: n steps, then the network",
        operator=improvement.mcts,
        bootstrap="network",
        selector="search",
    ),
    "mzu_q": Method(
        summary="MZU-Q: policy target from the search's Q instead of its visits",
        operator=improvement.mcts_q,
        bootstrap="operator",
        selector="search_q",
    ),
    "mzu_reg": Method(
        summary="MuZero Unplugged with ROSMO's behaviour regulariser (in neither paper)",
        operator=improvement.mcts,
        bootstrap="operator",
        regularizer=losses.dynamics_advantage,
        selector="search",
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
    "rosmo_sampled": Method(
        summary="ROSMO with the look-ahead at sampled actions",
        operator=improvement.one_step_sampled,
        regularizer=losses.dynamics_advantage,
        selector="policy",
    ),
    "onestep": Method(
        summary="ROSMO without its behaviour regulariser",
        operator=improvement.one_step,
        selector="improved",
    ),
    "behavior": Method(
        summary="ROSMO's behaviour regulariser alone",
        regularizer=losses.dynamics_advantage,
        selector="policy",
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


def get(name: str) -> Method:
    """The method of that name; raises ValueError naming the nearest if there is none."""
    return METHODS[checks.one_of("method", name, METHODS)]
