"""Games as pure functions: MinAtar's with sticky actions (Young and Tian, 2019), and bsuite's.

The games are gymnax's, which are JAX through and through, so that a whole training or
evaluation compiles into one program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unplugged.common import checks
from unplugged.model.actions import Actions, Discrete, Normal

MINATAR = {
    "asterix": "Asterix-MinAtar",
    "breakout": "Breakout-MinAtar",
    "freeway": "Freeway-MinAtar",
    "seaquest": "Seaquest-MinAtar",
    "space_invaders": "SpaceInvaders-MinAtar",
}
STICKY = 0.25  # as on Atari (Machado et al., 2018)
CLASSIC = {"pendulum": "Pendulum-v1", "mountain_car": "MountainCarContinuous-v0"}
_GYMNAX = ("catch", "deep_sea_SIZE")  # bsuite's; a deep sea of 10 x 10 is "deep_sea_10"


class Step(NamedTuple):
    """What follows an action.

    Attributes:
      observation: [...] float32.
      reward: [] float32.
      discount: [] float32, 0 where the episode truly ended, else 1.
      last: [] bool, whether the episode is over, by its end or by the time limit.
    """

    observation: jax.Array
    reward: jax.Array
    discount: jax.Array
    last: jax.Array


class Game(NamedTuple):
    """An environment as pure functions of one state; vmap for many.

    Attributes:
      reset: key -> (state, observation).
      step: (state, action, key) -> (state, `Step`). After the last step, reset.
      observation_shape: shape of one observation.
      actions: the action space; continuous actions are rescaled to [-1, 1] and clipped.
      max_steps: time limit of an episode.
      of_bits: whether observations are bits, 0 or 1.
    """

    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    step: Callable[[Any, jax.Array, jax.Array], tuple[Any, Step]]
    observation_shape: tuple[int, ...]
    actions: Actions
    max_steps: int
    of_bits: bool = True

    @property
    def num_actions(self) -> int:
        """Size of a discrete action space."""
        assert isinstance(self.actions, Discrete)
        return self.actions.num_actions


Registered = tuple[str, dict[str, Any]]  # gymnax's name of a game, and the options it is made with


def _minatar(name: str) -> Registered:
    return MINATAR[checks.one_of("MinAtar game", name, MINATAR)], {}


def _classic(name: str) -> Registered:
    return CLASSIC[checks.one_of("classic control task", name, CLASSIC)], {}


def _bsuites(name: str) -> Registered:
    if name == "catch":
        return "Catch-bsuite", {}
    kind, _, size = name.rpartition("_")
    if kind != "deep_sea":
        checks.one_of("gymnax game", name, _GYMNAX)
    if not size.isdigit() or int(size) < 2:
        raise ValueError(f"{name!r}: SIZE is a number, 2 or more, as in deep_sea_10")
    return "DeepSea-bsuite", {"size": int(size)}


class Family(NamedTuple):
    """Games that belong together.

    Attributes:
      find: name -> gymnax's name and options; raises ValueError naming the nearest.
      sticky: probability that an action is executed again.
      of_bits: whether observations are bits.
    """

    find: Callable[[str], Registered]
    sticky: float = 0.0
    of_bits: bool = True


FAMILIES = {
    "minatar": Family(_minatar, STICKY),
    "gymnax": Family(_bsuites),
    "classic": Family(_classic, of_bits=False),
}


def _family(benchmark: str) -> Family:
    return FAMILIES[checks.one_of("benchmark of compiled games", benchmark, FAMILIES)]


def check(benchmark: str, name: str) -> None:
    """Raises ValueError if there is no such game, naming the nearest."""
    _family(benchmark).find(name)


def make(benchmark: str, name: str, *, sticky: float | None = None) -> Game:
    """A game, minimal action set.

    Args:
      benchmark: one of `FAMILIES`.
      name: one of `MINATAR`, or of `CLASSIC`; or "catch", or "deep_sea_10" and other sizes.
      sticky: probability that the action executed before is executed again instead of the
        agent's, in [0, 1]; None: the family's.

    Raises:
      ValueError: if there is no such game, naming the nearest.
    """
    family = _family(benchmark)
    sticky = family.sticky if sticky is None else sticky
    checks.within("sticky", sticky, 0.0, 1.0)
    registered, options = family.find(name)

    import gymnax  # Only here: it takes hold of the devices, before hosts could join theirs.

    environment = gymnax.make(registered, **options)[0]
    parameters = environment.default_params
    actions, execute = _actions_of(environment, parameters)

    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = environment.reset_env(key, parameters)
        return (state, jnp.zeros(actions.shape, actions.dtype)), observation.astype(jnp.float32)

    def step(state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, Step]:
        inner, before = state
        stick_key, step_key = jax.random.split(key)
        again = jax.random.bernoulli(stick_key, sticky)
        action = jnp.where(again, before, action.astype(actions.dtype))
        observation, inner, reward, ended, _ = environment.step_env(
            step_key, inner, execute(action), parameters
        )
        out_of_time = environment.is_truncated(inner, parameters)
        result = Step(
            observation=observation.astype(jnp.float32),
            reward=jnp.asarray(reward, jnp.float32),
            discount=1.0 - ended.astype(jnp.float32),
            last=ended | out_of_time,
        )
        return (inner, action), result

    return Game(
        reset=reset,
        step=step,
        observation_shape=tuple(environment.observation_space(parameters).shape),
        actions=actions,
        max_steps=int(parameters.max_steps_in_episode),
        of_bits=family.of_bits,
    )


def _actions_of(
    environment: Any, parameters: Any
) -> tuple[Actions, Callable[[jax.Array], jax.Array]]:
    """The action space of one of gymnax's environments, and from our actions to its own."""
    space = environment.action_space(parameters)
    if not hasattr(space, "low"):
        return Discrete(int(environment.num_actions)), lambda action: action
    low, high = (jnp.broadcast_to(bound, space.shape) for bound in (space.low, space.high))
    return Normal(
        math.prod(space.shape)
    ), lambda action: low + (high - low) * (jnp.clip(action, -1.0, 1.0) + 1.0) / 2.0


def play(
    game: Game,
    act: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    episodes: int,
) -> tuple[jax.Array, jax.Array]:
    """Plays episodes in lock-step until all are over; pure, to be compiled.

    Args:
      game: the game.
      act: (observation [episodes, ...], key) -> action [episodes], or [episodes, D].
      key: randomness of the game and the policy.
      episodes: how many.

    Returns:
      Undiscounted returns [episodes] and lengths [episodes].
    """
    reset_key, key = jax.random.split(key)
    state, observation = jax.vmap(game.reset)(jax.random.split(reset_key, episodes))

    def running(carry: tuple) -> jax.Array:
        return ~jnp.all(carry[-1])

    def body(carry: tuple) -> tuple:
        time, state, observation, returns, lengths, over = carry
        act_key, step_key = jax.random.split(jax.random.fold_in(key, time))
        action = act(observation, act_key)
        state, step = jax.vmap(game.step)(state, action, jax.random.split(step_key, episodes))
        returns += jnp.where(over, 0.0, step.reward)
        lengths += ~over
        return time + 1, state, step.observation, returns, lengths, over | step.last

    start = (
        jnp.zeros([], jnp.int32),
        state,
        observation,
        jnp.zeros(episodes),
        jnp.zeros(episodes, jnp.int32),
        jnp.zeros(episodes, bool),
    )
    *_, returns, lengths, _ = jax.lax.while_loop(running, body, start)
    return returns, lengths
