"""Off-policy evaluation: what a policy would earn, from recorded episodes alone.

Importance sampling and doubly robust estimates are plain NumPy over whole episodes; intervals come
from resampling them. Fitted Q evaluation is in the networks of the methods. Beside them is what a
careful reader asks before believing any: how far the policy departs from the log, and whether the
log ever did what it does. `selection.report` makes all of them for a run.

An episode that truly ended earns nothing more. One that was cut off counts until there; of the
estimates only those by values of states say something of what came later.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unplugged.data import datasets, windows
from unplugged.learning import losses
from unplugged.model import transforms
from unplugged.model.networks import Model, Params
from unplugged.planning import acting
from unplugged.runs.spec import Spec, divide, load

_AT_ONCE = 8_192  # steps at which actions are chosen, or values asked for, in one call
_BLOCK = 4_000_000  # numbers of an array over episodes and steps
_OF_LOG = 1 / 3  # of fitted Q evaluation's updates, that fit the log's own returns
_BEYOND = 0.05  # discount of what fitted Q evaluation need not look for
_NONE = 0.05  # share of resamples without an estimate beyond which there is no interval
NEIGHBOURS = 50  # of a state, that are like it
_AMONG = 50_000  # states at most that they are looked for in


class Log(NamedTuple):
    """Recorded episodes, one after the other, and what a policy makes of them.

    Attributes:
      lengths: decisions of each episode. Shape [E].
      reward: of each decision. Shape [M].
      ratio: how probable the action is under the policy over how it was. Shape [M].
      q: a guess of the recorded action's value under the policy; None: no doubly robust estimate.
        Shape [M].
      v: of each decision's state, the policy's mean of `q` over actions. Shape [M].
      v_end: of the final observation; 0 where an episode truly ended. Shape [E].
    """

    lengths: np.ndarray
    reward: np.ndarray
    ratio: np.ndarray
    q: np.ndarray | None = None
    v: np.ndarray | None = None
    v_end: np.ndarray | None = None


def resampled(episodes: int, number: int, seed: int) -> np.ndarray:
    """How often each of E episodes is drawn, E with replacement, `number` times. [number, E]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(episodes, np.full(episodes, 1.0 / episodes), size=number)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled estimates; NaN if more than 1 in 20 resamples gave none.

    Those that give none are the ones that hold no episode like the policy's. Without them an
    interval would be narrowest where there is least to go by.
    """
    found = samples[np.isfinite(samples)]
    if len(found) < (1.0 - _NONE) * len(samples):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def mean_return(log: Log, discount: float, counts: np.ndarray | None = None) -> np.ndarray:
    """The log's own mean return, for each row of `counts` [B, E]; None: of all once. Shape [B]."""
    counts = _all_once(log) if counts is None else counts
    first = np.cumsum(log.lengths) - log.lengths
    step = np.arange(len(log.reward)) - np.repeat(first, log.lengths)
    returns = np.add.reduceat(discount**step * log.reward, first)
    return counts @ returns / counts.sum(axis=1)


def importance(log: Log, discount: float, counts: np.ndarray | None = None) -> np.ndarray:
    """Weighted per-decision importance sampling (Precup et al., 2000; Thomas, 2015).

    The mean over episodes of sum_t gamma^t w_t r_t, w_t the product of ratios until t over its
    mean. An episode that is over keeps its weight.

    Args:
      log: with ratios.
      discount: gamma, 1 for undiscounted returns.
      counts: how often each episode counts, [B, E]; None: once.

    Returns:
      Estimates [B]; NaN where no episode has any weight.
    """
    return _estimate(log, discount, counts, doubly=False)


def doubly_robust(log: Log, discount: float, counts: np.ndarray | None = None) -> np.ndarray:
    """Weighted doubly robust estimates (Thomas and Brunskill, 2016, eq. 5), see `importance`.

    The mean of sum_t gamma^t (w_t (r_t - q_t) + w_{t-1} v_t): what the guessed values say,
    corrected by what was seen. At an episode that was cut off `v_end` stands for the rest.
    """
    if log.q is None or log.v is None or log.v_end is None:
        raise ValueError("a doubly robust estimate needs the log's q, v and v_end")
    return _estimate(log, discount, counts, doubly=True)


def effective(log: Log) -> float:
    """Effective sample size of the whole episodes' weights, (sum w)^2 / sum w^2, in episodes."""
    logs = np.add.reduceat(_logarithms(log.ratio), np.cumsum(log.lengths) - log.lengths)
    if not np.isfinite(logs.max()):
        return 0.0
    w = np.exp(logs - logs.max())
    return float(w.sum() ** 2 / (w**2).sum())


def _all_once(log: Log) -> np.ndarray:
    return np.ones((1, len(log.lengths)))


def _logarithms(ratio: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(ratio.astype(np.float64))


def _estimate(log: Log, discount: float, counts: np.ndarray | None, *, doubly: bool) -> np.ndarray:
    """Both estimates, some steps of all episodes at a time."""
    counts = (_all_once(log) if counts is None else counts).astype(np.float64)
    episodes, longest = len(log.lengths), int(log.lengths.max())
    first = np.cumsum(log.lengths) - log.lengths
    logs = _logarithms(log.ratio)
    total = np.zeros(len(counts))
    before = np.zeros(episodes)  # logarithm of each episode's weight so far
    share = np.ones((len(counts), episodes)) * counts / counts.sum(axis=1, keepdims=True)
    width = max(1, _BLOCK // episodes)
    for begin in range(0, longest + doubly, width):
        step = np.arange(begin, min(begin + width, longest + doubly))
        there = step < log.lengths[:, None]  # [E, T]
        index = np.where(there, first[:, None] + step, 0)

        def at(values: np.ndarray, there: np.ndarray = there, index: Any = index) -> np.ndarray:
            return np.where(there, values[index], 0.0)

        weights = before[:, None] + np.cumsum(at(logs), axis=1)
        before = weights[:, -1]
        tops = np.maximum(weights.max(axis=0), -1e300)  # Where all are -inf, they stay it.
        w = np.exp(weights - tops)
        with np.errstate(invalid="ignore"):
            means = counts @ w  # [B, T]
            gammas = discount ** step.astype(np.float64)
            if not doubly:
                total += (gammas * (counts @ (w * at(log.reward)) / means)).sum(axis=1)
                continue
            assert log.q is not None and log.v is not None and log.v_end is not None
            values = at(log.v) + np.where(step == log.lengths[:, None], log.v_end[:, None], 0.0)
            corrections = counts @ (w * (at(log.reward) - at(log.q))) / means
            guesses = np.empty_like(means)
            guesses[:, 0] = (share * values[:, 0]).sum(axis=1)
            if len(step) > 1:
                guesses[:, 1:] = counts @ (w[:, :-1] * values[:, 1:]) / means[:, :-1]
            total += (gammas * (corrections + guesses)).sum(axis=1)
            share = counts * w[:, -1] / means[:, -1:]
    for i in np.flatnonzero(~np.isfinite(total)):
        # All that was drawn may be too small beside an episode that was not.
        if (drawn := counts[i] > 0).all():
            continue
        alone = _some(log, drawn)
        total[i] = _estimate(alone, discount, counts[i : i + 1, drawn], doubly=doubly)[0]
    return total


def _some(log: Log, which: np.ndarray) -> Log:
    """The log of some of its episodes, bool [E]."""
    steps = np.repeat(which, log.lengths)
    q, v = (None if x is None else x[steps] for x in (log.q, log.v))
    v_end = None if log.v_end is None else log.v_end[which]
    return Log(log.lengths[which], log.reward[steps], log.ratio[steps], q, v, v_end)


# --- Fitted Q evaluation ------------------------------------------------------------------------


def refreshes(discount: float, updates: int) -> int:
    """Updates between refreshes of a target network, of which there are `updates` in all.

    So many that what comes after as many steps as there are refreshes counts for at most 1 in 20
    of what it would now; as many as there are updates, if those are fewer.
    """
    steps = np.inf if discount >= 1.0 else np.log(_BEYOND) / np.log(discount)
    return max(1, int(updates // max(1.0, steps)))


def returns_to_go(reward: jax.Array, end: jax.Array, discount: float) -> jax.Array:
    """The discounted return after each step [N] until the `end` of its episode, [N]. Shape [N]."""

    def after(later: tuple, here: tuple) -> tuple:
        return here[0] + here[1] * later[0], here[1] * later[1]

    going_on = end != jnp.arange(end.shape[0])
    start = (jnp.where(going_on, reward, 0.0), jnp.where(going_on, discount, 0.0))
    return jax.lax.associative_scan(after, start, reverse=True)[0]


class Fitted(NamedTuple):
    """A critic: its parameters, and what the unit of its values is worth."""

    params: Params
    unit: jax.Array


def _linear(model: Model) -> Model:
    """The networks, whose bins lie evenly between -1 and 1.

    Squashed bins fit the mean of squashed returns, and so less than the mean of random returns.
    """
    number = model.support.num_bins
    return dataclasses.replace(model, support=transforms.Atoms(number, 2.0 / (number - 1)))


def _largest(data: windows.Store, discount: float, returns: jax.Array) -> jax.Array:
    """The largest return of the log, its cut-off episodes going on with their mean reward. []."""
    if discount >= 1.0:
        return jnp.max(jnp.abs(returns))
    first = jnp.append(True, data.end[1:] != data.end[:-1])
    cut_off = first & (data.discount[data.end] > 0.0)
    total = returns_to_go(jnp.abs(data.reward), data.end, 1.0)
    mean = total / jnp.maximum(data.end - jnp.arange(data.end.shape[0]), 1)
    beyond = jnp.where(cut_off, mean, 0.0) / (1.0 - discount)
    return jnp.maximum(jnp.max(jnp.abs(returns)), jnp.max(beyond))


def fit_q(
    model: Model,
    data: windows.Store,
    policy: Any,
    key: jax.Array,
    *,
    discount: float,
    updates: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    target_interval: int | None = None,
    weights: jax.Array | None = None,
) -> Fitted:
    """A critic of a policy's discounted return, from recorded steps alone. To be compiled.

    In the networks of the methods and as a categorical distribution over evenly spaced returns, as
    large as the log's; fitted to r + discount * sum_a pi(a|s') Q(s', a) of a target network (Le et
    al., 2019). With each refresh of that network the critic follows the policy for a step more.
    What comes after is what the log earned: the first `_OF_LOG` of the updates fit its own returns.

    Args:
      model: the networks; new parameters are made.
      data: recorded steps. N of them.
      policy: its probabilities at every step [N, A]; of continuous actions an `acting.Choice` of
        some, [N, K, D] and [N, K].
      key: randomness.
      discount: gamma.
      updates: gradient steps.
      batch_size: transitions a step.
      learning_rate: Adam's.
      target_interval: updates between refreshes of the target network; None: `refreshes`.
      weights: how often each transition counts, such as its episode's in a resample [M]; None:
        once.

    Returns:
      The critic, for `state_values` and `recorded_values`.
    """
    linear = _linear(model)
    init_key, key = jax.random.split(key)
    params = model.init(init_key)
    optimizer = optax.adam(learning_rate)
    below = None if weights is None else jnp.cumsum(weights)
    returns = returns_to_go(data.reward, data.end, discount)
    unit = _largest(data, discount, returns)
    unit = jnp.where(unit > 0.0, unit, 1.0)
    of_log = int(_OF_LOG * updates)
    interval = target_interval or refreshes(discount, updates - of_log)

    def loss(params: Params, target: jax.Array, index: jax.Array) -> jax.Array:
        state = model.represent(params, data.observe(index))
        logits, _ = model.dynamics(params, state, data.action[index])
        return jnp.mean(losses.cross_entropy(linear.support.two_hot(target / unit), logits))

    def recorded(_: Params, index: jax.Array) -> jax.Array:
        return returns[index]

    def followed(target_params: Params, index: jax.Array) -> jax.Array:
        critic = Fitted(target_params, unit)
        after = state_values(model, critic, data, policy, index + 1)
        return data.reward[index] + discount * data.discount[index] * after

    def update(target: Any, carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        params, target_params, opt_state = carry
        draw_key = jax.random.fold_in(key, number)
        if below is None:
            drawn = jax.random.randint(draw_key, [batch_size], 0, data.start.shape[0])
        else:
            uniform = jax.random.uniform(draw_key, [batch_size]) * below[-1]
            drawn = jnp.searchsorted(below, uniform, side="right")
        index = data.start[drawn]
        gradient = jax.grad(loss)(params, target(target_params, index), index)
        change, opt_state = optimizer.update(gradient, opt_state)
        params = optax.apply_updates(params, change)
        past = number - of_log + 1
        target_params = optax.periodic_update(params, target_params, past, interval)
        return (params, target_params, opt_state), None

    carry: Any = (params, params, optimizer.init(params))
    numbers = jnp.arange(updates)
    carry, _ = jax.lax.scan(functools.partial(update, recorded), carry, numbers[:of_log])
    carry = (carry[0], carry[0], carry[2])
    carry, _ = jax.lax.scan(functools.partial(update, followed), carry, numbers[of_log:])
    return Fitted(carry[0], unit)


def state_values(
    model: Model, critic: Fitted, data: windows.Store, policy: Any, index: jax.Array
) -> jax.Array:
    """sum_a pi(a|s) Q(s, a) of a critic at steps [B]; `policy` as for `fit_q`. Shape [B]."""
    model, params = _linear(model), critic.params
    state = model.represent(params, data.observe(index))
    if isinstance(policy, acting.Choice):
        actions, probabilities = policy.actions[index], policy.probabilities[index]
        logits = losses.critic_logits(model, params, state[:, None], actions)
        return critic.unit * jnp.sum(probabilities * model.support.scalar(logits), axis=-1)
    q = losses.critic_values(model, params, state)
    return critic.unit * jnp.sum(policy[index] * q, axis=-1)


def recorded_values(
    model: Model, critic: Fitted, data: windows.Store, index: jax.Array
) -> jax.Array:
    """Q(s, a) of a critic for what was done at steps [B]. Shape [B]."""
    state = model.represent(critic.params, data.observe(index))
    logits = losses.critic_logits(model, critic.params, state, data.action[index])
    return critic.unit * _linear(model).support.scalar(logits)


def fitted_q_evaluation(
    model: Model,
    data: windows.Store,
    first: jax.Array,
    policy: Any,
    key: jax.Array,
    **options: Any,
) -> jax.Array:
    """The discounted return that a policy is estimated to get, from recorded steps alone.

    Pure; to be compiled.

    Args:
      model: the networks; new parameters are made.
      data: recorded steps. N of them.
      first: indices of first steps, where the estimate is averaged. Shape [E].
      policy: at every step, see `fit_q`.
      key: randomness.
      options: see `fit_q`.

    Returns:
      mean over `first` of sum_a pi(a|s) Q(s, a). Shape [].
    """
    critic = fit_q(model, data, policy, key, **options)
    return jnp.mean(state_values(model, critic, data, policy, first))


# --- What to ask before believing it --------------------------------------------------------------


def _parts(number: int) -> list[np.ndarray]:
    """Indices of all steps, some at a time."""
    return np.array_split(np.arange(number), -(-number // _AT_ONCE))


def by_steps(function: Callable[[jax.Array], jax.Array], number: int) -> np.ndarray:
    """What a function of steps' indices gives of N steps, some at a time, float64 [N]."""
    found = [np.asarray(function(jnp.asarray(part)), np.float64) for part in _parts(number)]
    return np.concatenate(found)


def at_steps(function: Callable[..., Any], data: windows.Store, params: Params, key: Any) -> Any:
    """What a function (params, observation, key) gives at every step, some at a time, as NumPy."""
    parts = _parts(len(data.action))
    keys = [key, *(jax.random.fold_in(key, i) for i in range(1, len(parts)))]
    found = [
        function(params, data.observe(jnp.asarray(part)), one) for part, one in zip(parts, keys)
    ]
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(one) for one in x]), *found)


def at_actions(
    function: Callable[..., jax.Array], data: windows.Store, params: Params
) -> np.ndarray:
    """What a function (params, observation, action) gives at every step and its action. [N]."""
    return by_steps(
        lambda index: function(params, data.observe(index), data.action[index]), len(data.action)
    )


def differs(policy: np.ndarray, action: np.ndarray) -> float:
    """The share of decisions that a policy [M, A] is expected to take otherwise than the log."""
    return float(1.0 - np.take_along_axis(policy, action[:, None], axis=1).mean())


def seen(
    observation: np.ndarray, policy: np.ndarray, logged: np.ndarray, action: np.ndarray
) -> np.ndarray:
    """How often the log did, in like states, what a policy would do.

    Like states are the `NEIGHBOURS` nearest of the log, by the distance of observations whose
    columns have unit variance, among at most `_AMONG` of them.

    Args:
      observation: states to decide in, [B, ...].
      policy: its probabilities there, [B, A].
      logged: states of the log, [N, ...].
      action: what was done there, [N].

    Returns:
      For each state the share of like states whose action the policy would take. Shape [B].
    """
    which = np.linspace(0, len(logged) - 1, min(_AMONG, len(logged))).round().astype(int)
    flat, action = logged[which].reshape(len(which), -1).astype(np.float64), action[which]
    scale = flat.std(axis=0)
    scale[scale == 0.0] = 1.0
    flat, here = flat / scale, observation.reshape(len(observation), -1) / scale
    number = min(NEIGHBOURS, len(flat))
    found = np.empty(len(here))
    squares = (flat**2).sum(axis=1)
    for begin in range(0, len(here), 100):
        some = slice(begin, begin + 100)
        distance = squares - 2.0 * here[some] @ flat.T
        nearest = np.argpartition(distance, number - 1, axis=1)[:, :number]
        found[some] = np.take_along_axis(policy[some], action[nearest], axis=1).mean(axis=1)
    return found


def outside(dataset: datasets.Dataset, discount: float, limit: float) -> float:
    """The share of steps whose discounted return in the data is beyond what bins represent."""
    beyond = np.abs(datasets.returns_to_go(dataset, discount)) > limit
    return float(beyond.sum() / dataset.num_transitions)


def held_out(spec: Spec) -> datasets.Dataset:
    """The episodes that a run holds out."""
    _, held = divide(spec, load(spec.dataset))
    assert held is not None  # Who asks has looked at the holdout.
    return held


def decided(dataset: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all decisions [M], and how many each episode has [E]."""
    lengths = np.diff(np.flatnonzero(dataset.is_last), prepend=-1) - 1
    return np.flatnonzero(~dataset.is_last), lengths
