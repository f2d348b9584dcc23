"""A run: one dataset, one method, one setting, some seeds; from parameters to result rows."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from tqdm import tqdm

from unplugged.common import checks, files, hashing
from unplugged.data import datasets, windows
from unplugged.envs import environments, games
from unplugged.learning import methods
from unplugged.learning.learner import Learner, NonFiniteLossError
from unplugged.learning.settings import PRESETS, Settings
from unplugged.model import networks, transforms
from unplugged.planning import acting
from unplugged.runs import checkpoints, evaluation, provenance


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a run is. Its fields are the parameters of the training notebook.

    Attributes:
      benchmark: "bsuite", "gymnasium", "minatar" or "gymnax".
      environment: name within the benchmark.
      dataset: path of the dataset file.
      fraction: share of the dataset's episodes to train on. In (0, 1].
      data_seed: seed of the subsampling, and of the split.
      holdout: share of those episodes that is kept from training, for offline policy
        selection. In [0, 1).
      keep_checkpoints: whether every evaluation's checkpoint stays, or only the last.
      method: name in `methods.METHODS`.
      overrides: what differs from the benchmark's preset, see `settings.Settings`.
      seeds: training seeds.
      updates: updates a seed; asking for more later continues a finished run.
      eval_every: updates between evaluations, checkpoints among them. Divides `updates`.
      eval_episodes: episodes an evaluation.
      selector: action selector of the evaluation; None: the method's own.
      vmap_seeds: all seeds in one program (True), one after the other (False), or as the
        device likes it (None: True on accelerators).
    """

    dataset: str
    benchmark: str = "bsuite"
    environment: str = "catch"
    fraction: float = 1.0
    data_seed: int = 0
    holdout: float = 0.0
    keep_checkpoints: bool = False
    method: str = "rosmo"
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    updates: int = 8_000
    eval_every: int = 1_000
    eval_episodes: int = 20
    selector: str | None = None
    vmap_seeds: bool | None = None

    def __post_init__(self) -> None:
        checks.one_of("benchmark", self.benchmark, environments.BENCHMARKS)
        if self.benchmark == "bsuite":
            checks.one_of("bsuite environment", self.environment, environments.BSUITE)
        elif self.benchmark in games.BENCHMARKS:
            games.check(self.benchmark, self.environment)
        checks.within("fraction", self.fraction, 0.0, 1.0, open_low=True)
        checks.within("data_seed", self.data_seed, 0, integer=True)
        checks.within("holdout", self.holdout, 0.0, 1.0)
        checks.one_of("method", self.method, methods.METHODS)
        if self.selector is not None:
            checks.one_of("selector", self.selector, acting.SELECTORS)
            checks.one_of(f"selector of {self.method}", self.selector, self.ways_to_act())
        seeds = tuple(self.seeds)
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}")
        for seed in seeds:
            checks.within("seed", seed, 0, 2**32 - 1, integer=True)
        object.__setattr__(self, "seeds", seeds)
        object.__setattr__(self, "overrides", dict(self.overrides))
        checks.within("updates", self.updates, 1, integer=True)
        checks.within("eval_every", self.eval_every, 1, integer=True)
        checks.within("eval_episodes", self.eval_episodes, 1, integer=True)
        if self.updates % self.eval_every:
            raise ValueError(
                f"updates ({self.updates}) must be a multiple of eval_every ({self.eval_every})"
            )
        # Raises if an override is wrong, too.
        checks.one_of("network", self.settings.network, networks.NETWORKS)

    def ways_to_act(self) -> list[str]:
        """Selectors that use nothing but what the method learns."""
        method = methods.METHODS[self.method]
        if method.unrolls:
            return [name for name in acting.SELECTORS if name != "critic"]
        by_policy = ["policy", "greedy"] if method.learns_policy else []
        return [*by_policy, *(["critic"] if method.bootstraps else [])]

    def compared_ways(self) -> list[str]:
        """Of the ways to act those of MuZero Unplugged's Table 2, `critic` and `greedy`."""
        ways = self.ways_to_act()
        return [x for x in ("policy", "greedy", "value", "search", "critic") if x in ways]

    @property
    def settings(self) -> Settings:
        """The benchmark's preset with the overrides."""
        return PRESETS[self.benchmark].override(self.overrides)

    @property
    def acts_by(self) -> str:
        """The selector of the evaluation."""
        return self.selector or methods.METHODS[self.method].selector

    def description(self, dataset: datasets.Dataset | None) -> dict[str, Any]:
        """What a run's rows say of it, its settings, and `data`, the checksum of `dataset`."""
        ignored = ("dataset", "seeds", "updates", "vmap_seeds", "keep_checkpoints")
        found = {
            **{name: x for name, x in dataclasses.asdict(self).items() if name not in ignored},
            "settings": dataclasses.asdict(self.settings),
            "data": None if dataset is None else datasets.checksum(dataset),
        }
        return json.loads(json.dumps(found))

    def identity(self, dataset: datasets.Dataset | None) -> dict[str, Any]:
        """Who the run is; where it differs, its checkpoints are another's.

        Args:
          dataset: what it trains on.

        Returns:
          Its description, hashes of its programs by name (`program`, see `programs`), and the
          `versions` of packages that numbers depend on beside those.
        """
        return {**self.description(dataset), "program": programs(self), "versions": versions(self)}

    @property
    def updates_at_once(self) -> int:
        """A compiled call does a multiple of this many updates."""
        return 1

    def columns(self, state: Any) -> dict[str, Any]:
        """Columns of the results beside those that every run has."""
        del state
        return {}

    def learner(self, observation_shape: Sequence[int], num_actions: int) -> Any:
        """The run's learner, for an environment of this form."""
        model = model_of(self.settings, observation_shape, num_actions)
        return Learner(model, methods.get(self.method), self.settings)

    def build(self) -> tuple[Any, Any, datasets.Dataset | None]:
        """The learner, its data on the device, and the dataset; see `build`."""
        return build(self)

    def described_data(self, store: windows.Store) -> Any:
        """What `build` puts on the device, each dataset in it given as `store`."""
        return store


PARAMETERS = [field.name for field in dataclasses.fields(Spec)]


def divide(
    spec: Spec, dataset: datasets.Dataset
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """What a run trains on, and what it holds out (None: nothing), of a whole dataset."""
    dataset = datasets.subsample(dataset, spec.fraction, spec.data_seed)
    if not spec.holdout:
        return dataset, None
    return datasets.split(dataset, spec.holdout, spec.data_seed)


def dataset_of(spec: Spec, observation_shape: Sequence[int], num_actions: int) -> datasets.Dataset:
    """What a run trains on of its dataset.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment.
    """
    dataset = datasets.load(spec.dataset)
    recorded_in = dataset.metadata.get("environment")
    if recorded_in != spec.environment:
        raise datasets.DatasetError(
            f"{spec.dataset} was recorded in {recorded_in!r}, not in {spec.environment!r}"
        )
    datasets.check_fits(dataset, observation_shape, num_actions)
    return divide(spec, dataset)[0]


def model_of(settings: Settings, observation_shape: Sequence[int], num_actions: int) -> Any:
    """The settings' networks for an environment of this form."""
    return networks.NETWORKS[settings.network](
        observation_shape=observation_shape,
        num_actions=num_actions,
        num_bins=settings.num_bins,
        representation=settings.representation,
        dynamics=settings.dynamics,
        prediction=settings.prediction,
    )


def form(spec: Spec) -> tuple[tuple[int, ...], int]:
    """Shape of an observation of the run's environment, and the number of its actions."""
    if spec.benchmark in games.BENCHMARKS:
        game = games.make(spec.benchmark, spec.environment)
        return game.observation_shape, game.num_actions
    environment = environments.make(spec.benchmark, spec.environment, seed=0)
    try:
        return environments.form(environment)
    finally:
        environment.close()


# A dataset's size is part of its checksum, and not of a program.
_STEPS, _TRANSITIONS = 1_000, 900


def programs(spec: Spec) -> dict[str, str]:
    """Hashes of the programs that a run consists of, by name; no data are needed.

    Returns:
      `initialisation` of a seed's state; `training`, the least number of updates that the run does
      at once, on a dataset of some fixed size; `evaluation`, see `evaluation.Evaluator`.
    """
    observation_shape, num_actions = form(spec)
    learner = spec.learner(observation_shape, num_actions)
    state = jax.eval_shape(lambda: learner.init(0))
    packed = spec.benchmark in games.BENCHMARKS
    data = spec.described_data(windows.described(observation_shape, packed, _STEPS, _TRANSITIONS))
    play = evaluation.evaluator(
        spec.benchmark, spec.environment, learner.model, spec.acts_by, spec.settings,
        spec.eval_episodes,
    )  # fmt: skip
    seed = jax.ShapeDtypeStruct((), np.uint32)
    return {
        "initialisation": hashing.of_program(jax.jit(learner.init), seed),
        "training": hashing.of_program(learner.run, state, data, spec.updates_at_once),
        "evaluation": play.identity(state.params),
    }


def source() -> str:
    """A hash of the library's code; while it is the same, so are the programs of its methods."""
    return hashing.of_modules(["unplugged.runs", "unplugged.online"])


def versions(spec: Spec) -> dict[str, str]:
    """Versions that the run's numbers depend on beside its programs."""
    compiled = spec.benchmark in games.BENCHMARKS
    return hashing.versions(() if compiled else (spec.benchmark, "numpy"))


def build(spec: Spec) -> tuple[Learner, windows.Store, datasets.Dataset]:
    """Loads and checks the dataset, and makes the learner for it.

    Raises:
      DatasetError: if the dataset is damaged or does not fit the environment.
      ValueError: if a batch is larger than the windows there are.
    """
    observation_shape, num_actions = form(spec)
    dataset = dataset_of(spec, observation_shape, num_actions)
    settings = spec.settings
    if settings.batch_size > dataset.num_transitions:
        raise ValueError(
            f"batch_size {settings.batch_size} is larger than the {dataset.num_transitions} "
            f"windows of the dataset (fraction {spec.fraction}, holdout {spec.holdout}); lower it "
            "to at most that"
        )
    learner = spec.learner(observation_shape, num_actions)
    check_range(dataset, learner.model.support, settings)
    return learner, windows.store(dataset), dataset


def check_range(dataset: datasets.Dataset, support: transforms.Support, settings: Settings) -> None:
    """Warns if rewards or discounted returns are beyond what the bins of values represent."""
    totals, after = [], 0.0
    going_on = settings.discount * dataset.discount.astype(np.float64) * ~dataset.is_last
    for reward, discount in zip(dataset.reward[::-1].tolist(), going_on[::-1].tolist()):
        after = reward + discount * after
        totals.append(after)
    largest = max(np.abs(totals).max(), np.abs(dataset.reward).max())
    limit = float(transforms.unsquash(support.bins[-1]))
    if largest > limit:
        warnings.warn(
            f"rewards or discounted returns of {dataset.metadata.get('environment')} reach "
            f"{largest:.4g}, and {settings.num_bins} bins represent at most {limit:.4g}: what is "
            "beyond is clipped; raise num_bins",
            stacklevel=2,
        )


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


@dataclasses.dataclass
class _Trainer:
    """What the groups of seeds of one run share: the compiled update and the policy."""

    spec: Spec
    learner: Any  # a `Learner`, or what has its interface
    data: Any
    noise: float
    progress: tqdm
    note: Path  # where the progress is noted for others to read

    def __post_init__(self) -> None:
        self._begin = time.perf_counter()
        self._resumed = self.progress.n
        settings = self.spec.settings
        self.evaluate = evaluation.evaluator(
            self.spec.benchmark, self.spec.environment, self.learner.model, self.spec.acts_by,
            settings, self.spec.eval_episodes,
        )  # fmt: skip
        step, every = self.spec.updates_at_once, self.spec.eval_every
        self.chunk = max(n for n in range(step, max(1_001, step + 1), step) if every % n == 0)
        self._compiled: dict[int, Any] = {}

    def note_progress(self) -> None:
        """Writes updates done and to do, and this process's rate, for `experiments.progress`."""
        record = {
            "done": self.progress.n,
            "total": self.progress.total,
            "updates": self.progress.n - self._resumed,
            "seconds": time.perf_counter() - self._begin,
        }
        files.write_whole(self.note, json.dumps(record))

    def compiled(self, state: Any) -> Any:
        """(state, data) -> (state, losses) over `chunk` updates, compiled once a size."""
        seeds = state.updates.size
        if seeds not in self._compiled:
            run = self.learner.run_seeds if state.updates.ndim else self.learner.run
            self._compiled[seeds] = run.lower(state, self.data, self.chunk).compile()
        return self._compiled[seeds]

    def row(self, seed: int, update: int, seconds: float, state: Any, loss: float | None) -> dict:
        spec = self.spec
        returns = self.evaluate(state.params, seed, update)
        return {
            "run": self.note.parent.name,
            "benchmark": spec.benchmark,
            "environment": spec.environment,
            "noise": self.noise,
            "fraction": spec.fraction,
            "holdout": spec.holdout,
            "method": spec.method,
            "selector": spec.acts_by,
            "overrides": json.dumps(spec.overrides, sort_keys=True),
            "seed": seed,
            "update": update,
            "seconds": round(seconds, 3),
            "loss": loss,
            "mean_return": float(returns.mean()),
            "episodes": spec.eval_episodes,
            **spec.columns(state),
        }

    def train(self, seeds: Sequence[int], folder: Path) -> list[dict[str, Any]]:
        """Trains a group of seeds (one, or several in one program); returns its rows."""
        spec = self.spec
        state = checkpoints.stack([self.learner.init(seed) for seed in seeds])

        def evaluate(update: int, seconds: float, losses: Sequence[float | None]) -> list[dict]:
            rows = []
            for i, seed in enumerate(seeds):
                one = checkpoints.unstack(state, len(seeds), i)
                rows.append(self.row(seed, update, seconds, one, losses[i]))
            return rows

        own = checkpoints.of_group(folder, seeds, keep=spec.keep_checkpoints)
        try:
            saved = own.restore(state)
            if saved is None:
                rows = evaluate(0, 0.0, [None] * len(seeds))
                update, seconds = 0, 0.0
            else:
                state, rows = saved
                update, seconds = rows[-1]["update"], rows[-1]["seconds"]
            self._resumed += min(update, spec.updates) * len(seeds)
            self.progress.update(min(update, spec.updates) * len(seeds))
            means = []
            while update < spec.updates:
                run = self.compiled(state)
                begin = time.perf_counter()
                state, losses = run(state, self.data)
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
                    own.save(update, state, rows)
                    self.note_progress()
                    shown = " ".join(f"{row['mean_return']:.4g}" for row in rows[-len(seeds) :])
                    self.progress.set_description(f"seed {seeds}, return {shown}")
        finally:
            own.close()
        return [row for row in rows if row["update"] <= spec.updates]


_CHECKPOINTS = "checkpoints"  # within a run's folder
ADOPTED = "adopted.json"  # the same: results of some seeds that were trained elsewhere


def _known(spec: Spec) -> dict[str, Any]:
    """Defaults of what an identity holds."""
    defaults = checkpoints.defaults
    return {**defaults(type(spec)), "settings": defaults(type(spec.settings))}


def differs_in_seeds_only(record: Mapping[str, Any], spec: Spec) -> bool:
    """Whether a record of provenance is of this run, maybe of other seeds.

    What was not known yet is at its default; where the dataset lies and how seeds were put
    together changes no number.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(spec)))
    found = {**checkpoints.defaults(type(spec)), **record["parameters"]}
    ignored = ("dataset", "vmap_seeds", "seeds")
    settings = {**checkpoints.defaults(Settings), **record["settings"]}
    same = json.dumps(settings, sort_keys=True) == json.dumps(
        dataclasses.asdict(spec.settings), sort_keys=True
    )
    return same and all(
        found.get(name) == value for name, value in wanted.items() if name not in ignored
    )


def _adopted(
    spec: Spec, folder: Path, data: str | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of wanted seeds that were trained elsewhere, and their record of provenance.

    None if they are of other parameters or of data with another checksum.
    """
    path = folder / ADOPTED
    if not path.exists():
        return [], {}
    content = json.loads(path.read_text())
    if not differs_in_seeds_only(content["record"], spec):
        return [], {}
    if content["record"]["data_checksum"] != data:
        warnings.warn(f"{path} is of other data, and every seed is trained", stacklevel=2)
        return [], {}
    rows = pd.read_csv(io.StringIO(content["results"]))
    rows = rows[rows["seed"].isin(spec.seeds)]
    return rows.to_dict("records"), content["record"] if len(rows) else {}


def train(spec: Spec, folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Trains and evaluates every seed of a run, or goes on where it was cut off.

    Writes into `folder`, each file whole or not at all: `results.csv` (a row per seed and
    evaluation), `provenance.json`, `checkpoints/`, and `progress.json` as it goes. Seeds whose
    rows are in `adopted.json` (see `experiments.adopt`) are not trained again.

    Args:
      spec: the run.
      folder: its directory.

    Returns:
      The rows of results.csv.

    Raises:
      ValueError: if a parameter is wrong or does not fit the data (`DatasetError` among them).
      PermissionError: if the folder cannot be written to.
      NonFiniteLossError: if the loss or a parameter becomes NaN or infinite; the rows so far are
        then in `results.partial.csv`, and the last good checkpoint stays.
    """
    folder = files.writable_folder(folder)
    busy = f"another process is training in {folder}; waiting for it to end"
    with files.lock(folder / ".lock", patience=float("inf"), busy=busy):
        start = provenance.now()
        learner, data, dataset = spec.build()
        who, saved = spec.identity(dataset), folder / _CHECKPOINTS
        earlier = checkpoints.keep_or_set_aside(saved, who, _known(spec))
        together = spec.vmap_seeds
        if together is None:
            together = jax.default_backend() != "cpu"
        rows, adopted = _adopted(spec, folder, who["data"])
        elsewhere = {row["seed"] for row in rows}
        seeds = [seed for seed in spec.seeds if seed not in elsewhere]
        groups = checkpoints.groups(saved, seeds, together)
        total, done = (len(of) * spec.updates for of in (spec.seeds, elsewhere))
        with tqdm(
            total=total, initial=done, unit="update", mininterval=5.0, file=sys.stdout
        ) as progress:
            noise = 0.0 if dataset is None else dataset.metadata.get("noise", 0.0)
            note = folder / "progress.json"
            trainer = _Trainer(spec, learner, data, noise, progress, note)
            if not groups:
                trainer.note_progress()
            try:
                for seeds in groups:
                    rows += trainer.train(seeds, saved)
            except NonFiniteLossError as error:
                frame = pd.DataFrame(rows + error.rows)
                files.write_whole(folder / "results.partial.csv", frame.to_csv(index=False))
                raise
        frame = pd.DataFrame(rows).sort_values(["seed", "update"], ignore_index=True)
        record = {
            "parameters": dataclasses.asdict(spec),
            "settings": dataclasses.asdict(spec.settings),
            "data_checksum": who["data"],
            "program": who["program"],
            "source": source(),
            **({"earlier": earlier} if earlier else {}),
            "start": start,
            "end": provenance.now(),
            **provenance.describe(),
            **({"adopted": adopted} if adopted else {}),
        }
        files.write_whole(folder / "provenance.json", json.dumps(record, indent=1, sort_keys=True))
        files.write_whole(folder / "results.csv", frame.to_csv(index=False))
    return frame


def saved_states(
    spec: Spec, folder: str | os.PathLike[str], learner: Any, dataset: datasets.Dataset | None
) -> Iterator[tuple[int, int, Any]]:
    """Every checkpoint of a run: (seed, update, state), of groups of seeds each seed alone.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      learner: its learner, see `build`.
      dataset: what it trains on, see `build`.

    Raises:
      ValueError: if the checkpoints are of a run with other parameters or data.
    """
    saved = Path(folder) / _CHECKPOINTS
    checkpoints.check(saved, spec.description(dataset), _known(spec))
    yield from checkpoints.states(saved, spec.seeds, learner.init)


def restore(spec: Spec, folder: str | os.PathLike[str], seed: int) -> tuple[Any, Any]:
    """The learner of a run and the state of a seed at its last checkpoint.

    Args:
      spec: the run, as it was given to `train`.
      folder: its directory.
      seed: which of its seeds.

    Raises:
      FileNotFoundError: if the seed has no checkpoint there.
      ValueError: if the checkpoints there are of another run.
    """
    learner, _, dataset = spec.build()
    found = None
    for of_seed, _, state in saved_states(spec, folder, learner, dataset):
        if of_seed == seed:
            found = state
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint of seed {seed}")
    return learner, found


def by_selectors(
    spec: Spec,
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
    selectors = spec.compared_ways() if selectors is None else selectors
    specs = [dataclasses.replace(spec, selector=selector) for selector in selectors]
    learner, _, dataset = spec.build()
    params = {
        seed: state.params
        for seed, update, state in saved_states(spec, folder, learner, dataset)
        if update == spec.updates
    }
    if missing := sorted(set(spec.seeds) - set(params)):
        raise FileNotFoundError(f"{folder} has no checkpoint of seeds {missing} at {spec.updates}")
    rows = pd.read_csv(Path(folder) / "results.csv")
    rows = rows[rows["update"] == spec.updates].set_index("seed", drop=False)
    found = []
    for one in tqdm(specs, unit="selector", file=sys.stdout):
        play = evaluation.evaluator(
            spec.benchmark, spec.environment, learner.model, one.acts_by, spec.settings, episodes
        )
        for seed in spec.seeds:
            returns = play(params[seed], seed, spec.updates)
            found.append(
                {
                    **rows.loc[seed].to_dict(),
                    "selector": one.acts_by,
                    "mean_return": float(returns.mean()),
                    "episodes": episodes,
                }
            )
    return pd.DataFrame(found)
