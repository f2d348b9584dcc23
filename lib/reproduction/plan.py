"""From a profile's grids to named runs."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reproduction import profiles
from unplugged import online, runs
from unplugged.common import checks, files
from unplugged.data import importers
from unplugged.learning import methods
from unplugged.online import replay
from unplugged.recording import atari_dqn
from unplugged.runs import benchmarks, worlds


class Collection(NamedTuple):
    """A dataset to record.

    Attributes:
      benchmark: of which benchmark.
      environment: what is recorded.
      parameters: of the collecting notebook.
      notebook: which it is.
      file: its name within the folder of datasets; of single frames it is a folder itself.
    """

    benchmark: str
    environment: str
    parameters: dict[str, Any]
    notebook: str
    file: str


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
    specs: dict[tuple[str, str], runs.AnySpec]


def _collections(
    rows: Mapping[int, profiles.Recording], lines: list[str], seed: int
) -> dict[str, Collection]:
    """Datasets by name, of a profile's `datasets`; appends what is wrong to lines."""
    found: dict[str, Collection] = {}
    for i, row in rows.items():
        if any(line.startswith(f"datasets[{i}]") for line in lines):
            continue
        amount = {"episodes": row.episodes, "transitions": row.transitions}
        try:
            of = benchmarks.get(row.benchmark)
            if of.of_frames:
                for name, collection in _of_frames(row, seed):
                    if name in found:
                        raise ValueError(f"{name} stands there twice")
                    found[name] = collection
                continue
            for name, given in {**_OF_FRAMES, "agent": "settings of its agent"}.items():
                if getattr(row, name) is not None:
                    raise ValueError(f"{name} ({given}) is for recordings of frames; leave it out")
            for world, noise in itertools.product(row.environments, row.noise or [None]):
                name = benchmarks.dataset_name(row.benchmark, world, noise)
                of.check(world)
                assert of.recorder is not None  # or its datasets had no name
                of.recorder.check(world, noise=noise, **amount)
                if name in found:
                    raise ValueError(f"{name} stands there twice")
                parameters = {"benchmark": row.benchmark, "environment": world, **amount}
                parameters["noise"] = noise
                parameters = {key: x for key, x in parameters.items() if x is not None}
                found[name] = Collection(
                    row.benchmark, world, parameters, "10_collect", f"{name}.npz"
                )
        except ValueError as error:
            lines.append(f"datasets[{i}]: {error}")
    return found


_OF_FRAMES = {
    "source": "what is imported", "files_in": "where that lies", "run": "which of the five",
    "checkpoints": "how many there are", "share": "of the episodes",
}  # fmt: skip


def _of_frames(row: profiles.Recording, seed: int) -> Iterator[tuple[str, Collection]]:
    """Recordings of single frames by name: of an agent's training here, or imported.

    Raises:
      ValueError: if it is not clear which, or a name is wrong.
    """
    given = {name: getattr(row, name) for name in _OF_FRAMES}
    given = {name: value for name, value in given.items() if value is not None}
    if row.noise or row.episodes or bool(given) == bool(row.transitions):
        raise ValueError(
            f"{row.benchmark} is recorded by transitions, or imported by {', '.join(_OF_FRAMES)}: "
            "give the one or the other, and neither episodes nor noise"
        )
    if given:
        checks.one_of("source", given.get("source", "rl_unplugged"), importers.SOURCES)
        if row.agent is not None:
            raise ValueError("agent is for a recording that is made here; leave it out")
    recorded = {"transitions": row.transitions, **({"agent": row.agent} if row.agent else {})}
    atari_dqn.settings(row.agent or {})
    stem = f"run{row.run or 1}" if given else f"dqn{seed}"
    notebook = "13_import_atari" if given else "12_collect_atari"
    for game in row.environments:
        benchmarks.get(row.benchmark).check(game)
        parameters = {"game": game, **(given or recorded)}
        name = f"{row.benchmark}_{game}_{stem}"
        yield name, Collection(row.benchmark, game, parameters, notebook, name)


def _recorded_as(values: Mapping[str, Any], collections: Mapping[str, Collection]) -> str:
    """The name of the dataset that a run needs.

    Raises:
      ValueError: if nothing records it, or several recordings of frames could be meant.
    """
    benchmark, environment = values["benchmark"], values["environment"]
    if not benchmarks.get(benchmark).of_frames:
        return benchmarks.dataset_name(benchmark, environment, values.get("noise"))
    wanted = benchmark, environment
    names = [name for name, x in collections.items() if (x.benchmark, x.environment) == wanted]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are collected: name one by dataset")
    return names[0] if names else f"{benchmark}_{environment}"


# Kinds of experiments: the training notebook, and what its parameters make.
KINDS: dict[str, tuple[str, type[runs.AnySpec]]] = {
    "offline": ("20_train", runs.Spec),
    "online": ("21_train_online", online.OnlineSpec),
    "world": ("26_train_world", worlds.WorldSpec),
}


# Of an experiment's keys those that choose a dataset, and are no run's parameters.
_OF_DATA = ("noise", "recordings")


def _settings(kind: str) -> list[str]:
    """Names of the settings of an experiment's runs."""
    return [field.name for field in dataclasses.fields(KINDS[kind][1].kind_of_settings)]


def _one_run(
    values: Mapping[str, Any], kind: str, collections: Mapping[str, Collection]
) -> tuple[dict[str, Any], str | None]:
    """A run's parameters, settings among the values as overrides, and the dataset it needs."""
    if values.get("noise") is not None:
        checks.within("noise", values["noise"], 0.0, 1.0)
    settings = _settings(kind)
    overrides = dict(values.get("overrides", {}))
    parameters = {}
    for key, value in values.items():
        if key in settings:
            overrides[key] = value
        elif key not in (*_OF_DATA, "overrides"):
            parameters[key] = value
    parameters["overrides"] = overrides
    sources = values.get("sources", {})
    recorded = isinstance(sources, Mapping) and any(map(sources.get, replay.RECORDED))
    own = parameters.get("dataset")
    if isinstance(own, str) and own.startswith("~"):  # Snakemake looks for it under its name.
        parameters["dataset"] = str(files.expanded(own))
    if (kind == "online" and not recorded) or "dataset" in parameters:  # One of one's own.
        return parameters, None
    name = _recorded_as({"benchmark": "bsuite", "environment": "catch", **values}, collections)
    there = Path("results", profiles.RECORDINGS, f"{name}.npz")
    if checks.of_type("recordings", values.get("recordings", False), bool) and there.is_file():
        return {**parameters, "dataset": there.as_posix()}, None
    return parameters, name


def _refusal(make: type[runs.AnySpec], parameters: Mapping[str, Any]) -> Exception | None:
    """Why parameters make no run."""
    try:
        make(**parameters)
    except (ValueError, TypeError, AttributeError) as error:
        return error
    return None


def _without_one(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """One of the parameters, its value, and the others; environment and benchmark go together."""
    overrides = parameters.get("overrides", {})
    for key, value in overrides.items():
        rest = {k: x for k, x in overrides.items() if k != key}
        yield key, value, {**parameters, "overrides": rest}
    for key, value in parameters.items():
        gone = {"benchmark", "environment"} if key in ("benchmark", "environment") else {key}
        if key not in ("overrides", "dataset"):
            yield key, value, {k: x for k, x in parameters.items() if k not in gone}


def refusals(make: type[runs.AnySpec], parameters: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a run's parameters: what is refused is left out, one after another."""
    found: list[str] = []
    while (error := _refusal(make, parameters)) is not None:
        message = str(error)
        likely = sorted(_without_one(parameters), key=lambda one: one[0] not in message)
        for key, value, others in likely:
            if str(_refusal(make, others)) != message:
                plain = isinstance(error, ValueError)
                found.append(message if plain else f"{key} cannot be {value!r}")
                parameters = others
                break
        else:
            return [*found, message]
    return found


def _experiment(
    name: str,
    content: profiles.Experiment,
    lines: list[str],
    collections: Mapping[str, Collection],
) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Runs of an experiment: parameters, and the dataset that is needed; appends to lines."""
    found: dict[str, tuple[dict[str, Any], str | None]] = {}
    make = KINDS[content.kind][1]
    fields = [field.name for field in dataclasses.fields(make)]
    known = [*fields, *_settings(content.kind), *_OF_DATA]
    for place, part in [("common", content.common), *(("grid", grid) for grid in content.grid)]:
        for key in part:
            try:
                checks.one_of("run parameter", key, known)
            except ValueError as error:
                lines.append(f"experiments.{name}.{place}: {error}")
    if not isinstance(content.common.get("overrides", {}), Mapping):
        lines.append(f"experiments.{name}.common.overrides must hold keys and values")
        return found
    for grid in content.grids:
        for values in itertools.product(*grid.values()):
            own = dict(zip(grid, values))
            one = {key: x for key, x in {**content.common, **own}.items() if key in known}
            try:
                run = profiles.run_name(own)
                if run in found:
                    raise ValueError(f"the grid names the run {run} twice")
                parameters, dataset = _one_run(one, content.kind, collections)
            except (ValueError, TypeError, AttributeError) as error:
                lines.append(f"experiments.{name}: {error}")
                continue
            found[run] = parameters, dataset
    return found


def _listed(given: Any) -> list[Any]:
    """What may stand alone or in a list, in a list."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _references(profile: Mapping[str, Any], environments: set[str] | None) -> Iterator[str]:
    """What a profile's other sections name and is not there; None: not all environments known."""
    there = profile.get("experiments", {})
    there = there if isinstance(there, Mapping) else {}

    def known(kind: str, valid: Iterable[str]) -> Callable[[str], Any]:
        return lambda one: checks.one_of(kind, one, valid)

    check: dict[str, Callable[[str], Any]] = {
        "experiment": known("experiment", there),
        "experiments": known("experiment", there),
        "methods": methods.get,
    }
    if environments is not None:
        check["environments"] = known("environment", environments)
    for section in ("selection", "estimation", "evaluation", "timing", "videos"):
        content = profile.get(section)
        parts = [part for part in _listed(content) if isinstance(part, Mapping)]
        for part, (key, of) in itertools.product(parts, check.items()):
            for one in _listed(part.get(key, [])):
                try:
                    of(one)
                except ValueError as error:
                    yield f"{section}.{key}: {error}"


def _world(parameters: Mapping[str, Any], found: Mapping[str, Any], profile: str) -> str:
    """The folder of the world model that a run learns inside, named by the models' experiment."""
    if "/" in parameters["world"]:  # One of one's own.
        return parameters["world"]
    experiment = checks.one_of("experiment of world models", parameters["world"], found)
    alike = ("environment", "fraction", "data_seed")
    wanted = [parameters.get(name) for name in alike]
    names = [name for name, of in found[experiment].items() if [of.get(x) for x in alike] == wanted]
    if len(names) != 1:
        raise ValueError(
            f"profile {profile}: {experiment} has {len(names)} world models of "
            f"{parameters['environment']} for {parameters['method']}; name one by its folder, as "
            f"runs/{profile}/{experiment}/RUN"
        )
    return f"runs/{profile}/{experiment}/{names[0]}"


def needs(
    parameters: Mapping[str, Any], collections: Mapping[str, Collection] | None = None
) -> list[str]:
    """Files that a run learns from: its dataset, and of its world model the results.

    A folder that is collected stands for the file beside it that is written when it is whole.
    """
    dataset, world = parameters.get("dataset"), parameters.get("world")
    if dataset and Path(dataset).name in (collections or {}):
        dataset += ".returns.csv"
    return [*([dataset] if dataset else []), *([f"{world}/results.csv"] if world else [])]


def plan(profile: Mapping[str, Any]) -> Plan:
    """Expands a profile, and checks all of it before any work begins.

    An experiment has `common` parameters and a `grid` (or a list of grids) of values that
    are combined; `updates` is no part of a run's name, as more of them continue the run. Keys are
    fields of `runs.Spec`, of `settings.Settings`, `noise`, or `recordings`: true to learn from the
    datasets in results/recordings, where they are there, instead of those that the profile records.
    If its `kind` is "online" they are fields of `online.OnlineSpec`; if "world", of
    `worlds.WorldSpec`, whose `world` names the experiment that trains the world models.

    Raises:
      ProfileError: with a line for each thing that is wrong: what the schema finds, a name or value
        that a run refuses, a dataset that is not collected, two runs of an experiment with one
        name.
    """
    formed = profiles.check(profile)
    lines = list(formed.lines)
    section = formed.content.get("collection")
    seed = section.get("seed", 0) if isinstance(section, Mapping) else 0
    collections = _collections(formed.datasets, lines, seed)
    of_datasets = any(line.startswith("datasets") for line in lines)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    specs: dict[tuple[str, str], runs.AnySpec] = {}
    for experiment, content in formed.experiments.items():
        if content.kind not in KINDS:
            where = f"experiments.{experiment}: unknown kind of experiment {content.kind!r}"
            lines.append(f"{where}: {checks.nearest(content.kind, KINDS)}")
            continue
        found[experiment] = {}
        of_experiment = _experiment(experiment, content, lines, collections)
        for run, (parameters, dataset) in of_experiment.items():
            if dataset:
                if dataset not in collections and not of_datasets:
                    lines.append(f"experiments.{experiment}: {dataset} is needed but not collected")
                file = collections[dataset].file if dataset in collections else dataset
                folder = f"runs/{formed.content.get('profile')}/datasets"
                parameters = {**parameters, "dataset": f"{folder}/{file}"}
            found[experiment][run] = parameters
    for experiment, content in formed.experiments.items():
        make = KINDS[content.kind][1] if content.kind in KINDS else None
        for run, parameters in found.get(experiment, {}).items():
            try:
                if parameters.get("world"):
                    parameters["world"] = _world(parameters, found, formed.content["profile"])
                specs[experiment, run] = make(**parameters)
            except (ValueError, TypeError, AttributeError) as error:
                wrong = refusals(make, parameters) or [str(error)]
                lines += [f"experiments.{experiment}: {message}" for message in wrong]
    environments = None if lines else {run.environment for run in specs.values()}
    lines += _references(formed.content, environments)
    if lines:
        raise profiles.ProfileError(lines)
    notebooks = {e: KINDS[content.kind][0] for e, content in formed.experiments.items()}
    return Plan(collections, found, notebooks, specs)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Plan]:
    """A profile's content and its plan, from its file.

    Raises:
      ProfileError: if something is wrong, or a key stands twice; each line names the file.
    """
    try:
        content, lines = profiles.load(path)
        try:
            wanted = plan(content)
        except profiles.ProfileError as error:
            lines = lines + error.lines
        except RecursionError:
            lines.append("an alias stands within what it names")
        if lines:
            raise profiles.ProfileError(lines)
    except profiles.ProfileError as error:
        raise profiles.ProfileError(f"{path}: {line}" for line in error.lines) from None
    return content, wanted
