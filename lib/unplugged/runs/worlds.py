"""Runs in a world model: what they are, how they are made, and acting with a memory."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from unplugged.common import checks, hashing
from unplugged.data import datasets, windows
from unplugged.envs import games
from unplugged.learning import methods, world_model
from unplugged.learning.learner import Learner
from unplugged.learning.world_learner import WorldData, WorldLearner
from unplugged.learning.world_settings import OF_THE_WORLD, PRESETS, WorldSettings
from unplugged.model.actions import Actions, Discrete
from unplugged.model.world import World, WorldState, rssm, straight_through
from unplugged.runs import benchmarks, evaluation, training
from unplugged.runs.spec import Spec, model_of, on_device, prepare

_AT_ONCE = 256  # windows whose disagreement is looked at in one call


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldSpec(Spec):
    """A world model's run, or one of a method that learns inside it; see `runs.Spec` for the rest.

    Attributes:
      world: folder of the world model's run, for methods that learn inside it.
      world_seed: which of its seeds.
    """

    imagines: ClassVar[bool] = True
    kind_of_settings: ClassVar[type[WorldSettings]] = WorldSettings

    method: str = "world_model"
    world: str | None = None
    world_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        packed = [name for name, of in benchmarks.BENCHMARKS.items() if of.packed and of.game]
        checks.one_of("benchmark of a world model", self.benchmark, packed)
        checks.within("world_seed", self.world_seed, 0, integer=True)
        if self.learns_the_world == bool(self.world):
            raise ValueError(
                "world_model learns from the dataset alone: leave world out"
                if self.world
                else f"{self.method} learns inside a world model: give world, the folder of its run"
            )
        if self.eval_every % self.updates_at_once:
            raise ValueError(
                f"eval_every ({self.eval_every}) must be a multiple of round_updates "
                f"({self.updates_at_once})"
            )

    @property
    def learns_the_world(self) -> bool:
        """Whether it is the world model's own run."""
        return self.method == "world_model"

    @property
    def settings(self) -> WorldSettings:
        """The method's preset with the overrides."""
        return PRESETS[self.method].override(self.overrides)  # type: ignore[return-value]

    @property
    def updates_at_once(self) -> int:
        """A compiled call does a multiple of this many updates."""
        return 1 if self.learns_the_world else self.settings.round_updates

    def ways_to_act(self) -> list[str]:
        """Selectors that use nothing but what the method learns; a world model has no policy."""
        return ["uniform"] if self.learns_the_world else super().ways_to_act()

    def network(self, observation_shape: Sequence[int], actions: Actions) -> World:
        """The world model, for an environment of this form."""
        assert isinstance(actions, Discrete)  # As of every compiled game.
        return rssm(
            observation_shape=observation_shape,
            num_actions=actions.num_actions,
            **{name: getattr(self.settings, name) for name in OF_THE_WORLD},
        )

    def learner(
        self, observation_shape: Sequence[int], actions: Actions, moments: Any = None
    ) -> Any:
        """The run's learner, its world model with fresh parameters; bits are not standardised."""
        del moments
        network, method = self.network(observation_shape, actions), methods.get(self.method)
        if self.learns_the_world:
            return Learner(network, method, self.settings)  # type: ignore[arg-type]
        agent = model_of(self.settings, [network.num_features], actions)
        return WorldLearner(network, agent, method, self.settings)

    def evaluator(
        self,
        model: Any,
        *,
        selector: str | None = None,
        episodes: int | None = None,
        greedy: bool = False,
    ) -> evaluation.Evaluator:
        """Plays fresh episodes; None: as the run does. If `greedy`, by most probable actions."""
        make = self.of_benchmark.game
        assert make is not None  # `__post_init__` demands one.
        game, episodes = make(self.environment), episodes or self.eval_episodes
        if self.learns_the_world:
            return evaluation.Compiled(game, functools.partial(_uniform, game), episodes)
        policy = evaluation.make_policy(
            model, selector or self.acts_by, self.settings, greedy=greedy
        )
        network = self.network(game.observation_shape, game.actions)
        return Remembering(game, policy, episodes, network)

    def columns(self, state: Any, learner: Any, data: Any) -> dict[str, Any]:
        """What MOReL's threshold rests on, and the share of rollouts that it ends."""
        if self.learns_the_world:
            return {}
        found: dict[str, Any] = dict.fromkeys(("largest_disagreement", "halted"))
        if self.method == "morel":
            found |= {
                "largest_disagreement": round(data.largest, 6),
                "halted": round(float(learner.halted(state, data)), 6),
            }
        return found

    def described_data(self, store: windows.Store) -> Any:
        """What `build` puts on the device, with `store` as its dataset."""
        return store if self.learns_the_world else WorldData(store, 0.0)

    def prepare(self) -> tuple[Any, datasets.Dataset]:
        """The learner and the dataset.

        The dataset of a run inside a world model names that in its metadata, so that another
        world model is other data.

        Raises:
          DatasetError: if the dataset is damaged or does not fit the environment.
          FileNotFoundError: if the world model's run is not there, or has no checkpoint.
          ValueError: if it is of another environment or other sizes.
        """
        learner: Any
        learner, dataset = prepare(self)
        if self.learns_the_world:
            return learner, dataset
        params = load(self)
        metadata = {**dataset.metadata, "world": digest(params)}
        learner = dataclasses.replace(learner, world_params=params)
        return learner, dataclasses.replace(dataset, metadata=metadata)

    def build(self) -> tuple[Any, Any, datasets.Dataset]:
        """The learner, its data on the device, and the dataset; see `prepare`."""
        learner, dataset = self.prepare()
        store = on_device(dataset)
        if self.learns_the_world:
            return learner, store, dataset
        largest = 0.0
        if self.method == "morel":
            params = learner.world_params
            largest = largest_disagreement(learner.world, params, store, self.settings)
        return learner, WorldData(store, largest), dataset


PARAMETERS = [field.name for field in dataclasses.fields(WorldSpec)]


def _uniform(game: games.Game, params: Any, observation: jax.Array, key: jax.Array) -> jax.Array:
    """A world model's actions: at random."""
    del params
    return jax.random.randint(key, observation.shape[:1], 0, game.num_actions)


def of_folder(folder: str | Path) -> WorldSpec:
    """The world model's run that a folder holds.

    Raises:
      FileNotFoundError: if it holds no finished run.
      ValueError: if that is no world model's.
    """
    path = Path(folder) / "provenance.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no finished run of a world model")
    parameters = json.loads(path.read_text())["parameters"]
    if parameters["method"] != "world_model":
        raise ValueError(f"{folder} is a run of {parameters['method']}, not of world_model")
    return WorldSpec(**parameters)


def load(spec: WorldSpec) -> Any:
    """The parameters of the world model that a run learns inside; see `WorldSpec.build`."""
    assert spec.world is not None  # As of every run that learns inside one.
    found = of_folder(spec.world)
    for what, there, here in (
        ("environment", found.environment, spec.environment),
        *((n, getattr(found.settings, n), getattr(spec.settings, n)) for n in OF_THE_WORLD),
    ):
        if there != here:
            raise ValueError(
                f"the world model in {spec.world} has {what} {there}, this run {here}: give the "
                "same to both"
            )
    try:
        return training.restore(found, spec.world, spec.world_seed)[1].params
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; give a world_seed of {list(found.seeds)}, or, if its results were adopted, "
            "delete the folder and train it"
        ) from error


def digest(params: Any) -> str:
    """A hash of parameters' values."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return hashing.digest(*(f"{path} {np.asarray(x).tobytes().hex()}" for path, x in leaves))


def in_turn(store: windows.Store, length: int) -> np.ndarray:
    """Starts of windows in which each recorded step stands once, not as the last of its window.

    The last window of an episode may reach beyond its end.
    """
    last = np.unique(np.asarray(store.end))
    first = np.append(0, last[:-1] + 1)
    return np.concatenate([np.arange(*of, length - 1) for of in zip(first, last)])


def largest_disagreement(
    network: World, params: Any, store: windows.Store, settings: WorldSettings
) -> float:
    """The ensemble's largest disagreement on the whole dataset, window after window."""
    length = settings.unroll_steps + 1

    @jax.jit
    def largest(params: Any, start: jax.Array, key: jax.Array) -> jax.Array:
        found = world_model.recorded_disagreement(
            network, params, windows.at(store, start, length), key
        )
        return jnp.max(found)

    starts = in_turn(store, length)
    groups = np.resize(starts, (-(-len(starts) // _AT_ONCE), _AT_ONCE))  # The last is filled up.
    keys = jax.random.split(jax.random.key(0), len(groups))
    return max(float(largest(params, group, key)) for group, key in zip(groups, keys))


# --- Acting with a memory -----------------------------------------------------------------------


def remembered(game: games.Game, network: World, params: Any) -> games.Game:
    """The game seen through a world model: an observation is its state, the episode so far in it.

    Args:
      game: what is played.
      network: the world model.
      params: its parameters.
    """

    def see(recurrent: jax.Array, observation: jax.Array, key: jax.Array) -> WorldState:
        logits = network.posterior(params, recurrent, network.encode(params, observation))
        return WorldState(recurrent, straight_through(logits, key))

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        key, draw_key = jax.random.split(key)
        inner, observation = game.reset(key)
        state = see(network.beginning([]), observation, draw_key)
        return (inner, state), state.features

    def step(whole: Any, action: jax.Array, key: jax.Array) -> tuple[Any, games.Step]:
        inner, state = whole
        key, draw_key = jax.random.split(key)
        inner, happened = game.step(inner, action, key)
        state = see(network.recur(params, state, action), happened.observation, draw_key)
        return (inner, state), happened._replace(observation=state.features)

    return game._replace(reset=reset, step=step, observation_shape=(network.num_features,))


@dataclasses.dataclass(frozen=True)
class Remembering(evaluation.Compiled):
    """Episodes of a policy that acts on a world model's state; see `evaluation.Compiled`.

    Attributes:
      network: the world model.
    """

    network: World

    @functools.cached_property
    def _play(self) -> Callable[..., jax.Array]:
        def play(params: Any, key: jax.Array) -> jax.Array:
            game = remembered(self.game, self.network, params["world"])
            act = functools.partial(self.policy, params["agent"])
            return games.play(game, act, key, self.episodes)[0]

        return jax.jit(play)
