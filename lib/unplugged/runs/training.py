"""A run from parameters to result rows: training, evaluation, checkpoints, and going on."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from unplugged.common import checks, files
from unplugged.data import datasets
from unplugged.learning import contracts, feeding, methods, parallel
from unplugged.learning.learner import Learner, NonFiniteLossError
from unplugged.runs import (
    checkpoints,
    decisions,
    evaluation,
    heldout,
    identity,
    ope,
    provenance,
    results,
)
from unplugged.runs.spec import AnySpec, Spec


def check_params(params: Any, update: int) -> None:
    """Raises NonFiniteLossError naming the parameters that are NaN or infinite after an update."""
    bad = [
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if not np.isfinite(np.asarray(x)).all()
    ]
    if bad:
        raise NonFiniteLossError(update, ", ".join(bad), "parameters are")


def check_losses(losses: Mapping[str, jax.Array], first_update: int) -> None:
    """Raises NonFiniteLossError naming the first update whose loss is NaN or infinite.

    Losses have shape [updates] or [seeds, updates].
    """
    total = np.atleast_2d(np.asarray(losses["loss"]))
    bad = np.flatnonzero(~np.isfinite(total).all(axis=0))
    if bad.size:
        parts = {
            name: np.atleast_2d(np.asarray(x))[:, bad[0]].tolist() for name, x in losses.items()
        }
        raise NonFiniteLossError(first_update + int(bad[0]) + 1, str(parts))


def _measure(spec: AnySpec, learner: Any) -> Callable[[Any, int, int], dict[str, Any]]:
    """(state, seed, update) -> columns of an evaluation: returns, or what held-out episodes say."""
    if spec.of_benchmark.evaluator is None:
        assert isinstance(spec, Spec)  # Others cannot be without an environment.
        return heldout.Evaluation(spec, learner, ope.held_out(spec))
    play = spec.evaluator(learner.model)
    greedy = spec.evaluator(learner.model, greedy=True) if spec.greedy else None
    make = spec.of_benchmark.process
    exact = make and evaluation.Exact(
        make(spec.environment),
        decisions.probabilities(learner, spec.acts_by),
        spec.settings.discount,
    )

    def measure(state: Any, seed: int, update: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mean_return": float(play(state.params, seed, update).mean()),
            "episodes": spec.eval_episodes,
        }
        if greedy:
            found["greedy_return"] = float(greedy(state.params, seed, update).mean())
        if exact:
            found |= exact(state.params, seed, update)
        return found

    return measure


_Saved = tuple[int, Any, list[dict[str, Any]]]


def _of_first(saved: _Saved | None, like: Any) -> _Saved | None:
    """Update, state and rows that the first of several processes goes on from."""
    if jax.process_count() == 1:
        return saved
    known = parallel.of_first(saved and [saved[0], saved[2]])
    if known is None:
        return None
    raw = parallel.arrays_of_first(checkpoints.raw_keys(saved[1] if saved else like))
    return known[0], checkpoints.wrapped_keys(raw, like), known[1]


@dataclasses.dataclass
class _Trainer:
    """What the groups of seeds of one run share: the compiled update and the policy."""

    spec: AnySpec
    learner: Any  # a `Learner`, or what has its interface
    data: Any
    noise: float
    progress: tqdm
    note: Path  # where the progress is noted for others to read
    starting: Callable[[], None]  # called once, before the first update

    def __post_init__(self) -> None:
        self._begin = time.perf_counter()
        self._resumed = self.progress.n
        self.measure = _measure(self.spec, self.learner)
        self._placed = feeding.placed(self.learner, self.data)
        step, every = self.spec.updates_at_once, self.spec.eval_every
        self.chunk = max(n for n in range(step, max(1_001, step + 1), step) if every % n == 0)
        self._compiled: dict[int, Any] = {}

    def note_progress(self) -> None:
        """Writes updates done and to do, and this process's rate, for `reproduction.progress`."""
        record = {
            "done": self.progress.n,
            "total": self.progress.total,
            "updates": self.progress.n - self._resumed,
            "seconds": time.perf_counter() - self._begin,
        }
        files.write_whole(self.note, json.dumps(record))

    def compiled(self, state: Any) -> Any:
        """state -> (state, losses) over `chunk` updates, compiled once a size."""
        seeds = state.updates.size
        if not self._compiled:
            self.starting()
        if seeds not in self._compiled:
            data = self._placed
            run = feeding.compiled(self.learner, state, data, self.chunk)
            self._compiled[seeds] = lambda state: run(state, data)
        return self._compiled[seeds]

    def row(self, seed: int, update: int, seconds: float, state: Any, loss: float | None) -> dict:
        spec = self.spec
        return {
            "run": self.note.parent.name,
            "benchmark": spec.benchmark,
            "environment": spec.environment,
            "noise": self.noise,
            **spec.labels(),
            "method": spec.method,
            "selector": spec.acts_by,
            "overrides": json.dumps(spec.overrides, sort_keys=True),
            "seed": seed,
            "update": update,
            "seconds": round(seconds, 3),
            "loss": loss,
            **self.measure(state, seed, update),
            **spec.columns(state, self.learner, self.data),
        }

    def train(self, group: checkpoints.Group, folder: Path) -> list[dict[str, Any]]:
        """Trains a group of seeds (one, or several in one program); returns its rows."""
        spec, seeds = self.spec, group.seeds
        own, state = checkpoints.take(folder, group, self.learner.init, keep=spec.keep_checkpoints)

        def evaluate(update: int, seconds: float, losses: Sequence[float | None]) -> list[dict]:
            rows, here = [], parallel.local(state)
            for i, seed in enumerate(seeds):
                one = checkpoints.unstack(here, len(seeds), i)
                rows.append(self.row(seed, update, seconds, one, losses[i]))
            return rows

        try:
            saved = _of_first(own.last(state), state)
            if saved is None:
                rows = evaluate(0, 0.0, [None] * len(seeds))
                update, seconds = 0, 0.0
            else:
                update, state, rows = saved
                seconds = rows[-1]["seconds"]
            self._resumed += min(update, spec.updates) * len(seeds)
            self.progress.update(min(update, spec.updates) * len(seeds))
            means = []
            state = feeding.placed(self.learner, state)
            while update < spec.updates:
                run = self.compiled(state)
                begin = time.perf_counter()
                state, losses = run(state)
                jax.block_until_ready(state.updates)
                seconds += time.perf_counter() - begin
                try:
                    check_losses(losses, update)
                    check_params(state.params, update + self.chunk)
                except NonFiniteLossError as error:
                    error.rows = rows
                    raise
                update += self.chunk
                means.append(np.atleast_2d(losses["loss"]).mean(axis=1))
                self.progress.update(self.chunk * len(seeds))
                if update % spec.eval_every == 0:
                    rows += evaluate(update, seconds, np.mean(means, axis=0).tolist())
                    means = []
                    if jax.process_index() == 0:
                        own.save(update, parallel.local(state), rows)
                    self.note_progress()
                    what = "return" if rows[-1]["mean_return"] is not None else "holdout_loss"
                    name = "mean_return" if what == "return" else what
                    shown = " ".join(f"{row[name]:.4g}" for row in rows[-len(seeds) :])
                    self.progress.set_description(f"seed {list(seeds)}, {what} {shown}")
        finally:
            own.close()
        return [row for row in rows if row["update"] <= spec.updates]


_TRIED = 16  # states on which functions of one's own are tried


def _try_out(spec: AnySpec, model: Any, data: Any) -> None:
    """Raises ValueError if an operator or selector of one's own gives no policy on some states."""

    def observe() -> jax.Array:
        stores = list(data.values()) if isinstance(data, Mapping) else [data]
        if stores:
            return stores[0].observe(np.arange(min(_TRIED, len(stores[0].action))))
        # Nothing is recorded; observations of compiled games are 0 and 1.
        shape, _ = spec.form()
        return jax.random.bernoulli(jax.random.key(0), 0.5, (_TRIED, *shape)).astype(np.float32)

    contracts.try_out(model, methods.get(spec.method), spec.acts_by, spec.settings, observe)


def train(
    spec: AnySpec, folder: str | os.PathLike[str], *, devices: int | str | None = None
) -> pd.DataFrame:
    """Trains and evaluates every seed of a run, or goes on where it was cut off.

    Writes into `folder`, each file whole or not at all: `results.csv` (a row per seed and
    evaluation), `provenance.json`, `checkpoints/`, and `progress.json` as it goes. Seeds whose
    rows are in `adopted.json` (see `reproduction.adoption`) are not trained again. What the folder
    has stays: rows of this run's other seeds and of more updates, and under another name the
    checkpoints and results of another run; what is set aside, and why, is printed. A damaged
    checkpoint is set aside too, and the one before it goes on.

    Over several devices or hosts (see `parallel`) the run is the same, and its checkpoints go on
    over any other number. Every host does all of this; the first has the folder, and all must find
    the dataset.

    Args:
      spec: the run.
      folder: its directory.
      devices: over how many devices a batch is divided, see `parallel.mesh`.

    Returns:
      The rows of results.csv; on other hosts than the first, of the updates done there.

    Raises:
      ValueError: if a parameter is wrong or does not fit the data (`DatasetError` among them), an
        operator or selector of one's own gives no policy, rows to be kept were changed, or devices
        cannot be had or cannot divide a batch.
      PermissionError: if the folder cannot be written to.
      NonFiniteLossError: if the loss or a parameter becomes NaN or infinite; the rows so far are
        then in `results.partial.csv`, and the last good checkpoint stays.
    """
    parallel.connect()
    with parallel.own_folder(folder) as own:
        return _train(spec, files.writable_folder(own), devices)


def _divided(spec: AnySpec, learner: Any, devices: int | str | None) -> Any:
    """The learner over several devices, if that is wanted.

    The environment's wish is for the runs that can be divided; others train on one device.
    """
    whole = not isinstance(learner, Learner) or spec.imagines
    if whole and devices is None and not parallel.several():
        return learner
    mesh = parallel.mesh(spec.settings.batch_size, devices)
    if mesh is None:
        return learner
    if whole:
        raise ValueError(
            f"{mesh.size} devices are wanted, and runs of {spec.method} online or in a world model "
            "train on one, in one process"
        )
    return dataclasses.replace(learner, mesh=mesh)


def _train(spec: AnySpec, folder: Path, devices: int | str | None) -> pd.DataFrame:
    """See `train`."""
    busy = f"another process is training in {folder}; waiting for it to end"
    with files.lock(folder / ".lock", patience=float("inf"), busy=busy):
        files.sweep(folder)
        start = provenance.now()
        learner, data, dataset = spec.build()
        learner = _divided(spec, learner, devices)
        if not spec.imagines:  # Those see what the world model makes of observations.
            _try_out(spec, learner.model, data)
        who, saved = identity.of(spec, dataset), folder / results.CHECKPOINTS
        there = results.there(spec, folder, who)
        trained_here = saved.exists()
        earlier = checkpoints.keep_or_set_aside(saved, who, results.known(spec))
        checkpoints.tidy(saved)
        together = spec.vmap_seeds
        if together is None:
            # Vmapped, the gradients of convolutions on large images are none that cuDNN knows.
            together = jax.default_backend() != "cpu" and not spec.of_benchmark.of_frames
        rows, adopted = results.adopted(spec, folder, who["data"])
        elsewhere = {row["seed"] for row in rows}
        seeds = [seed for seed in spec.seeds if seed not in elsewhere]
        groups = checkpoints.groups(saved, seeds, together)
        groups = [
            checkpoints.Group(tuple(of), begun and tuple(begun))
            for of, begun in parallel.of_first(groups)
        ]
        total, done = (len(of) * spec.updates for of in (spec.seeds, elsewhere))
        with tqdm(
            total=total, initial=done, unit="update", mininterval=5.0, file=sys.stdout
        ) as progress:
            noise = 0.0 if dataset is None else dataset.metadata.get("noise", 0.0)
            note = folder / "progress.json"

            def starting() -> None:
                entry = {"start": start, "seeds": list(spec.seeds), "updates_done": progress.n}
                provenance.add_start(saved / results.STARTS, entry)

            trainer = _Trainer(spec, learner, data, noise, progress, note, starting)
            if not groups:
                trainer.note_progress()
            try:
                for group in groups:
                    rows += trainer.train(group, saved)
            except NonFiniteLossError as error:
                frame = pd.DataFrame(rows + error.rows)
                files.write_whole(folder / "results.partial.csv", frame.to_csv(index=False))
                raise
        if there.rows and not trained_here:  # They were taken from committed results.
            adopted = adopted or there.record
        frame = pd.DataFrame(rows + there.rows).sort_values(["seed", "update"], ignore_index=True)
        more = {"earlier": earlier, "adopted": adopted}
        said = {name: content for name, content in more.items() if content}
        results.write(spec, folder, who, frame, there, start=start, **said)
    return frame


def saved_states(
    spec: AnySpec, folder: str | os.PathLike[str], learner: Any, dataset: datasets.Dataset | None
) -> Iterator[tuple[int, int, Any]]:
    """Checkpoints of a run: (seed, update, state), of groups of seeds each seed alone.

    Every one if the run keeps them (`keep_checkpoints`), else the last of each seed.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      learner: its learner, see `build`.
      dataset: what it trains on, see `build`.

    Raises:
      ValueError: if the checkpoints are of a run with other parameters or data.
      checkpoints.DamagedError: if one is not what was saved; it says what to delete.
    """
    saved = files.expanded(folder) / results.CHECKPOINTS
    checkpoints.check(
        saved,
        identity.description(spec, dataset),
        results.known(spec),
        lambda: identity.programs(spec),
    )
    yield from checkpoints.states(saved, spec.seeds, learner.init, every=spec.keep_checkpoints)


def restore(spec: AnySpec, folder: str | os.PathLike[str], seed: int) -> tuple[Any, Any]:
    """The learner of a run and the state of a seed at its last checkpoint.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      seed: which of its seeds.

    Raises:
      FileNotFoundError: if the seed has no checkpoint there.
      ValueError: if the checkpoints there are of another run.
    """
    learner, dataset = spec.prepare()
    return learner, last_state(spec, folder, seed, learner, dataset)


def last_state(
    spec: AnySpec,
    folder: str | os.PathLike[str],
    seed: int,
    learner: Any,
    dataset: datasets.Dataset | None,
) -> Any:
    """The state of a seed at its last checkpoint; raises as `restore`, arguments as there.

    Args:
      learner: the run's, see `AnySpec.prepare`.
      dataset: likewise.
    """
    found = None
    for of_seed, _, state in saved_states(spec, folder, learner, dataset):
        if of_seed == seed:
            found = state
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint of seed {seed}")
    return found


def by_selectors(
    spec: AnySpec,
    folder: str | os.PathLike[str],
    *,
    selectors: Sequence[str] | None = None,
    episodes: int = 100,
) -> pd.DataFrame:
    """Plays with the last checkpoint of each seed of a finished run, once with each selector.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      selectors: ways to act, see `acting.SELECTORS`; None: `Spec.compared_ways`.
      episodes: episodes of each selector and seed.

    Returns:
      The last rows of its results, a row a seed and selector.

    Raises:
      ValueError: if a selector is unknown or does not fit the method, or the checkpoints are of
        another run.
      FileNotFoundError: if a seed has no checkpoint at the last update.
    """
    checks.within("episodes", episodes, 1, integer=True)
    selectors = checks.of_type("selectors", selectors, Sequence[str] | None)
    selectors = spec.compared_ways() if selectors is None else selectors
    specs = [dataclasses.replace(spec, selector=selector) for selector in selectors]
    learner, dataset = spec.prepare()
    params = {
        seed: state.params
        for seed, update, state in saved_states(spec, folder, learner, dataset)
        if update == spec.updates
    }
    if missing := sorted(set(spec.seeds) - set(params)):
        raise FileNotFoundError(f"{folder} has no checkpoint of seeds {missing} at {spec.updates}")
    rows = pd.read_csv(files.expanded(folder) / "results.csv")
    rows = rows[rows["update"] == spec.updates].set_index("seed", drop=False)
    found = []
    for one in tqdm(specs, unit="selector", file=sys.stdout):
        play = spec.evaluator(learner.model, selector=one.acts_by, episodes=episodes)
        for seed in spec.seeds:
            returns = play(params[seed], seed, spec.updates)
            trained = rows.loc[seed].to_dict()
            if "greedy_return" in trained and one.acts_by != spec.acts_by:
                trained["greedy_return"] = None  # It was of the run's own way to act.
            found.append(
                {
                    **trained,
                    "selector": one.acts_by,
                    "mean_return": float(returns.mean()),
                    "episodes": episodes,
                }
            )
    return pd.DataFrame(found)
