"""Online learning with Reanalyse: acting, stored data, search and learner in one compiled loop.

One number goes from purely online to purely offline (MuZero Unplugged, Sections 3 and 4). Of a
batch's B windows, the Reanalyse fraction has its targets made anew from stored data with the
target network; the others carry the targets of the search that acted. What is not reanalysed
is acted: for each first-hand window of T steps, T turns of an actor, each an environment step or
an episode's final observation. Updates and searches (B T an update) are the same at every
fraction, environment steps shrink as it grows.

That holds where values bootstrap from the operator's (`mzu` and its kin). Where they bootstrap
from the network's (`rosmo`), the target network's values count in all windows, first-hand ones
have the acting policy's targets only, and an update reanalyses K + 1 of a window's T steps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unplugged.data import bits, windows
from unplugged.envs import games
from unplugged.learning import contracts, objectives
from unplugged.learning.learner import Learner, LearnerState
from unplugged.model.networks import Params
from unplugged.online import replay
from unplugged.planning import improvement


class Actors(NamedTuple):
    """E worlds and what their agents see.

    Attributes:
      world: states of the game, arrays [E, ...].
      observation: [E, ...] float32.
      ended: [E] bool, whether the observation is an episode's last.
      discount: [E] float32, 0 where it truly ended.
      frames: environment steps taken so far, all actors. Shape [] int32.
      running: [E] float32, return of the episode so far.
      best: highest return of an episode acted so far; -inf before one is over. Shape [].
    """

    world: Any
    observation: jax.Array
    ended: jax.Array
    discount: jax.Array
    frames: jax.Array
    running: jax.Array
    best: jax.Array


class OnlineState(NamedTuple):
    """All that an online run needs to go on to the very same bits.

    Attributes:
      learner: the learner's state, its random key among it.
      actors: worlds; None at a Reanalyse fraction of 1.
      sources: state of each source of stored data, by name.
    """

    learner: LearnerState
    actors: Actors | None
    sources: dict[str, Any]

    @property
    def params(self) -> Params:
        """Parameters being learned."""
        return self.learner.params

    @property
    def target_params(self) -> Params:
        """Parameters that targets are made with."""
        return self.learner.target_params

    @property
    def updates(self) -> jax.Array:
        """How many updates were done. Shape []."""
        return self.learner.updates


@dataclasses.dataclass(frozen=True)
class OnlineLearner:
    """`Learner` with actors and stored data; the same interface.

    Attributes:
      learner: does the updates.
      game: what the actors play.
      sources: where stored windows come from; "recent" is there if anything acts.
      counts: reanalysed windows of a batch by source.
      first_hand: windows of a batch with the acting search's own targets.
      actors: E.
      round_updates: updates between two rounds of acting.
      prefill: ticks before the first update.
      temperatures: of the acting policy, one after another; the last one stays.
      temperature_updates: updates that each temperature lasts.
    """

    learner: Learner
    game: games.Game
    sources: Mapping[str, replay.Source]
    counts: Mapping[str, int]
    first_hand: int
    actors: int
    round_updates: int
    prefill: int
    temperatures: tuple[float, ...]
    temperature_updates: int

    @property
    def model(self) -> Any:
        """The learned model."""
        return self.learner.model

    def init(self, seed: int) -> OnlineState:
        """The state before the first update, its first steps acted."""
        return self._compiled_init(self.learner.init(seed))

    @functools.cached_property
    def _compiled_init(self) -> Any:
        return jax.jit(self._init)

    def _init(self, state: LearnerState) -> OnlineState:
        if not self.first_hand:
            return OnlineState(state, None, {})
        world_key, key = jax.random.split(jax.random.fold_in(state.key, 2**31 - 1))
        world, observation = jax.vmap(self.game.reset)(jax.random.split(world_key, self.actors))
        actors = Actors(
            world=world,
            observation=observation,
            ended=jnp.zeros([self.actors], bool),
            discount=jnp.ones([self.actors]),
            frames=jnp.zeros([], jnp.int32),
            running=jnp.zeros([self.actors]),
            best=jnp.asarray(-jnp.inf),
        )
        tick = jax.eval_shape(lambda: self._tick(state, actors, key)[1])
        like = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tick)
        sources = {name: source.init(like) for name, source in self.sources.items()}
        return self.act(OnlineState(state, actors, sources), key, self.prefill)

    def _tick(
        self, state: LearnerState, actors: Actors, key: jax.Array
    ) -> tuple[Actors, replay.Tick]:
        """One step of every actor: search, act, or begin anew where an episode is over."""
        search_key, action_key, step_key, reset_key = jax.random.split(key, 4)
        model, settings = self.model, self.learner.settings
        root = improvement.root_of(
            model, state.params, model.represent(state.params, actors.observation)
        )
        operator = self.learner.method.operator
        assert operator is not None  # `OnlineSpec` demands one.
        improved = contracts.improve(operator, model, state.params, root, search_key, settings)
        stretch = state.updates // self.temperature_updates
        temperature = jnp.asarray(self.temperatures)[
            jnp.minimum(stretch, len(self.temperatures) - 1)
        ]
        logits = jnp.log(jnp.maximum(improved.policy, 1e-12)) / temperature
        chosen = jax.random.categorical(action_key, logits)
        if improved.actions is None:
            action = jnp.where(actors.ended, 0, chosen)
        else:
            action = jnp.take_along_axis(improved.actions, chosen[:, None, None], axis=1)[:, 0]
            action = jnp.where(actors.ended[:, None], 0.0, action)
        number = self.actors
        world, step = jax.vmap(self.game.step)(
            actors.world, action, jax.random.split(step_key, number)
        )
        fresh = jax.vmap(self.game.reset)(jax.random.split(reset_key, number))

        def begin(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(actors.ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        world, observation = jax.tree.map(begin, fresh, (world, step.observation))
        observed = actors.observation
        if self.game.of_bits:
            observed = bits.pack(observed, len(self.game.observation_shape))
        tick = replay.Tick(
            observation=observed,
            action=action.astype(self.game.actions.dtype),
            reward=jnp.where(actors.ended, 0.0, step.reward),
            discount=jnp.where(actors.ended, actors.discount, step.discount),
            is_last=actors.ended,
            improved=improved,
        )
        ended = ~actors.ended & step.last
        running = actors.running + tick.reward
        following = Actors(
            world=world,
            observation=observation,
            ended=ended,
            discount=step.discount,
            frames=actors.frames + jnp.sum(~actors.ended),
            running=jnp.where(ended, 0.0, running),
            best=jnp.maximum(actors.best, jnp.max(running, where=ended, initial=-jnp.inf)),
        )
        return following, tick

    def act(self, state: OnlineState, key: jax.Array, ticks: int) -> OnlineState:
        """Some steps of every actor, into every source."""

        def body(state: OnlineState, tick_key: jax.Array) -> tuple[OnlineState, None]:
            assert state.actors is not None  # They are None only where nothing acts.
            actors, tick = self._tick(state.learner, state.actors, tick_key)
            sources = {
                name: source.add(state.sources[name], tick) for name, source in self.sources.items()
            }
            return state._replace(actors=actors, sources=sources), None

        return jax.lax.scan(body, state, jax.random.split(key, ticks))[0]

    @property
    def _recent(self) -> replay.Recent:
        """The source that first-hand windows come from; it is there if anything acts."""
        source = self.sources["recent"]
        assert isinstance(source, replay.Recent)
        return source

    def _stored(self, state: OnlineState, data: Any, name: str, key: jax.Array) -> windows.Windows:
        """The windows to be reanalysed that one source gives."""
        number, source = self.counts[name], self.sources[name]
        found = source.sample(state.sources.get(name, ()), data, key, number)
        if isinstance(source, replay.Best):  # Until an episode is over, the most recent instead.
            recent = self._recent.sample(state.sources["recent"], data, key, number)
            some = source.holds_any(state.sources[name])
            found = jax.tree.map(lambda a, b: jnp.where(some, a, b), found, recent)
        return found

    def draw(self, state: OnlineState, data: Any, key: jax.Array) -> windows.Windows:
        """A batch: windows by source, their targets made anew, then first-hand ones."""
        if not self.first_hand and len(self.counts) == 1:  # An offline learner's very batch.
            (name,) = self.counts
            return self._stored(state, data, name, key)
        parts = []
        keys = jax.random.split(key, len(self.counts) + 2)
        for name, source_key in zip(self.counts, keys):
            parts.append(self._stored(state, data, name, source_key))
        if not self.first_hand:
            return _joined(parts)
        found = _joined(parts) if parts else None
        learner = self.learner
        if found is not None:
            target = state.target_params
            states = self.model.represent(target, found.observation)
            roots = objectives.with_recorded(improvement.root_of(self.model, target, states), found)
            improved = objectives.improve(
                target, roots, keys[-1], self.model, learner.method, learner.settings
            )
            found = found._replace(improved=jax.lax.stop_gradient(improved))
        acted = self._recent.sample(
            state.sources["recent"], data, keys[-2], self.first_hand, improved=True
        )
        if found is not None:
            steps = len(found.improved.value)
            acted = acted._replace(improved=jax.tree.map(lambda x: x[:steps], acted.improved))
        return acted if found is None else _joined([found, acted])

    def _update(self, data: Any, state: OnlineState) -> tuple[OnlineState, dict[str, jax.Array]]:
        now = state.learner
        sample_key, key = jax.random.split(jax.random.fold_in(now.key, now.updates))
        learner, parts = self.learner.update(now, self.draw(state, data, sample_key), key)
        return state._replace(learner=learner), parts

    def _round(self, data: Any, state: OnlineState) -> tuple[OnlineState, dict[str, jax.Array]]:
        """Acts, then learns: for each first-hand window of an update, T steps."""
        if self.first_hand:
            act_key = jax.random.fold_in(  # 0 and 1 are what `_update` splits off.
                jax.random.fold_in(state.learner.key, state.learner.updates), 2
            )
            state = self.act(state, act_key, self.first_hand)
        return jax.lax.scan(
            lambda state, _: self._update(data, state), state, None, length=self.round_updates
        )

    def _scan(
        self, state: OnlineState, data: Any, num_updates: int
    ) -> tuple[OnlineState, dict[str, jax.Array]]:
        state, parts = jax.lax.scan(
            lambda state, _: self._round(data, state),
            state,
            None,
            length=num_updates // self.round_updates,
        )
        return state, jax.tree.map(lambda x: x.reshape(-1), parts)

    @functools.cached_property
    def run(self) -> Any:
        """(state, data, num_updates) -> (state, losses), compiled; whole rounds."""
        return jax.jit(self._scan, static_argnums=2, donate_argnums=0)

    @functools.cached_property
    def run_seeds(self) -> Any:
        """As `run`, for states stacked along a first axis."""

        def together(states: OnlineState, data: Any, num_updates: int) -> Any:
            return jax.vmap(lambda state: self._scan(state, data, num_updates))(states)

        return jax.jit(together, static_argnums=2, donate_argnums=0)


def _joined(parts: list[windows.Windows]) -> windows.Windows:
    """Windows of several batches in one."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
