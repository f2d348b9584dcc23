"""From a profile's grids to named runs, and how far those runs are."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from unplugged.common import checks, files, hashing
from unplugged.learning import methods
from unplugged.learning.settings import Settings
from unplugged.online import replay
from unplugged.online import spec as online
from unplugged.runs import checkpoints
from unplugged.runs import training as runs

_SETTINGS = [field.name for field in dataclasses.fields(Settings)]


class Collection(NamedTuple):
    """A dataset to record.

    Attributes:
      notebook: the collecting notebook's name.
      parameters: its parameters.
    """

    notebook: str
    parameters: dict[str, Any]


class Plan(NamedTuple):
    """What a profile asks for.

    Attributes:
      collections: dataset name -> how it is recorded.
      runs: experiment -> run name -> parameters of the training notebook.
      notebooks: experiment -> the training notebook's name.
      specs: (experiment, run name) -> the run.
    """

    collections: dict[str, Collection]
    runs: dict[str, dict[str, dict[str, Any]]]
    notebooks: dict[str, str]
    specs: dict[tuple[str, str], runs.Spec]


def label(key: str, value: Any) -> str:
    """A grid value's part of a run's name, such as "mzu", "noise0.1" or "dynamics-32x64x32"."""
    if key in ("environment", "method"):
        return str(value)
    if isinstance(value, dict):
        return f"{key}-{'-'.join(f'{name}{weight:g}' for name, weight in value.items())}"
    if isinstance(value, (list, tuple)):
        return f"{key}-{'x'.join(map(str, value))}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{key}{value:g}"
    return f"{key}-{str(value).lower()}"


def _collections(rows: Sequence[Mapping[str, Any]]) -> dict[str, Collection]:
    """Datasets by name, of a profile's `datasets`."""
    found = {}
    for row in rows:
        if row.get("benchmark", "bsuite") == "bsuite":
            for noise in row["noise"]:
                parameters = {**row, "noise": noise}
                name = _dataset("bsuite", row["environment"], noise)
                found[name] = Collection("10_collect_bsuite", parameters)
        else:
            for game in row["environment"]:
                parameters = {"environment": game, "transitions": row["transitions"]}
                name = _dataset(row["benchmark"], game, 0.0)
                found[name] = Collection("11_collect_minatar", parameters)
    return found


def _dataset(benchmark: str, environment: str, noise: float) -> str:
    """Name of a dataset."""
    return f"{benchmark}_{environment}" + (f"_noise{noise:g}" if benchmark == "bsuite" else "")


# Kinds of experiments: the training notebook, and what its parameters make.
KINDS: dict[str, tuple[str, type[runs.Spec]]] = {
    "offline": ("20_train", runs.Spec),
    "online": ("21_train_online", online.OnlineSpec),
}


def _one_run(
    values: Mapping[str, Any], profile: str, collections: Mapping, kind: str
) -> dict[str, Any]:
    """A run's parameters: settings among the values become overrides, the dataset is named."""
    names = [field.name for field in dataclasses.fields(KINDS[kind][1])]
    overrides = dict(values.get("overrides", {}))
    parameters = {}
    for key, value in values.items():
        checks.one_of("run parameter", key, [*names, *_SETTINGS, "noise"])
        if key in _SETTINGS:
            overrides[key] = value
        elif key not in ("noise", "overrides"):
            parameters[key] = value
    sources = values.get("sources", {})
    recorded = isinstance(sources, Mapping) and any(map(sources.get, replay.RECORDED))
    if kind == "online" and not recorded:
        return {**parameters, "overrides": overrides}
    benchmark = values.get("benchmark", "bsuite")
    dataset = _dataset(benchmark, values["environment"], values.get("noise", 0.0))
    if dataset not in collections:
        raise ValueError(f"profile {profile}: {dataset} is needed but not collected")
    return {
        **parameters,
        "overrides": overrides,
        "dataset": f"runs/{profile}/datasets/{dataset}.npz",
    }


def plan(profile: Mapping[str, Any]) -> Plan:
    """Expands a profile, and checks every parameter of every run before any work begins.

    An experiment has `common` parameters and a `grid` (or a list of grids) of values that
    are combined; `updates` is no part of a run's name, as more of them continue the run. Keys
    are fields of `runs.Spec`, of `settings.Settings`, or `noise`. If its `kind` is "online"
    they are fields of `online.OnlineSpec`.

    Raises:
      ValueError: if a name or value is wrong, a dataset is not collected, or two runs of an
        experiment have one name.
    """
    name = profile["profile"]
    collections = _collections(profile["datasets"])
    found: dict[str, dict[str, dict[str, Any]]] = {}
    kinds: dict[str, str] = {}
    for experiment, content in profile["experiments"].items():
        grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"]]
        found[experiment] = {}
        kinds[experiment] = content.get("kind", "offline")
        checks.one_of("kind of experiment", kinds[experiment], KINDS)
        for grid in grids:
            for values in itertools.product(*grid.values()):
                named = [(k, v) for k, v in zip(grid, values) if k != "updates"]
                run = "_".join(label(key, value) for key, value in named)
                if run in found[experiment]:
                    raise ValueError(f"profile {name}: {experiment} names the run {run} twice")
                one = {**content["common"], **dict(zip(grid, values))}
                found[experiment][run] = _one_run(one, name, collections, kinds[experiment])
    specs = {(e, r): KINDS[kinds[e]][1](**p) for e, of in found.items() for r, p in of.items()}
    return Plan(collections, found, {e: KINDS[kind][0] for e, kind in kinds.items()}, specs)


_ADOPTED = ("provenance.json", "progress.json", "results.csv")  # the results come last


def is_adopted(folder: Path) -> bool:
    """Whether a run's results were taken from committed ones: they have no checkpoints beside."""
    return (folder / "results.csv").exists() and not (folder / "checkpoints").exists()


def lacks_checkpoints(folder: Path) -> bool:
    """Whether the results of a run, or of some of its seeds, were taken from committed ones."""
    return is_adopted(folder) or (folder / runs.ADOPTED).exists()


def _set_aside(target: Path, record: Mapping[str, Any], results: str) -> None:
    """Keeps rows of some of a run's seeds for `runs.train`, which adds them to those it trains."""
    content = {"record": record, "results": results}
    files.write_whole(target / runs.ADOPTED, json.dumps(content))


def _seeds_of(record: Mapping[str, Any], spec: runs.Spec) -> set[int]:
    """The seeds wanted that a record of provenance is of; none if it is of another run."""
    if not runs.differs_in_seeds_only(record, spec):
        return set()
    return set(record["parameters"]["seeds"]).intersection(spec.seeds)


_LABELS = (
    "dataset", "data_seed", "fraction", "holdout", "keep_checkpoints", "seeds", "updates",
    "eval_every", "vmap_seeds",
)  # fmt: skip


class Programs:
    """Programs of runs as today's code has them, each lowered once, which takes seconds.

    Args:
      cache: file that remembers them for as long as the code is the same.
    """

    def __init__(self, cache: Path):
        self._cache = cache
        self._code = [runs.source(), version("jax"), version("jaxlib")]
        saved = json.loads(cache.read_text()) if cache.exists() else {}
        self._known = saved["programs"] if saved.get("code") == self._code else {}

    def of(self, spec: runs.Spec) -> dict[str, str]:
        """Hashes by name, see `runs.programs`."""
        fields = {k: v for k, v in dataclasses.asdict(spec).items() if k not in _LABELS}
        parts = [fields, dataclasses.asdict(spec.settings), spec.described_data(None)]
        key = hashing.digest(type(spec).__name__, json.dumps(parts))
        if key not in self._known:
            self._known[key] = runs.programs(spec)
            content = {"code": self._code, "programs": self._known}
            files.write_whole(self._cache, json.dumps(content))
        return self._known[key]

    def other(self, record: Mapping[str, Any], spec: runs.Spec) -> list[str]:
        """What is not today's of what a run was: its programs by name, and versions."""
        packages = record.get("packages", {})
        found = [n for n, of in runs.versions(spec).items() if packages.get(n) != of]
        if record.get("source") == runs.source():
            return found
        then = record.get("program", {})
        return found + [name for name, of in self.of(spec).items() if then.get(name) != of]


def _anyway() -> bool:
    return os.environ.get(checkpoints.ADOPT) == "1"


def let_go(wanted: Plan, folder: Path, programs: Programs) -> list[str]:
    """Deletes results of runs that are others by now, so that they are made again; returns them.

    A trained run is another if its programs or versions are; its checkpoints are left to
    `runs.train`. An adopted one is also if its parameters are; if nothing but the seeds changed,
    those of seeds that are still wanted are kept.

    Args:
      wanted: the profile's plan.
      folder: runs/<profile>.
      programs: what those of today are.
    """
    found = []
    for (experiment, run), spec in tqdm(
        wanted.specs.items(), desc="programs", unit="run", disable=None, delay=5.0, leave=False
    ):
        target = folder / experiment / run

        def of(record: Mapping[str, Any], spec: runs.Spec = spec) -> set[int]:
            other = not _anyway() and programs.other(record, spec)
            return set() if other else _seeds_of(record, spec)

        part = target / runs.ADOPTED
        if part.exists() and not of(json.loads(part.read_text())["record"]):
            part.unlink()
        if not (target / "results.csv").exists():
            continue
        record = json.loads((target / "provenance.json").read_text())
        if is_adopted(target):
            seeds = of(record)
            if seeds and seeds == set(record["parameters"]["seeds"]) == set(spec.seeds):
                continue
            if seeds:
                _set_aside(target, record, (target / "results.csv").read_text())
        elif _anyway() or not programs.other(record, spec):
            continue
        # Cut off, it is still adopted, or what stays says nothing of it.
        for name in ("progress.json", "results.csv", "provenance.json"):
            (target / name).unlink(missing_ok=True)
        found.append(f"{experiment}/{run}")
    return found


class Adopted(NamedTuple):
    """What became of an experiment's committed runs.

    Attributes:
      taken: how many were taken.
      other: run -> which of its programs and versions are not today's.
    """

    taken: int
    other: dict[str, list[str]]


def adopt(
    wanted: Plan,
    results: Path,
    folder: Path,
    programs: Programs,
) -> dict[str, Adopted]:
    """Takes committed results for runs that are not there, as if they had been trained here.

    Then only what is new in a profile is trained, of a run with other seeds those that are new. A
    run of other programs than today's is not taken, unless the environment says so
    (`checkpoints.ADOPT`). An adopted run has its rows and provenance, but no checkpoints: what
    plays or scores those needs the run trained, and asked for more updates it is trained from the
    beginning (`let_go`). That a profile records its data otherwise than before is noticed only
    where seeds are added.

    Args:
      wanted: the profile's plan.
      results: results/<profile>, with <experiment>.csv and <experiment>.provenance.json.
      folder: runs/<profile>.
      programs: what those of today are.

    Raises:
      ValueError: if a committed CSV does not hold the rows that its provenance tells of.
    """
    found: dict[str, Adopted] = {}
    for experiment, names in wanted.runs.items():
        table, note = results / f"{experiment}.csv", results / f"{experiment}.provenance.json"
        if not (table.exists() and note.exists()):
            continue
        records = json.loads(note.read_text())
        header, *lines = table.read_text().splitlines(keepends=True)
        cells = pd.read_csv(table, keep_default_na=False)
        taken, others = 0, {}
        for run in tqdm(names, desc=experiment, unit="run", disable=None, delay=5.0, leave=False):
            spec, target = wanted.specs[experiment, run], folder / experiment / run
            record = records.get(run)
            begun = lacks_checkpoints(target) or (target / "checkpoints").exists()
            seeds = _seeds_of(record, spec) if record and not begun else set()
            if not seeds:
                continue
            if other := programs.other(record, spec):
                others[run] = other
                if not _anyway():
                    continue
            else:
                record = {**record, "source": runs.source()}
            where = (cells["run"] == run) & cells["seed"].isin(seeds)
            expected = len(seeds) * (spec.updates // spec.eval_every + 1)
            if where.sum() != expected:
                raise ValueError(
                    f"{table} has {where.sum()} rows of {run}, its provenance tells of {expected}"
                )
            rows = "".join(line for line, chosen in zip(lines, where) if chosen)
            taken += 1
            if not seeds == set(record["parameters"]["seeds"]) == set(spec.seeds):
                _set_aside(target, record, header + rows)
                continue
            done = len(spec.seeds) * spec.updates
            progress = {"done": done, "total": done, "updates": 0, "seconds": 0.0}
            parts = (
                json.dumps(record, indent=1, sort_keys=True), json.dumps(progress), header + rows
            )  # fmt: skip
            for name, content in zip(_ADOPTED, parts):
                files.write_whole(target / name, content)
                # No newer than what they were taken from, or that would be made again.
                os.utime(target / name, (table.stat().st_mtime,) * 2)
        found[experiment] = Adopted(taken, others)
    return found


class Progress(NamedTuple):
    """How far an experiment is: runs and updates done and wanted, and core-hours to go."""

    experiment: str
    runs_done: int
    runs: int
    updates_done: int
    updates: int
    core_hours_left: float


def _work(spec: runs.Spec) -> float:
    """A guess of an update's cost, to scale a rate from one setting to another."""
    settings = spec.settings
    layers = settings.dynamics[-1:] + settings.dynamics  # The state goes in, and comes out.
    size = sum(a * b for a, b in itertools.pairwise(layers)) * settings.batch_size
    if settings.network != "mlp":  # 3 x 3 taps at each of some pixels.
        size *= 9 * 25
    searches = methods.METHODS[spec.method].bootstrap == "operator"
    return size * (settings.num_simulations + 2 if searches else 1)


def _like(spec: runs.Spec) -> list[Any]:
    """What a run's rate is looked up by, the most alike first."""
    overrides = json.dumps(spec.overrides, sort_keys=True)
    where = (type(spec).__name__, spec.benchmark)
    return [(*where, spec.method, overrides), (*where, spec.method), where, None]


def progress(wanted: Plan, folder: Path) -> list[Progress]:
    """How far the runs in `folder` (runs/<profile>) are, one record an experiment.

    What is left is estimated from the rates of runs with the same benchmark, method and
    overrides; else, scaled by a guess, of the same benchmark and method, of the same
    benchmark, or of all; nan before any rate is known.
    """
    notes: dict[tuple[str, str], dict[str, float]] = {}
    known: dict[Any, list[tuple[float, float]]] = {}  # (seconds, updates times work) by key
    for (experiment, run), spec in wanted.specs.items():
        note = folder / experiment / run / "progress.json"
        if not note.exists():
            continue
        notes[experiment, run] = found = json.loads(note.read_text())
        if found["updates"]:
            for key in _like(spec):
                known.setdefault(key, []).append((found["seconds"], found["updates"] * _work(spec)))
    rates = {key: sum(s for s, _ in of) / sum(w for _, w in of) for key, of in known.items()}
    records = []
    for experiment, names in wanted.runs.items():
        finished = done = total = 0
        seconds = 0.0
        for run in names:
            spec = wanted.specs[experiment, run]
            here = len(spec.seeds) * spec.updates
            at = min(here, int(notes.get((experiment, run), {"done": 0})["done"]))
            rate = next((rates[key] for key in _like(spec) if key in rates), float("nan"))
            finished, done, total = finished + (at == here), done + at, total + here
            if at < here:
                seconds += (here - at) * _work(spec) * rate
        records.append(Progress(experiment, finished, len(names), done, total, seconds / 3600))
    return records


def describe(records: list[Progress], cores: int) -> str:
    """One line: what is done, what is left, when it will be ready."""
    done, total = (sum(getattr(r, f) for r in records) for f in ("runs_done", "runs"))
    updates = sum(r.updates_done for r in records), sum(r.updates for r in records)
    hours = sum(r.core_hours_left for r in records) / cores
    text = f"{done} of {total} runs, {updates[0] / max(1, updates[1]):.0%} of the updates done"
    if done == total:
        return text
    if hours != hours:
        return f"{text}; no rate is known yet"
    ready = datetime.datetime.now() + datetime.timedelta(hours=hours)
    return f"{text}; about {hours:.1f} h left on {cores} cores, ready {ready:%a %H:%M}"


def table(records: list[Progress], cores: int) -> str:
    """A line an experiment and one for the whole."""
    width = max(len(r.experiment) for r in records)
    lines = [
        f"{r.experiment:{width}}  {r.runs_done:4d} of {r.runs:4d} runs  "
        f"{r.updates_done / max(1, r.updates):4.0%} of the updates  "
        f"{r.core_hours_left:6.1f} core-hours left"
        for r in records
    ]
    return "\n".join([*lines, describe(records, cores)])
