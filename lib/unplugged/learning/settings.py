"""Hyperparameters: one frozen record, presets from the papers' tables, checked overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from unplugged.common import checks
from unplugged.common.checks import Count, Positive, Range, Share, Weight


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a learner and its evaluation need to know, apart from the method.

    The defaults are ROSMO's Table 4 (BSuite), its Appendix A for the scaling of gradients and
    D.2.2 for alpha and the simulations. Warm-up and period of the decay are from its authors' code,
    the paper has none; what other methods need is ours.

    Attributes:
      network: kind of networks, a name in `networks.NETWORKS`.
      representation: layer sizes of the representation (units, or channels).
      dynamics: layer sizes of the dynamics (units, or channels).
      prediction: layer sizes of the prediction trunk (units).
      width: units of every one of those layers, instead of the sizes given; None: as given.
      num_bins: bins of reward and value distributions.
      num_quantiles: quantiles of a critic by quantile regression.
      num_heads: heads of REM's critic.
      num_taus: quantiles that IQN draws for its prediction and for its target.
      num_atoms: atoms of D4PG's critic.
      bin_spacing: distance between bins, in squashed units, see `transforms.Support`.
      batch_size: windows an update, B.
      unroll_steps: K.
      td_steps: n.
      discount: gamma.
      learning_rate: peak learning rate of AdamW.
      warmup_updates: updates of linear warm-up.
      decay_rate: factor on the learning rate each `decay_updates`.
      decay_updates: see `decay_rate`.
      decay_staircase: whether the rate falls in steps of `decay_updates`, as in ROSMO's authors'
        code, or in every update.
      weight_decay: decoupled weight decay, on weights only.
      max_grad_norm: global norm to which gradients are clipped.
      target_interval: updates between refreshes of the target network.
      gradient_scale: factor on the gradient at the start of each dynamics step.
      policy_weight: weight of the policy loss.
      value_weight: weight of the value loss.
      reward_weight: weight of the reward loss.
      behavior_weight: strength of the behaviour regulariser, alpha.
      conservative_weight: weight of CQL's penalty.
      behavior_penalty: weight of the KL from the cloned policy in BRAC, its alpha.
      bcq_threshold: how likely, next to the likeliest, an action must be for BCQ to take it.
      num_samples: actions that the sampled look-ahead draws, N; at most as many as there
        are is sensible. Also those whose mean stands for a sum over continuous actions.
      policy_head: what a policy over continuous actions is, see `actions`: "normal" or "factored".
      action_bins: bins of each dimension of a factored policy.
      num_candidates: continuous actions that a search weighs at a node, K.
      injection: prior of the recorded action among the root's candidates; 0: it is not among them.
      num_simulations: simulations of a search.
      search_depth: depth limit of a search; None for none.
      ties: whether a search draws the order that breaks ties anew at each "step" down the tree, as
        mctx does, or once a "node", which is faster.
      rescale_values: whether a search stretches each state's action values to [0, 1], as mctx
        does, and those of continuous actions by the whole tree's, see `improvement.over_tree`; or
        takes their differences in units of return.
      cloning_updates: updates at the beginning in which a method that plans clones the recorded
        actions instead.
      temperature: tau of MZU-Q.
      standardize: whether each element of an observation has the mean of the data that are trained
        on subtracted and is divided by their standard deviation; ours, for any scale of inputs.
      compute_dtype: what the networks' layers compute in; parameters, normalisations, outputs,
        losses and targets are float32 always.
    """

    network: str = "mlp"
    representation: tuple[Count, ...] = (64, 64, 32)
    dynamics: tuple[Count, ...] = (32, 256, 32)
    prediction: tuple[Count, ...] = (32,)
    width: Count | None = None
    num_bins: Annotated[int, Range(2, 2**31 - 1)] = 20
    num_quantiles: Count = 200
    num_heads: Annotated[int, Range(2, 2**31 - 1)] = 200
    num_taus: Count = 64
    num_atoms: Annotated[int, Range(2, 2**31 - 1)] = 51
    bin_spacing: Positive = 1.0
    batch_size: Count = 128
    unroll_steps: Count = 5
    td_steps: Count = 3
    discount: Share = 0.997**4
    learning_rate: Positive = 7e-4
    warmup_updates: Count = 1_000
    decay_rate: Positive = 0.1
    decay_updates: Count = 100_000
    decay_staircase: bool = False
    weight_decay: Weight = 1e-4
    max_grad_norm: Positive = 5.0
    target_interval: Count = 200
    gradient_scale: Share = 0.5
    policy_weight: Weight = 1.0
    value_weight: Weight = 0.25
    reward_weight: Weight = 1.0
    behavior_weight: Weight = 0.2
    conservative_weight: Weight = 1.0
    behavior_penalty: Weight = 1.0
    bcq_threshold: Share = 0.3
    num_samples: Count = 2
    policy_head: Literal["normal", "factored"] = "normal"
    action_bins: Annotated[int, Range(2, 2**31 - 1)] = 7
    num_candidates: Annotated[int, Range(2, 2**31 - 1)] = 20
    injection: Annotated[float, Range(0.0, 1.0, open_high=True)] = 0.25
    num_simulations: Count = 4
    search_depth: Count | None = None
    ties: Literal["step", "node"] = "step"
    rescale_values: bool = True
    cloning_updates: Annotated[int, Range(0, 2**31 - 1)] = 0
    temperature: Positive = 0.1
    standardize: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        checks.fields(self, within="overrides")
        for name in ("representation", "dynamics", "prediction"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one layer size")

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Layer sizes of representation, dynamics and prediction."""
        of = {name: getattr(self, name) for name in ("representation", "dynamics", "prediction")}
        return {k: v if self.width is None else (self.width,) * len(v) for k, v in of.items()}

    def override(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with some fields changed; unknown names raise with the nearest valid one."""
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            checks.one_of("setting", name, names)
        return dataclasses.replace(self, **changes)


BSUITE = Settings()

# ROSMO's Table 3 (Atari), with networks, batch and bins for 10 x 10 pixels and a CPU, and the
# warm-up and the target network's interval for runs of 10,000 updates instead of 200,000.
MINATAR = Settings(
    network="conv",
    representation=(16, 16),
    dynamics=(16, 16),
    prediction=(64,),
    num_bins=21,
    batch_size=64,
    warmup_updates=100,
    target_interval=50,
    td_steps=5,
    num_samples=4,
    num_simulations=20,
)

# ROSMO's Table 3, the networks of its Appendix D.2.1 and the simulations of D.2.2.
ATARI = Settings(
    network="resnet",
    representation=(64,) * 6,
    dynamics=(64, 64),
    prediction=(128, 128),
    num_bins=601,
    batch_size=512,
    td_steps=5,
    num_samples=4,
    num_simulations=20,
)

# A reader's own environment, or table, may have observations of any scale.
GYMNASIUM = dataclasses.replace(BSUITE, standardize=True)

# Continuous actions: discount, target interval and samples of RL Unplugged's code for its
# baselines; networks, bins and steps of a size for a CPU.
CONTROL = Settings(
    representation=(128, 128),
    dynamics=(128, 128),
    prediction=(128,),
    num_bins=81,
    bin_spacing=0.25,
    batch_size=64,
    unroll_steps=2,
    td_steps=5,
    discount=0.99,
    warmup_updates=100,
    target_interval=100,
    num_samples=4,
    num_candidates=8,
    num_simulations=8,
    ties="node",
    standardize=True,
)
