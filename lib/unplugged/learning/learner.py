"""The learner: many updates in one compiled call, data on the device.

A run is a pure function of its state: (state, data) -> (state, losses). It loops over
seeds with one compilation, or takes them all at once through `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unplugged.data.windows import Store, Windows, at, sample, starts
from unplugged.learning import contracts, objectives, parallel
from unplugged.learning.method import Method
from unplugged.learning.settings import Settings
from unplugged.model.networks import Model, Params
from unplugged.planning import improvement


class NonFiniteLossError(FloatingPointError):
    """A loss or a parameter became NaN or infinite.

    Attributes:
      update: the update that the loss belongs to, or after which the parameters were looked at.
      rows: result rows until then.
    """

    def __init__(self, update: int, detail: str, what: str = "the loss is"):
        super().__init__(f"update {update}: {what} not finite ({detail}); the run stops here")
        self.update = update
        self.rows: list[dict[str, Any]] = []


class LearnerState(NamedTuple):
    """All that a run needs to go on to the very same bits.

    Attributes:
      params: parameters being learned.
      target_params: parameters that targets are made with.
      opt_state: the optimiser's.
      key: the seed's random key; each update uses its own, folded from it.
      updates: how many updates were done. Shape [].
    """

    params: Params
    target_params: Params
    opt_state: optax.OptState
    key: jax.Array
    updates: jax.Array


class Diagnosis(NamedTuple):
    """How sharp a policy and its improved policy are on recorded states, and how alike.

    Attributes:
      policy_entropy: mean entropy of the policy, in nats.
      target_entropy: the same of the policy target, made with the target parameters.
      policy_commonest: share of states whose most probable action is the commonest such.
      target_commonest: the same of the target.
    """

    policy_entropy: jax.Array
    target_entropy: jax.Array
    policy_commonest: jax.Array
    target_commonest: jax.Array


def learning_rate(settings: Settings) -> optax.Schedule:
    """Linear warm-up, as in ROSMO's authors' code, then exponential decay (Tables 3 and 4)."""
    return optax.warmup_exponential_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        warmup_steps=settings.warmup_updates,
        transition_steps=settings.decay_updates,
        decay_rate=settings.decay_rate,
        staircase=settings.decay_staircase,
    )


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """AdamW with clipping and weight decay (ROSMO, Tables 3 and 4)."""

    def weights(params: Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "w", params)

    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(learning_rate(settings), weight_decay=settings.weight_decay, mask=weights),
    )


@dataclasses.dataclass(frozen=True)
class Learner:
    """A method's learner for one model and one set of hyperparameters.

    `init(seed)` gives a state; `run(state, data, num_updates)` does that many updates in one
    compiled call and returns the new state and the losses of each update, arrays
    [num_updates] by name; `run_seeds` does the same for states stacked along a first axis.
    The state passed in is used up (its buffers are donated). With a `mesh` of devices, see
    `parallel`, state and data are on all of them, and each learns from its share of a batch.
    """

    model: Model
    method: Method
    settings: Settings
    mesh: jax.sharding.Mesh | None = None

    def init(self, seed: int) -> LearnerState:
        """The state before the first update."""
        init_key, key = jax.random.split(jax.random.key(seed))
        params = self.model.init(init_key)
        return LearnerState(
            params=params,
            target_params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer(self.settings).init(params),
            key=key,
            updates=jnp.zeros([], jnp.int32),
        )

    def loss(
        self, params: Params, target_params: Params, windows: Windows, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The method's loss over windows and its parts before weighting, see `objectives`."""
        objective, more = self.method.objective, {}
        if objective is None:
            objective, more = objectives.planning, {"mesh": self.mesh}
        else:
            key = parallel.own(key, self.mesh)
        return contracts.loss(
            objective,
            params=params,
            target_params=target_params,
            windows=windows,
            key=key,
            model=self.model,
            method=self.method,
            settings=self.settings,
            **more,
        )

    def _loss_at(self, updates: jax.Array, *arguments: Any) -> tuple[jax.Array, dict]:
        """The loss after some updates: of cloning beside the model in the first of them, if so set.

        What one of the two losses has no part of is 0 in it.
        """
        if not self.settings.cloning_updates:
            return self.loss(*arguments)
        names = jax.eval_shape(self.loss, *arguments)[1]
        first = dataclasses.replace(self, method=self.method.cloning())

        def clone() -> tuple[jax.Array, dict]:
            total, parts = first.loss(*arguments)
            return total, {name: parts.get(name, jnp.zeros_like(total)) for name in names}

        early = updates < self.settings.cloning_updates
        return jax.lax.cond(early, clone, lambda: self.loss(*arguments))

    def update(
        self, state: LearnerState, windows: Windows, key: jax.Array
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One gradient step on given windows, this device's share, and the losses before it."""
        loss = functools.partial(self._loss_at, state.updates)
        (total, parts), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.target_params, windows, key
        )
        (total, parts), gradients = parallel.mean(((total, parts), gradients), self.mesh)
        changes, opt_state = optimizer(self.settings).update(
            gradients, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, changes)
        updates = state.updates + 1
        target_params = optax.periodic_update(
            params, state.target_params, updates, self.settings.target_interval
        )
        new = LearnerState(params, target_params, opt_state, state.key, updates)
        return new, {"loss": total, **parts}

    def _sample_and_update(
        self, data: Store, state: LearnerState
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        sample_key, key = jax.random.split(jax.random.fold_in(state.key, state.updates))
        unroll_steps, td_steps = self.method.window(self.settings)
        start = parallel.share(starts(data, sample_key, self.settings.batch_size), self.mesh)
        windows = at(data, start, unroll_steps + td_steps + 1)
        return self.update(state, windows, key)

    def _scan(
        self, state: LearnerState, data: Store, num_updates: int
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        def scan(state: LearnerState, data: Store) -> Any:
            one = functools.partial(self._sample_and_update, data)
            return jax.lax.scan(lambda state, _: one(state), state, None, length=num_updates)

        return parallel.over(self.mesh, scan)(state, data)

    @functools.cached_property
    def diagnose(self) -> Any:
        """(state, data) -> a `Diagnosis` on 1,024 states drawn from the data, always the same."""

        def diagnose(state: LearnerState, data: Store) -> Diagnosis:
            draw_key, key = jax.random.split(jax.random.key(0))
            observation = sample(data, draw_key, 1_024, 1).observation[0]

            def root(params: Params) -> Any:
                return improvement.root_of(
                    self.model, params, self.model.represent(params, observation)
                )

            operator = self.method.operator
            assert operator is not None  # `Spec` demands one.
            target_params = state.target_params
            target = operator(self.model, target_params, root(target_params), key, self.settings)
            found = {"policy": jax.nn.softmax(root(state.params).prior_logits)}
            found["target"] = target.policy
            numbers = {}
            for name, policy in found.items():
                numbers[f"{name}_entropy"] = jnp.mean(jax.scipy.special.entr(policy).sum(axis=-1))
                chosen = jnp.argmax(policy, axis=-1)
                shares = jnp.bincount(chosen, length=self.model.num_actions) / chosen.size
                numbers[f"{name}_commonest"] = shares.max()
            return Diagnosis(**numbers)

        return jax.jit(diagnose)

    @functools.cached_property
    def run(self) -> Any:
        """(state, data, num_updates) -> (state, losses), compiled."""
        return jax.jit(self._scan, static_argnums=2, donate_argnums=0)

    @functools.cached_property
    def run_seeds(self) -> Any:
        """`run` for states stacked along a first axis, all seeds in one program."""

        def scan_seeds(states: LearnerState, data: Store, num_updates: int) -> Any:
            return jax.vmap(lambda state: self._scan(state, data, num_updates))(states)

        return jax.jit(scan_seeds, static_argnums=2, donate_argnums=0)
