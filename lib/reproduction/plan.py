"""From a profile's grids to named runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unplugged import online, runs
from unplugged.common import checks
from unplugged.online import replay
from unplugged.runs import benchmarks, worlds


class Collection(NamedTuple):
    """A dataset to record.

    Attributes:
      benchmark: of which benchmark.
      parameters: of the collecting notebook.
    """

    benchmark: str
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
    specs: dict[tuple[str, str], runs.AnySpec]


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
    """Datasets by name, of a profile's `datasets`; environments and noise may be lists."""
    found = {}
    for row in rows:
        benchmark = row.get("benchmark", "bsuite")
        worlds, noises = row["environment"], row.get("noise", [None])
        worlds = [worlds] if isinstance(worlds, str) else worlds
        for world, noise in itertools.product(worlds, noises):
            amount = {k: v for k, v in row.items() if k in ("episodes", "transitions")}
            parameters = {"benchmark": benchmark, "environment": world, **amount}
            if noise is not None:
                parameters["noise"] = noise
            name = benchmarks.dataset_name(benchmark, world, noise)
            found[name] = Collection(benchmark, parameters)
    return found


# Kinds of experiments: the training notebook, and what its parameters make.
KINDS: dict[str, tuple[str, type[runs.AnySpec]]] = {
    "offline": ("20_train", runs.Spec),
    "online": ("21_train_online", online.OnlineSpec),
    "world": ("26_train_world", worlds.WorldSpec),
}


def _one_run(
    values: Mapping[str, Any], profile: str, collections: Mapping, kind: str
) -> dict[str, Any]:
    """A run's parameters: settings among the values become overrides, the dataset is named."""
    make = KINDS[kind][1]
    names = [field.name for field in dataclasses.fields(make)]
    settings = [field.name for field in dataclasses.fields(make.kind_of_settings)]
    overrides = dict(values.get("overrides", {}))
    parameters = {}
    for key, value in values.items():
        checks.one_of("run parameter", key, [*names, *settings, "noise"])
        if key in settings:
            overrides[key] = value
        elif key not in ("noise", "overrides"):
            parameters[key] = value
    sources = values.get("sources", {})
    recorded = isinstance(sources, Mapping) and any(map(sources.get, replay.RECORDED))
    if kind == "online" and not recorded:
        return {**parameters, "overrides": overrides}
    if "dataset" in parameters:  # One of one's own.
        return {**parameters, "overrides": overrides}
    benchmark = values.get("benchmark", "bsuite")
    dataset = benchmarks.dataset_name(benchmark, values["environment"], values.get("noise"))
    if dataset not in collections:
        raise ValueError(f"profile {profile}: {dataset} is needed but not collected")
    return {
        **parameters,
        "overrides": overrides,
        "dataset": f"runs/{profile}/datasets/{dataset}.npz",
    }


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


def needs(parameters: Mapping[str, Any]) -> list[str]:
    """Files that a run learns from: its dataset, and of its world model the results."""
    dataset, world = parameters.get("dataset"), parameters.get("world")
    return [*([dataset] if dataset else []), *([f"{world}/results.csv"] if world else [])]


def plan(profile: Mapping[str, Any]) -> Plan:
    """Expands a profile, and checks every parameter of every run before any work begins.

    An experiment has `common` parameters and a `grid` (or a list of grids) of values that
    are combined; `updates` is no part of a run's name, as more of them continue the run. Keys
    are fields of `runs.Spec`, of `settings.Settings`, or `noise`. If its `kind` is "online"
    they are fields of `online.OnlineSpec`; if "world", of `worlds.WorldSpec`, whose `world` names
    the experiment that trains the world models.

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
    for parameters in (p for of in found.values() for p in of.values() if p.get("world")):
        parameters["world"] = _world(parameters, found, name)
    specs = {(e, r): KINDS[kinds[e]][1](**p) for e, of in found.items() for r, p in of.items()}
    return Plan(collections, found, {e: KINDS[kind][0] for e, kind in kinds.items()}, specs)
