"""Offline policy selection: scores of a checkpoint that need no environment.

Two ways that leave the choice to recorded episodes: the training loss on held-out episodes,
and fitted Q evaluation (FQE; Le et al., 2019), the recommended baseline of offline policy
evaluation (Voloshin et al., 2021; ROSMO, Appendix F.3). `ope` has more estimates.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from unplugged.common import checks, files
from unplugged.data import datasets, frame_stores, frames, windows
from unplugged.model.networks import Params
from unplugged.planning import acting
from unplugged.runs import decisions, ope
from unplugged.runs.heldout import held_out_loss
from unplugged.runs.ope import fitted_q_evaluation
from unplugged.runs.spec import Spec, build, divide, load, on_device, prepare
from unplugged.runs.training import saved_states

__all__ = ["behavior", "fitted_q_evaluation", "held_out_loss", "report", "score"]

_AT_ONCE = 8_192  # steps at which actions are chosen in one call
_LEAST = 1e-6  # probability that a clone gives what was done, so that weights are finite
_LOOKED_AT = 1_000  # held-out decisions whose like states are looked for


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
      ValueError: if the run held nothing out, kept only its last checkpoint or is not finished, or
        the checkpoints are of another run.
      FileNotFoundError: if there is no run, or it has no checkpoints.
    """
    if not spec.holdout or not spec.keep_checkpoints:
        raise ValueError("selection needs a run with holdout above 0 and keep_checkpoints")
    checks.within("fqe_updates", fqe_updates, 1, integer=True)
    results = _finished(spec, folder)
    learner, dataset = prepare(spec)
    moments = datasets.moments(dataset) if spec.settings.standardize else None
    fitted = spec.model(*spec.form(), moments)
    whole = load(spec.dataset)
    _, held = divide(spec, whole)
    assert held is not None  # The holdout is above 0.
    fraction = datasets.subsample(whole, spec.fraction, spec.data_seed)
    data, first = _all_on_device(fraction), jnp.asarray(np.flatnonzero(fraction.is_first))
    loss = held_out_loss(learner, _all_on_device(held))
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
    return results.merge(_found(rows, folder), on=["seed", "update"], how="inner")


def _finished(spec: Spec, folder: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of a finished run.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if a seed has not reached the last update.
    """
    path = files.expanded(folder) / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"no run in {folder}: it has no results.csv; train it there first")
    rows = pd.read_csv(path)
    for seed in spec.seeds:
        reached = rows.loc[rows["seed"] == seed, "update"].max()
        if not reached >= spec.updates:
            at = f"is at {reached} of {spec.updates} updates"
            at = "is not in it" if pd.isna(reached) else at
            raise ValueError(
                f"the run in {folder} is not finished: seed {seed} {at}; train it on, "
                "or give the parameters that it has"
            )
    return rows


def _found(rows: list[dict[str, Any]], folder: str | os.PathLike[str]) -> pd.DataFrame:
    """A row a checkpoint; raises FileNotFoundError if there was none."""
    if not rows:
        raise FileNotFoundError(f"{folder} has no checkpoints; train the run again")
    return pd.DataFrame(rows)


def _all_on_device(dataset: Any) -> Any:
    """Raises DatasetError if frames do not fit the device: a critic is fitted to them there."""
    if isinstance(dataset, frames.Recording):
        frame_stores.check_fits(dataset)
    return on_device(dataset)


def behavior(spec: Spec, train: windows.Store, updates: int, moments: Any) -> tuple[Any, Params]:
    """A policy that clones the log, for probabilities that were not recorded.

    Returns:
      (params, observation, key) -> probabilities [B, A], and its parameters.
    """
    cloned = dataclasses.replace(spec, method="bc", selector="policy")
    learner = cloned.learner(*spec.form(), moments)
    state, _ = learner.run(learner.init(0), train, updates)
    return jax.jit(decisions.probabilities(learner, "policy")), state.params


def report(
    spec: Spec,
    folder: str | os.PathLike[str],
    *,
    fqe_updates: int = 4_000,
    clone_updates: int = 4_000,
    refits: int = 0,
    resamples: int = 500,
) -> pd.DataFrame:
    """All estimates of a run's checkpoints on the episodes that it held out.

    The critic of fitted Q evaluation is fitted on what the run trained on, and asked about the
    held-out episodes; the doubly robust estimates correct it there. Probabilities of the log are
    the recorded ones or, where there are none, those of a policy that clones what was trained on.

    Args:
      spec: the run, with `holdout`; with `keep_checkpoints` every checkpoint is judged, else the
        last of each seed.
      folder: its directory.
      fqe_updates: gradient steps of each fitted Q evaluation.
      clone_updates: gradient steps of cloning, if probabilities were not recorded.
      refits: fitted Q evaluations of resampled episodes, at least 2, by whose deviation its
        interval is; 0: it has none.
      resamples: resamples of episodes for the other intervals.

    Returns:
      The run's rows at checkpoints, and more columns. `data_return`, `wis_return`, `dr_return` and
      `fqe_return` are discounted, each with its 95% interval (`_low`, `_high`); `data_total`,
      `wis_total` and `dr_total` are not. `value_return` is what the agent's own values promise.
      `effective` is the effective sample size in episodes of `episodes`; `differs` and `outside`
      see there in `ope`. `unseen` is the share of held-out decisions for which at most 1 in 50
      like states of the log had an action that the policy would take, and `probabilities` is
      "recorded" or "cloned". Of continuous actions `differs`, `unseen` and `value_return` are
      empty; so is what needs weights, with a warning that says why, unless the log has densities
      and the run acts by its policy: then `probabilities` is "none". Of recordings of frames
      `unseen` is empty.

    Raises:
      ValueError: if the run held nothing out or is not finished, or the checkpoints are of another
        run.
      FileNotFoundError: if there is no run, or it has no checkpoints.
    """
    if not spec.holdout:
        raise ValueError("estimates need held-out episodes: a run with holdout, such as 0.2")
    for name, value, least in (
        ("fqe_updates", fqe_updates, 1), ("clone_updates", clone_updates, 1),
        ("refits", refits, 0), ("resamples", resamples, 1),
    ):  # fmt: skip
        checks.within(name, value, least, integer=True)
    if refits == 1:
        raise ValueError("refits must be 0 or at least 2: one has no deviation, got 1")
    results = _finished(spec, folder)
    learner, train, dataset = build(spec)
    held = ope.held_out(spec)
    chances, of = held.probability, "recorded"
    continuous = learner.model.actions.continuous
    if continuous and (why := decisions.no_density(learner, spec.acts_by, chances is not None)):
        warnings.warn(
            f"no importance sampling and no doubly robust estimates: {why}; fitted Q evaluation "
            "stands alone",
            stacklevel=2,
        )
        chances, of = None, "none"
    store = _all_on_device(held)
    if isinstance(train, frame_stores.Host):
        train = _all_on_device(dataset)  # or it says how much would fit
    judge = _Judge(spec, learner, train, dataset, held, store, fqe_updates, refits, resamples)
    if chances is None and not continuous:
        moments = datasets.moments(dataset) if spec.settings.standardize else None
        clone, params = behavior(spec, train, clone_updates, moments)
        of_clone = ope.at_steps(clone, store, params, jax.random.key(0))
        chances = np.take_along_axis(of_clone, held.action[:, None], axis=1)[:, 0]
        chances, of = np.maximum(chances, _LEAST), "cloned"
    rows = [
        {"seed": seed, "update": update, "probabilities": of, **judge(seed, update, state, chances)}
        for seed, update, state in tqdm(
            saved_states(spec, folder, learner, dataset), unit="checkpoint", file=sys.stdout
        )
    ]
    found = _found(rows, folder)
    own = [name for name in results if name not in found]
    return results[[*own, "seed", "update"]].merge(found, on=["seed", "update"], how="inner")


@dataclasses.dataclass
class _Judge:
    """What the estimates of one run's checkpoints share."""

    spec: Spec
    learner: Any
    train: windows.Store
    dataset: datasets.Dataset
    held: datasets.Dataset
    store: windows.Store
    fqe_updates: int
    refits: int
    resamples: int

    def __post_init__(self) -> None:
        spec = self.spec
        moments = datasets.moments(self.dataset) if spec.settings.standardize else None
        self.model = spec.model(*spec.form(), moments)
        self.continuous = self.model.actions.continuous
        act = decisions.choices if self.continuous else decisions.probabilities
        self.act: Any = jax.jit(act(self.learner, spec.acts_by))
        self.density: Any = jax.jit(decisions.density(self.learner))
        discount = spec.settings.discount
        self.fit = jax.jit(
            functools.partial(ope.fit_q, self.model, discount=discount, updates=self.fqe_updates)
        )
        self.recorded = jax.jit(functools.partial(ope.recorded_values, self.model))
        self.valued = jax.jit(functools.partial(ope.state_values, self.model))
        self.outside = ope.outside(self.dataset, discount, self.learner.model.support.limit)

    def __call__(
        self, seed: int, update: int, state: Any, chances: np.ndarray | None
    ) -> Mapping[str, Any]:
        """The columns of one checkpoint."""
        held, discount = self.held, self.spec.settings.discount
        act_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), update))
        trained = ope.at_steps(self.act, self.train, state.params, act_key)
        policy = ope.at_steps(self.act, self.store, state.params, act_key)
        values = self._values(trained, policy, fit_key)
        which, lengths = ope.decided(held)
        q, v = next(values)
        reward, ratio = held.reward[which].astype(np.float64), np.full(len(which), np.nan)
        if chances is not None:
            ratio = (self._taken(policy, state.params) / chances)[which]
        log = ope.Log(
            lengths, reward, ratio, q[which], v[which], (v * held.discount)[held.is_last]
        )  # fmt: skip
        drawn = ope.resampled(len(lengths), max(self.resamples, self.refits), 0)
        counts = drawn[: self.resamples]
        row: dict[str, Any] = {"episodes": len(lengths)}
        for name, estimate in (
            ("data", ope.mean_return), ("wis", ope.importance), ("dr", ope.doubly_robust)
        ):  # fmt: skip
            columns = [f"{name}_{of}" for of in ("return", "low", "high", "total")]
            row |= dict.fromkeys(columns)
            if name == "data" or chances is not None:
                low, high = ope.interval(estimate(log, discount, counts))
                numbers = float(estimate(log, discount)[0]), low, high, float(estimate(log, 1.0)[0])
                row |= dict(zip(columns, numbers))
        first = v[held.is_first]
        row["fqe_return"] = float(first.mean())
        again = [float((w * v[held.is_first]).sum() / w.sum()) for w, (_, v) in zip(drawn, values)]
        if len(again) > 1:
            spread = 1.96 * float(np.std(again, ddof=1))
            row |= {
                "fqe_low": row["fqe_return"] - spread, "fqe_high": row["fqe_return"] + spread,
            }  # fmt: skip
        row["value_return"] = self._promised(state.params)
        row["effective"] = None if chances is None else ope.effective(log)
        row |= {"differs": None, "unseen": None, "outside": self.outside}
        if not self.continuous:
            row["differs"] = ope.differs(policy[which], held.action[which])
            if not isinstance(held, frames.Recording):  # Like pictures are not found by distance.
                row["unseen"] = self._unseen(policy)
        return row

    def _taken(self, policy: Any, params: Params) -> np.ndarray:
        """How probable what was done is under the policy, or its density. Shape [N]."""
        if self.continuous:
            return ope.at_actions(self.density, self.store, params)
        return np.take_along_axis(policy, self.held.action[:, None], axis=1)[:, 0]

    def _unseen(self, policy: np.ndarray) -> float:
        """The share of some held-out decisions that the log hardly ever took in like states."""
        which, _ = ope.decided(self.held)
        number = min(_LOOKED_AT, len(which))
        some = which[np.linspace(0, len(which) - 1, number).round().astype(int)]
        decides, _ = ope.decided(self.dataset)
        like = ope.seen(
            np.asarray(self.store.observe(jnp.asarray(some))), policy[some],
            np.asarray(self.train.observe(jnp.asarray(decides))), self.dataset.action[decides],
        )  # fmt: skip
        return float((like <= 1.0 / ope.NEIGHBOURS).mean())

    def _promised(self, params: Params) -> float | None:
        """What the agent's own values say of the first states; None: it learns none."""
        expected = decisions.expected(self.learner)
        if expected is None:
            return None
        first = self.store.observe(jnp.asarray(np.flatnonzero(self.held.is_first)))
        return float(jax.jit(expected)(params, first).value.mean())

    def _values(
        self, trained: Any, policy: Any, key: jax.Array
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Q of the recorded action and V at held-out steps, of the fit and of each refit."""
        _, lengths = ope.decided(self.dataset)
        trained, policy = jax.tree.map(jnp.asarray, (trained, policy))
        for number in range(1 + self.refits):
            weights = None
            if number:
                counts = ope.resampled(len(lengths), 1, number)[0]
                weights = jnp.asarray(np.repeat(counts, lengths), jnp.float32)
            fit_key = jax.random.fold_in(key, number)
            critic = self.fit(self.train, trained, fit_key, weights=weights)
            q = functools.partial(self.recorded, critic, self.store)
            v = functools.partial(self.valued, critic, self.store, policy)
            steps = len(self.held.action)
            yield ope.by_steps(q, steps), ope.by_steps(v, steps)
