"""Hyperparameters of a world model and of what learns inside it, one preset a method."""

from __future__ import annotations

import dataclasses

from unplugged.common import checks
from unplugged.learning.settings import MINATAR, Settings

READINGS = ("mixed", "apart")


@dataclasses.dataclass(frozen=True)
class WorldSettings(Settings):
    """What runs in a world model need to know beside `Settings`, which is the agent's.

    ROSMO's Appendix F.1 gives the rollouts' length and share for COMBO and names code for the
    rest. KL balance and weight are pydreamer's, the clipping, lambda, entropy and epochs of PPO
    are cleanrl's for Atari. Sizes are ours.

    Attributes:
      channels: of the encoder's convolutions.
      hidden: units of the world model's hidden layers.
      recurrent: units of its recurrent state.
      categoricals: of its latent.
      classes: of each of them.
      members: of its ensemble of priors.
      kl_weight: weight of the divergence between posterior and prior.
      kl_balance: share of it that moves the prior; the rest moves the posterior. In [0, 1].
      free_nats: of the divergence that the posterior pays nothing for, so that it does not collapse
        before the decoder has learned to use the latent.
      rollouts: imagined at once, in each round.
      rollout_steps: steps of each.
      round_updates: updates that learn from a round's rollouts; divides eval_every.
      halt_multiple: MOReL's threshold, as a multiple of the largest disagreement on the dataset.
      halt_reward: reward of a step beyond the threshold, which ends the rollout; a penalty, below
        the rewards of 0 and 1 that MinAtar gives.
      epochs: PPO's passes over a round's steps; divides round_updates.
      clip: how far PPO's probability ratios may go from 1.
      gae_lambda: lambda of generalised advantage estimation.
      entropy_weight: weight of the policy's entropy.
      imagined_share: share of COMBO's batch that is imagined.
      explore: probability of a random action in COMBO's rollouts.
      conservative_reading: on what COMBO's penalty is: "mixed", the whole batch, as in the code
        that ROSMO names; "apart", values lowered at imagined states and raised at recorded
        actions (Yu et al., 2021).
    """

    channels: tuple[int, ...] = (16, 16)
    hidden: int = 128
    recurrent: int = 128
    categoricals: int = 8
    classes: int = 8
    members: int = 4
    kl_weight: float = 0.1
    kl_balance: float = 0.8
    free_nats: float = 1.0
    rollouts: int = 128
    rollout_steps: int = 10
    round_updates: int = 20
    halt_multiple: float = 1.0
    halt_reward: float = -1.0
    epochs: int = 4
    clip: float = 0.1
    gae_lambda: float = 0.95
    entropy_weight: float = 0.01
    imagined_share: float = 0.5
    explore: float = 0.1
    conservative_reading: str = "mixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "channels", tuple(self.channels))
        for size in self.channels:
            checks.within("layer size in channels", size, 1, integer=True)
        for name in (
            "hidden", "recurrent", "categoricals", "classes", "members", "rollouts",
            "rollout_steps", "round_updates", "epochs",
        ):  # fmt: skip
            checks.within(name, getattr(self, name), 1, integer=True)
        for name in ("kl_balance", "gae_lambda", "imagined_share", "explore"):
            checks.within(name, getattr(self, name), 0.0, 1.0)
        for name in ("kl_weight", "free_nats", "halt_multiple", "entropy_weight"):
            checks.within(name, getattr(self, name), 0.0)
        checks.within("halt_reward", self.halt_reward, float("-inf"))
        checks.within("clip", self.clip, 0.0, open_low=True)
        checks.one_of("conservative_reading", self.conservative_reading, READINGS)
        if self.conservative_reading == "apart" and self.imagined_share in (0.0, 1.0):
            raise ValueError(
                f"imagined_share {self.imagined_share} leaves nothing to tell apart: give a share "
                'between 0 and 1, or conservative_reading "mixed"'
            )
        if self.round_updates % self.epochs:
            raise ValueError(
                f"round_updates ({self.round_updates}) must be a multiple of epochs ({self.epochs})"
            )
        if self.rollouts * self.rollout_steps % self.minibatches:
            raise ValueError(
                f"the {self.rollouts} x {self.rollout_steps} imagined steps of a round do not "
                f"divide into {self.minibatches} minibatches; change rollouts"
            )

    @property
    def minibatches(self) -> int:
        """Into how many minibatches PPO divides a round's steps."""
        return self.round_updates // self.epochs


# Settings that say what the world model is: those of its run and of what learns in it agree.
OF_THE_WORLD = ("channels", "hidden", "recurrent", "categoricals", "classes", "members")

_AGENT = {"network": "mlp", "representation": (128, 128), "dynamics": (128, 128)}


def _preset(**more: object) -> WorldSettings:
    return WorldSettings(**{**dataclasses.asdict(MINATAR), **_AGENT, **more})  # type: ignore[arg-type]


# From MINATAR. The world model learns from 32 windows of 16 steps, at our own rate and pydreamer's
# clipping; PPO has cleanrl's rate, clipping and weight of values; COMBO learns as our CQL does.
PRESETS = {
    "world_model": _preset(
        batch_size=32, unroll_steps=15, learning_rate=1e-3, max_grad_norm=200.0,
    ),
    "morel": _preset(
        unroll_steps=15, learning_rate=2.5e-4, max_grad_norm=0.5, value_weight=0.5,
    ),
    "combo": _preset(unroll_steps=15),
}  # fmt: skip
