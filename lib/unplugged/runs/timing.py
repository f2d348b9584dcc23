"""How long training takes: updates of several runs beside each other, nothing else running."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import jax
import pandas as pd
from tqdm import tqdm

from unplugged.common import checks
from unplugged.data import datasets
from unplugged.learning import feeding
from unplugged.runs.spec import AnySpec, Spec, on_device


def rates(
    step: Callable[[], int],
    *,
    seconds: float,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Calls `step`, which does and returns some units of work, for a while, several times.

    Args:
      step: one call; returns when its work is done.
      seconds: least time of a repeat, which has at least one call.
      repeats: how often to time; one call before the first is not timed.
      clock: `time.process_time` where another process may take the core for a while.

    Returns:
      Units per second of each repeat.
    """
    step()
    found = []
    for _ in range(repeats):
        done, elapsed, begin = 0, 0.0, clock()
        while not done or elapsed < seconds:
            done += step()
            elapsed = clock() - begin
        found.append(done / elapsed)
    return found


def _built(spec: AnySpec, stores: MutableMapping[str, Any]) -> tuple[Any, Any]:
    """A run's learner, and its data on the device, once for all runs on one dataset."""
    if type(spec) is not Spec:  # Others' data are more than a dataset.
        learner, data, _ = spec.build()
        return learner, data
    learner, dataset = spec.prepare()
    which = datasets.checksum(dataset)
    if which not in stores:
        stores[which] = on_device(dataset)
    return learner, stores[which]


def stepper(
    spec: AnySpec,
    updates: int,
    *,
    after: int = 0,
    stores: MutableMapping[str, Any] | None = None,
) -> Callable[[], int]:
    """A function whose every call trains the run's first seed for some updates more.

    Args:
      spec: the run.
      updates: updates a call, rounded up to a multiple of what the run does at once.
      after: updates that are done before it returns, likewise.
      stores: data on the device by the dataset's checksum, to be used and added to; None: none.

    Returns:
      The function, compiled; it returns the updates that it did.
    """
    learner, data = _built(spec, {} if stores is None else stores)
    state = learner.init(spec.seeds[0])
    number = -(-updates // spec.updates_at_once) * spec.updates_at_once
    run = feeding.compiled(learner, state, data, number)

    def step() -> int:
        nonlocal state
        state, losses = run(state, data)
        jax.block_until_ready(losses)
        return number

    for _ in range(0, after, number):
        step()
    return step


def measure(
    specs: Sequence[AnySpec],
    *,
    updates: int = 10,
    seconds: float = 3.0,
    repeats: int = 5,
    after: int = 0,
) -> pd.DataFrame:
    """Training time of an update of each run, a seed alone, in turn within each repeat.

    In turn, so that a machine that gets slower does so for all. Compilation, evaluation and
    checkpoints are left out. To be compared, the times need the machine to themselves.

    Args:
      specs: the runs; their datasets must fit into memory together.
      updates: updates of one compiled call.
      seconds: least time of a measurement.
      repeats: measurements of each run.
      after: updates of training before; a search in a trained model goes deeper.

    Returns:
      A row a run and repeat: `benchmark`, `environment`, `method`, `overrides`, `after`, `repeat`
      and `seconds`, of one update.
    """
    checks.within("updates", updates, 1, integer=True)
    checks.within("seconds", seconds, 0.0)
    checks.within("repeats", repeats, 1, integer=True)
    checks.within("after", after, 0, integer=True)
    stores: dict[str, Any] = {}
    steps = [
        stepper(spec, updates, after=after, stores=stores)
        for spec in tqdm(specs, unit="compiled", file=sys.stdout)
    ]
    rows = []
    for repeat in tqdm(range(repeats), unit="repeat", file=sys.stdout):
        for spec, step in zip(specs, steps):
            [rate] = rates(step, seconds=seconds, repeats=1)
            rows.append(
                {
                    "benchmark": spec.benchmark,
                    "environment": spec.environment,
                    "method": spec.method,
                    "overrides": json.dumps(spec.overrides, sort_keys=True),
                    "after": after,
                    "repeat": repeat,
                    "seconds": float(f"{1 / rate:.6g}"),
                }
            )
    return pd.DataFrame(rows)
