"""Offline policy selection: scores of a checkpoint that need no environment.

Two ways that leave the choice to recorded episodes: the training loss on held-out episodes,
and fitted Q evaluation (FQE; Le et al., 2019), the recommended baseline of offline policy
evaluation (Voloshin et al., 2021; ROSMO, Appendix F.3).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from tqdm import tqdm

from unplugged.common import checks, files
from unplugged.data import datasets, windows
from unplugged.learning import losses
from unplugged.learning.learner import Learner
from unplugged.model.networks import Model, Params
from unplugged.planning import acting
from unplugged.runs.spec import Spec, build, divide
from unplugged.runs.training import saved_states

MOST_WINDOWS = 2_048
_AT_ONCE = 8_192  # steps at which actions are chosen in one call


def held_out_loss(learner: Learner, held_out: windows.Store) -> Callable[[Params, Params], float]:
    """(params, target_params) -> the method's training loss on held-out episodes.

    Over all windows, or `MOST_WINDOWS` spread evenly if there are more; the same randomness
    each time.
    """
    number = min(MOST_WINDOWS, held_out.start.shape[0])
    which = np.linspace(0, held_out.start.shape[0] - 1, number).round().astype(int)
    length = sum(learner.method.window(learner.settings)) + 1

    @jax.jit
    def loss(params: Params, target_params: Params) -> jax.Array:
        batch = windows.at(held_out, held_out.start[which], length)
        return learner.loss(params, target_params, batch, jax.random.key(0))[0]

    return lambda params, target_params: float(loss(params, target_params))


def fitted_q_evaluation(
    model: Model,
    data: windows.Store,
    first: jax.Array,
    probabilities: jax.Array,
    key: jax.Array,
    *,
    discount: float,
    updates: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    target_interval: int = 50,
) -> jax.Array:
    """The discounted return that a policy is estimated to get, from recorded steps alone.

    Fits a critic, in the networks of the methods and as a categorical distribution, to
    r + discount * sum_a pi(a|s') Q(s', a) of a target network. Pure; to be compiled.

    Args:
      model: the networks; new parameters are made.
      data: recorded steps. N of them.
      first: indices of first steps, where the estimate is averaged. Shape [E].
      probabilities: the policy at every step. Shape [N, A].
      key: randomness.
      discount: gamma.
      updates: gradient steps.
      batch_size: transitions a step.
      learning_rate: Adam's.
      target_interval: updates between refreshes of the target network.

    Returns:
      mean over `first` of sum_a pi(a|s) Q(s, a). Shape [].
    """
    init_key, key = jax.random.split(key)
    params = model.init(init_key)
    optimizer = optax.adam(learning_rate)

    def values(params: Params, index: jax.Array) -> jax.Array:
        q = losses.critic_values(model, params, model.represent(params, data.observe(index)))
        return jnp.sum(probabilities[index] * q, axis=-1)

    def loss(params: Params, target: jax.Array, index: jax.Array) -> jax.Array:
        state = model.represent(params, data.observe(index))
        logits, _ = model.dynamics(params, state, data.action[index])
        return jnp.mean(losses.cross_entropy(model.support.two_hot(target), logits))

    def update(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        params, target_params, opt_state = carry
        drawn = jax.random.randint(
            jax.random.fold_in(key, number), [batch_size], 0, data.start.shape[0]
        )
        index = data.start[drawn]
        bootstrap = values(target_params, index + 1)
        target = data.reward[index] + discount * data.discount[index] * bootstrap
        gradient = jax.grad(loss)(params, target, index)
        change, opt_state = optimizer.update(gradient, opt_state)
        params = optax.apply_updates(params, change)
        target_params = optax.periodic_update(params, target_params, number + 1, target_interval)
        return (params, target_params, opt_state), None

    start = (params, params, optimizer.init(params))
    (params, _, _), _ = jax.lax.scan(update, start, jnp.arange(updates))
    return jnp.mean(values(params, first))


def score(spec: Spec, folder: str | os.PathLike[str], *, fqe_updates: int) -> pd.DataFrame:
    """Scores every checkpoint of a finished run.

    FQE is fitted on all episodes of the run's fraction, held-out ones among them. Its critic is
    categorical, whatever the method's own is.

    Args:
      spec: the run, with `holdout` and `keep_checkpoints`.
      folder: its directory, with checkpoints and results.csv.
      fqe_updates: gradient steps of each fitted Q evaluation.

    Returns:
      The run's rows at checkpoints, with `holdout_loss` and `fqe_return` (discounted).

    Raises:
      ValueError: if the run held nothing out or kept only its last checkpoint, or the
        checkpoints are of another run.
    """
    if not spec.holdout or not spec.keep_checkpoints:
        raise ValueError("selection needs a run with holdout above 0 and keep_checkpoints")
    checks.within("fqe_updates", fqe_updates, 1, integer=True)
    learner, _, dataset = build(spec)
    moments = datasets.moments(dataset) if spec.settings.standardize else None
    fitted = spec.model(*spec.of_benchmark.form(spec.environment), moments)
    whole = datasets.load(spec.dataset)
    _, held = divide(spec, whole)
    assert held is not None  # The holdout is above 0.
    fraction = datasets.subsample(whole, spec.fraction, spec.data_seed)
    data, first = windows.store(fraction), jnp.asarray(np.flatnonzero(fraction.is_first))
    loss = held_out_loss(learner, windows.store(held))
    select = acting.SELECTORS[spec.acts_by]

    @jax.jit
    def some_actions(params: Any, index: jax.Array, key: jax.Array) -> jax.Array:
        return select(learner.model, params, data.observe(index), key, learner.settings)

    def act(params: Any, key: jax.Array) -> jax.Array:
        """Probabilities of the actions at every step, some steps at a time."""
        parts = np.array_split(np.arange(len(data.action)), -(-len(data.action) // _AT_ONCE))
        keys = [key, *(jax.random.fold_in(key, i) for i in range(1, len(parts)))]
        return jnp.concatenate([some_actions(params, part, one) for part, one in zip(parts, keys)])

    fqe = jax.jit(
        functools.partial(
            fitted_q_evaluation, fitted, discount=learner.settings.discount, updates=fqe_updates
        )
    )  # fmt: skip
    rows = []
    total = len(spec.seeds) * (spec.updates // spec.eval_every)
    saved = saved_states(spec, folder, learner, dataset)
    for seed, update, state in tqdm(
        saved, total=total, unit="checkpoint", mininterval=5.0, file=sys.stdout
    ):
        act_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed), update))
        estimate = fqe(data, first, act(state.params, act_key), key)
        rows.append(
            {
                "seed": seed,
                "update": update,
                "holdout_loss": loss(state.params, state.target_params),
                "fqe_return": float(estimate),
            }
        )
    results = pd.read_csv(files.expanded(folder) / "results.csv")
    return results.merge(pd.DataFrame(rows), on=["seed", "update"], how="inner")
