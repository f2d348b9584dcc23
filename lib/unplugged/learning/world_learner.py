"""The learner inside a world model: rounds of imagining, then of updates, in one compiled call."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unplugged.data import windows as recorded
from unplugged.data.windows import Store, Windows
from unplugged.learning import imagination
from unplugged.learning.learner import LearnerState, optimizer
from unplugged.learning.method import Method
from unplugged.learning.world_model import follow
from unplugged.learning.world_settings import WorldSettings
from unplugged.model.critic import critic_values
from unplugged.model.networks import Model, Params
from unplugged.model.world import World, WorldState


class WorldData(NamedTuple):
    """What a learner inside a world model learns from.

    Attributes:
      store: the dataset.
      largest: the ensemble's largest disagreement on it; 0 where nothing depends on it.
    """

    store: Store
    largest: float


@dataclasses.dataclass(frozen=True)
class WorldLearner:
    """Learns a policy or a critic on the states of a world model, which stays as it is.

    It has the interface of `learner.Learner`. A state's `params` are {"world", "agent"}, so that
    a checkpoint is all that acting needs.

    Attributes:
      world: the world model.
      model: the agent's networks.
      method: "morel" or "combo", a row of `methods.METHODS`.
      settings: of both.
      world_params: the world model's parameters; None: fresh ones, which have the same form.
    """

    world: World
    model: Model
    method: Method
    settings: WorldSettings
    world_params: Params | None = None

    def init(self, seed: int) -> LearnerState:
        """The state before the first update."""
        init_key, key = jax.random.split(jax.random.key(seed))
        agent = self.model.init(init_key)
        world = self.world.init(key) if self.world_params is None else self.world_params
        return LearnerState(
            params={"world": jax.tree.map(jnp.copy, world), "agent": agent},
            target_params=jax.tree.map(jnp.copy, agent),
            opt_state=optimizer(self.settings).init(agent),
            key=key,
            updates=jnp.zeros([], jnp.int32),
        )

    def update(
        self, state: LearnerState, batch: Any, key: jax.Array
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One gradient step of the agent; `state.params` are the agent's alone."""
        assert self.method.objective is not None  # As of every row that is learned so.
        objective = functools.partial(
            self.method.objective, model=self.model, method=self.method, settings=self.settings
        )
        (total, parts), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.target_params, batch, key
        )
        changes, opt_state = optimizer(self.settings).update(
            gradients, state.opt_state, state.params
        )
        params, updates = optax.apply_updates(state.params, changes), state.updates + 1
        target_params = optax.periodic_update(
            params, state.target_params, updates, self.settings.target_interval
        )
        new = LearnerState(params, target_params, opt_state, state.key, updates)
        return new, {"loss": total, **parts}

    def _round(
        self, data: WorldData, whole: LearnerState
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """Follows recorded windows, imagines from their states, and learns from both."""
        world = whole.params["world"]
        *keys, key = jax.random.split(jax.random.fold_in(whole.key, whole.updates), 4)
        windows, states, rollouts = self._begin(data.store, whole.params, *keys)
        state = whole._replace(params=whole.params["agent"])
        if self.method.learns_policy:
            penalty = self.settings.halt_reward
            rollouts = imagination.pessimistic(rollouts, self._threshold(data), penalty)
            state, losses = self._from_experience(state, rollouts, key)
        else:
            state, losses = self._from_windows(state, windows, states, rollouts, key)
        return state._replace(params={"world": world, "agent": state.params}), losses

    def _begin(
        self, store: Store, params: Any, *keys: jax.Array
    ) -> tuple[Windows, WorldState, imagination.Rollouts]:
        """Recorded windows, their states, and rollouts from some of these."""
        draw_key, follow_key, key = keys
        length = self.settings.unroll_steps + 1
        windows = recorded.sample(store, draw_key, self.settings.batch_size, length)
        world, agent = params["world"], params["agent"]
        states, _ = follow(self.world, world, windows.observation, windows.action, follow_key)
        return windows, states, self.imagine(world, agent, windows, states, key)

    def _threshold(self, data: WorldData) -> Any:
        """Of the disagreement, in MOReL's pessimistic MDP."""
        return self.settings.halt_multiple * data.largest

    @functools.cached_property
    def halted(self) -> Any:
        """(state, data) -> share of imagined rollouts that MOReL's threshold ends.

        Of one round's, from the same recorded states at any time.
        """

        def halted(state: LearnerState, data: WorldData) -> jax.Array:
            keys = jax.random.split(jax.random.key(0), 3)
            rollouts = self._begin(data.store, state.params, *keys)[2]
            threshold = self._threshold(data)
            real = imagination.pessimistic(rollouts, threshold, 0.0).real
            return jnp.mean(jnp.any(real & (rollouts.disagreement > threshold), axis=0))

        return jax.jit(halted)

    def imagine(
        self, world: Params, agent: Params, windows: Windows, states: WorldState, key: jax.Array
    ) -> imagination.Rollouts:
        """Rollouts of the agent from recorded states, drawn from those where a step was taken."""
        settings = self.settings
        start_key, key = jax.random.split(key)
        which = imagination.some(windows.real.reshape(-1), start_key, settings.rollouts)
        start = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[which], states)
        return imagination.imagine(
            self.world, world, functools.partial(self.act, agent), start, key,
            settings.rollout_steps,
        )  # fmt: skip

    def act(self, agent: Params, features: jax.Array, key: jax.Array) -> jax.Array:
        """How it acts in imagination: by its policy, or by its critic and at times at random."""
        state = self.model.represent(agent, features)
        if self.method.learns_policy:
            return jax.random.categorical(key, self.model.predict(agent, state)[0])
        explore_key, key = jax.random.split(key)
        best = jnp.argmax(critic_values(self.model, agent, state), axis=-1)
        other = jax.random.randint(key, best.shape, 0, self.model.num_actions)
        explores = jax.random.bernoulli(explore_key, self.settings.explore, best.shape)
        return jnp.where(explores, other, best)

    def _from_experience(
        self, state: LearnerState, rollouts: imagination.Rollouts, key: jax.Array
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """PPO: some passes over the rollouts in minibatches."""
        settings = self.settings
        steps = imagination.experience(
            self.model, state.params, rollouts, settings.discount, settings.gae_lambda
        )
        orders = jax.vmap(lambda key: jax.random.permutation(key, steps.action.shape[0]))(
            jax.random.split(key, settings.epochs)
        )

        def update(state: LearnerState, which: jax.Array) -> Any:
            return self.update(state, jax.tree.map(lambda x: x[which], steps), key)

        return jax.lax.scan(update, state, orders.reshape(settings.round_updates, -1))

    def _from_windows(
        self,
        state: LearnerState,
        windows: Windows,
        states: WorldState,
        rollouts: imagination.Rollouts,
        key: jax.Array,
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """COMBO: batches that are partly recorded and partly imagined."""
        settings = self.settings
        number = imagination.recorded_windows(settings)
        counts = (number, settings.batch_size - number)
        length = self.method.window(settings)[1] + 1
        stores = (
            imagination.stored(
                states.features, windows.action[:-1], windows.reward[:-1],
                windows.discount[:-1], windows.real[:-1],
            ),
            imagination.stored(
                rollouts.features, rollouts.action, rollouts.reward, rollouts.discount,
                rollouts.real,
            ),
        )  # fmt: skip

        def update(state: LearnerState, key: jax.Array) -> Any:
            *keys, key = jax.random.split(key, 3)
            parts = [
                imagination.draw(store, real, one, count, length)._replace(improved=None)
                for (store, real), one, count in zip(stores, keys, counts)
                if count
            ]
            batch = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
            return self.update(state, batch, key)

        return jax.lax.scan(update, state, jax.random.split(key, settings.round_updates))

    def _scan(
        self, state: LearnerState, data: WorldData, num_updates: int
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        rounds = num_updates // self.settings.round_updates
        state, losses = jax.lax.scan(
            lambda state, _: self._round(data, state), state, None, length=rounds
        )
        return state, jax.tree.map(lambda x: x.reshape(-1), losses)

    @functools.cached_property
    def run(self) -> Any:
        """(state, data, num_updates) -> (state, losses), compiled; whole rounds of updates."""
        return jax.jit(self._scan, static_argnums=2, donate_argnums=0)

    @functools.cached_property
    def run_seeds(self) -> Any:
        """`run` for states stacked along a first axis, all seeds in one program."""

        def scan_seeds(states: LearnerState, data: WorldData, num_updates: int) -> Any:
            return jax.vmap(lambda state: self._scan(state, data, num_updates))(states)

        return jax.jit(scan_seeds, static_argnums=2, donate_argnums=0)
