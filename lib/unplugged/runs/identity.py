"""Who a run is: the programs that it runs, its data's checksum, and the versions beneath them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from unplugged.common import hashing
from unplugged.data import datasets, frame_stores, windows
from unplugged.runs import heldout
from unplugged.runs.spec import AnySpec, Spec

# A dataset's size is part of its checksum, and not of a program.
_STEPS, _TRANSITIONS = 1_000, 900


def programs(spec: AnySpec) -> dict[str, str]:
    """Hashes of the programs that a run consists of, by name; no data are needed.

    Returns:
      `initialisation` of a seed's state; `training`, the least number of updates that the run does
      at once, on a dataset of some fixed size; `evaluation`, see `evaluation.Evaluator`, and
      `greedy_evaluation`, if there is one; and
      `environment`, a hash of its source, where it is in Python.
    """
    benchmark = spec.of_benchmark
    shape, actions = spec.form()
    learner = spec.learner(shape, actions)
    state = jax.eval_shape(lambda: learner.init(0))
    size = (_STEPS, _TRANSITIONS, actions)
    if benchmark.of_frames:
        store: windows.Store = frame_stores.described(shape, *size)
    else:
        store = windows.described(shape, benchmark.packed, *size)
    data, seed = spec.described_data(store), jax.ShapeDtypeStruct((), np.uint32)
    greedy = {}
    if spec.greedy:
        most_probable = spec.evaluator(learner.model, greedy=True)
        greedy["greedy_evaluation"] = most_probable.identity(state.params)
    return {
        "initialisation": hashing.of_program(jax.jit(learner.init), seed),
        "training": hashing.of_program(learner.run, state, data, spec.updates_at_once),
        "evaluation": _evaluation(spec, learner, state),
        **greedy,
        **environment(spec),
    }


def _evaluation(spec: AnySpec, learner: Any, state: Any) -> str:
    """A hash of what evaluates: it plays, or looks at held-out episodes."""
    if spec.of_benchmark.evaluator is None:
        assert isinstance(spec, Spec)  # Others cannot be without an environment.
        return heldout.identity(spec, learner, state)
    return spec.evaluator(learner.model).identity(state.params)


def environment(spec: AnySpec) -> dict[str, str]:
    """The hash of an environment's source, if it is in Python; else nothing."""
    source = spec.of_benchmark.source
    return {"environment": source(spec.environment)} if source else {}


def source() -> str:
    """A hash of the library's code and of the versions that its programs are made by.

    While it is the same, so are the programs of the library's own methods.
    """
    code = hashing.of_modules(["unplugged.runs", "unplugged.online"])
    packages = ("jax", "dm-haiku", "optax", "mctx", "rlax", "gymnax", "distrax", "chex")
    return hashing.digest(code, json.dumps(hashing.versions(packages)))


def versions(spec: AnySpec) -> dict[str, str]:
    """Versions that the run's numbers depend on beside its programs."""
    return hashing.versions(spec.of_benchmark.packages)


def description(spec: AnySpec, dataset: datasets.Dataset | None) -> dict[str, Any]:
    """What a run's rows say of it, its settings, and `data`, the checksum of `dataset`."""
    ignored = ("dataset", "seeds", "updates", "vmap_seeds", "keep_checkpoints", "world")
    found = {
        **{name: x for name, x in dataclasses.asdict(spec).items() if name not in ignored},
        "settings": dataclasses.asdict(spec.settings),
        "data": None if dataset is None else datasets.checksum(dataset),
    }
    return json.loads(json.dumps(found))


def of(spec: AnySpec, dataset: datasets.Dataset | None) -> dict[str, Any]:
    """Who a run is; where it differs, its checkpoints are another's.

    Args:
      spec: the run.
      dataset: what it trains on.

    Returns:
      Its description, hashes of its programs by name (`program`, see `programs`), and the
      `versions` of packages that numbers depend on beside those.
    """
    return {**description(spec, dataset), "program": programs(spec), "versions": versions(spec)}
