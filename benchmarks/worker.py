"""Takes one measurement in a process of its own: `python worker.py CORES NAME JSON`.

Prints one JSON object a line, the rows of the CSV. Started by measure.py, which sets the
environment: cores and threads of XLA are fixed when a process starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import dm_env

BSUITE = ("cartpole", "catch")


def row(
    measure: str,
    method: str,
    setting: str,
    value: float | list[float],
    unit: str,
    note: str = "",
) -> None:
    """Prints one row; of several values the median, their range in the note."""
    values = value if isinstance(value, list) else [value]
    if len(values) > 1:
        spread = f"min {min(values):.4g}, max {max(values):.4g}"
        note = f"{spread}; {note}" if note else spread
    found = {
        "measure": measure,
        "method": method,
        "setting": setting,
        "value": statistics.median(values),
        "unit": unit,
        "repeats": len(values),
        "note": note,
    }
    print(json.dumps(found), flush=True)


def check(methods: list[str]) -> None:
    """Stops the run if the reference and the fused learner are not the same mathematics."""
    import flops
    import reference
    import workload

    for data in ("catch", "breakout"):
        for what, difference in reference.check_equal(methods, data=data).items():
            setting = f"data={data}, {what}"
            row("reference - fused", what.split()[0], setting, difference, "difference")
    for name in workload.REFERENCED:
        ratio = flops.check(name)
        row("XLA's FLOPs / ours", "", f"data={name}", ratio, "ratio", "forward pass")


def serve(side: str, method: str, data: str) -> None:
    """Answers lines "BEGIN SECONDS" on standard input with the updates done in that time.

    BEGIN is on the system's monotonic clock. Work goes on a little past the end, so that
    processes which measure together load the machine for as long as any of them counts.
    """
    import jax

    import reference
    import workload
    from unplugged import windows

    if side == "reference":
        chunk, loop = 5, reference.Loop(method, data)

        def step() -> None:
            loop.run(chunk)

    else:
        chunk, learner = 50 if method == "rosmo" else 20, workload.learner(method, data)
        chunk = chunk if data in BSUITE else 10
        store, state = windows.store(workload.dataset(data)), jax.jit(learner.init)(0)

        def step() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(learner.run(state, store, chunk))

    for _ in range(3):
        step()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        begin, seconds = map(float, line.split())
        time.sleep(max(0.0, begin - time.monotonic()))
        done, now, began = 0, time.monotonic(), time.monotonic()
        while now - began < seconds:
            step()
            done, now = done + chunk, time.monotonic()
        rate = done / (now - began)
        while time.monotonic() < begin + 1.1 * seconds:
            step()
        print(json.dumps({"rate": rate}), flush=True)


def share(data: str, seconds: float, repeats: int) -> None:
    """rosmo's model FLOPs per second beside the core's own matrix products, in turn."""
    import jax
    import jax.numpy as jnp

    import flops
    import workload
    from unplugged import timing, windows

    size, chunk = 1024, 100 if data in BSUITE else 20
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.float32)
    product = jax.jit(jnp.matmul)

    def multiply() -> float:
        """FLOP/s of the fastest of several products."""
        best = float("inf")
        end = time.perf_counter() + seconds / 4
        while time.perf_counter() < end:
            begin = time.process_time()
            product(a, b).block_until_ready()
            best = min(best, time.process_time() - begin)
        return 2.0 * size**3 / best

    learner = workload.learner("rosmo", data)
    store, state = windows.store(workload.dataset(data)), jax.jit(learner.init)(0)
    count = flops.rosmo_update(data, learner.settings)
    setting = f"data={data}"
    for part, number in count.items():
        row("model FLOPs", "rosmo", f"{setting}, part={part}", number, "FLOP/update")

    def step() -> int:
        nonlocal state
        state, _ = jax.block_until_ready(learner.run(state, store, chunk))
        return chunk

    multiply()
    updates, products = [], []
    for _ in range(repeats):
        updates += timing.rates(step, seconds=seconds, repeats=1, clock=time.process_time)
        products.append(multiply())
    shares = [count["total"] * u / max(products) for u in updates]
    row("updates", "rosmo", f"{setting}, cores=1", updates, "updates/s", "CPU time")
    note = f"{size} x {size}, float32, CPU time"
    row("matrix products", "", setting, products, "FLOP/s", note)
    note = "model FLOP/s over the fastest product's"
    row("share of matrix-product rate", "rosmo", setting, shares, "share", note)


def split(method: str, data: str, network: str, trained: int, length: int, repeats: int) -> None:
    """Where the time of an update goes, part by part, after some updates of training."""
    import jax
    import jax.numpy as jnp

    import parts
    import workload
    from unplugged import timing, windows

    learner = workload.learner(method, data, workload.settings(data, network))
    store = windows.store(workload.dataset(data))
    state, _ = learner.run(jax.jit(learner.init)(0), store, trained)
    setting = f"data={data}, network={network}, part="
    timed = functools.partial(timing.rates, seconds=0.0, repeats=repeats, clock=time.process_time)
    times = {}
    found, given = parts.of_update(learner, store, jax.tree.map(jnp.copy, state))
    for name, part in found.items():
        run = parts.loop(part, length, given)

        def step(run: Callable[[], Any] = run) -> int:
            run()
            return length

        times[name] = [1e6 / x for x in timed(step)]

    def whole() -> int:
        nonlocal state
        state, _ = jax.block_until_ready(learner.run(state, store, length))
        return length

    times["whole"] = [1e6 / x for x in timed(whole)]
    note = f"CPU time, after {trained} updates"
    for name, microseconds in times.items():
        row("time of part", method, setting + name, microseconds, "us/update", note)


def in_turn(
    learners: dict[str, Any], store: Any, *, trained: int, length: int, repeats: int
) -> dict[str, list[float]]:
    """CPU seconds of an update of each learner, one after another, again and again.

    Args:
      learners: by name.
      store: what they learn from.
      trained: updates of each before.
      length: updates that are timed at once.
      repeats: how often.
    """
    import jax

    states = {
        name: jax.block_until_ready(one.run(jax.jit(one.init)(0), store, trained)[0])
        for name, one in learners.items()
    }

    def step(name: str) -> int:
        states[name], _ = jax.block_until_ready(learners[name].run(states[name], store, length))
        return length

    for name in learners:
        step(name)
    return alternate({name: functools.partial(step, name) for name in learners}, repeats)


def alternate(steps: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of a unit of each step's work, one step after another, again and again."""
    from unplugged import timing

    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, found in times.items():
            rates = timing.rates(steps[name], seconds=0.0, repeats=1, clock=time.process_time)
            found += [1.0 / rate for rate in rates]
    return times


def networks(methods: list[str], data: str, trained: int, length: int, repeats: int) -> None:
    """Time of an update by each kind of network, in turn, after some updates of training."""
    import workload
    from unplugged import windows

    store = windows.store(workload.dataset(data))
    for method in methods:
        learners = {
            name: workload.learner(method, data, workload.settings(data, name))
            for name in workload.NETWORKS
        }
        times = in_turn(learners, store, trained=trained, length=length, repeats=repeats)
        setting, note = f"data={data}, network=", f"CPU time, after {trained} updates"
        first, *others = times
        for name, found in times.items():
            micros = [1e6 * one for one in found]
            row("time of update", method, setting + name, micros, "us/update", note)
        for name in others:
            ratios = [a / b for a, b in zip(times[first], times[name])]
            row("network", method, f"data={data}, {first} / {name}", ratios, "ratio", "in turn")


def continuous(methods: list[str], data: str, length: int, repeats: int) -> None:
    """Time of an update over continuous actions by each method, in turn, and beside the first."""
    import workload
    from unplugged import windows

    store = windows.store(workload.dataset(data))
    learners = {name: workload.learner(name, data) for name in methods}
    times = in_turn(learners, store, trained=1, length=length, repeats=repeats)
    of = workload.FORMS[data].settings
    drawn = {"rosmo_sampled": f"N = {of.num_samples}", "bc": "no look-ahead"}
    searched = f"K = {of.num_candidates}, {of.num_simulations} simulations"
    for name, found in times.items():
        note = f"CPU time, {drawn.get(name, searched)}, batch {of.batch_size}"
        row("time of update", name, f"data={data}", found, "s/update", note)
    for name in methods[1:]:
        ratios = [a / b for a, b in zip(times[methods[0]], times[name])]
        row("sampled", name, f"data={data}, {methods[0]} / {name}", ratios, "ratio", "in turn")


def growth(method: str, data: str, field: str, values: list[int], seconds: float) -> None:
    """Updates and windows per second as one setting grows."""
    import jax

    import workload
    from unplugged import timing, windows

    store = windows.store(workload.dataset(data))
    for value in values:
        settings = workload.FORMS[data].settings.override({field: value})
        learner = workload.learner(method, data, settings)
        state = jax.jit(learner.init)(0)
        work = settings.batch_size / 128 * (settings.num_simulations if method == "mzu" else 1)
        chunk = max(2, min(50, round((100 if data in BSUITE else 30) / work)))

        def step(learner: Any = learner, chunk: int = chunk) -> int:
            nonlocal state
            state, _ = jax.block_until_ready(learner.run(state, store, chunk))
            return chunk

        found = timing.rates(step, seconds=seconds, repeats=3)
        setting = f"data={data}, {field}={value}"
        row("growth", method, setting, found, "updates/s")
        trained = [x * settings.batch_size for x in found]
        row("growth", method, setting, trained, "windows/s")


def seeds(method: str, data: str, values: list[int], seconds: float) -> None:
    """Updates of all seeds per second: one program for all, or one seed after another."""
    import jax
    import jax.numpy as jnp

    import workload
    from unplugged import timing, windows

    learner, chunk = workload.learner(method, data), 20
    init = jax.jit(learner.init)
    store = windows.store(workload.dataset(data))
    for number in values:
        each = [init(seed) for seed in range(number)]

        def looped(each: list[Any] = each) -> int:
            for i, state in enumerate(each):
                each[i], _ = jax.block_until_ready(learner.run(state, store, chunk))
            return chunk * len(each)

        stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)

        def vmapped(number: int = number) -> int:
            nonlocal stacked
            stacked, _ = jax.block_until_ready(learner.run_seeds(stacked, store, chunk))
            return chunk * number

        for way, step in (("looped", looped), ("vmapped", vmapped)):
            found = timing.rates(step, seconds=seconds, repeats=3)
            setting = f"data={data}, seeds={number}, way={way}"
            row("growth", method, setting, found, "updates x seeds/s")


def sampling(data: str, seconds: float) -> None:
    """Windows drawn per second: on the device with replacement, by NumPy without."""
    import jax

    import parts
    import reference
    import workload
    from unplugged import timing, windows

    dataset, settings = workload.dataset(data), workload.FORMS[data].settings
    store, key = windows.store(dataset), jax.random.key(0)
    length = settings.unroll_steps + settings.td_steps + 1

    def part(near_zero: jax.Array, store: windows.Store) -> Any:
        again = jax.random.fold_in(key, near_zero.astype(int))
        return windows.sample(store, again, settings.batch_size, length)

    run, sampler = parts.loop(part, 1000, store), reference.Sampler(dataset, length)

    def fused() -> int:
        run()
        return 1000 * settings.batch_size

    def numpy() -> int:
        sampler(settings.batch_size)
        return settings.batch_size

    for way, step in (("fused", fused), ("numpy", numpy)):
        found = timing.rates(step, seconds=seconds, repeats=3)
        note = "with replacement" if way == "fused" else "without replacement"
        row("windows sampled", "", f"data={data}, way={way}", found, "windows/s", note)


def feeding(steps: int, batch: int, seconds: float) -> None:
    """Windows of frames that one core gathers per second from a file in the system's memory."""
    import tempfile
    from pathlib import Path

    import numpy as np

    import workload
    from unplugged import timing
    from unplugged.settings import ATARI

    length = ATARI.unroll_steps + ATARI.td_steps + 1
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        host = workload.recording(Path(folder), steps)
        size = batch * (length + host.steps.stack - 1)
        held = np.empty([size, host.frames.shape[1]], np.uint8)

        def gather() -> int:
            host.gather(rng.integers(steps, size=batch), length)
            return batch

        def copy() -> int:
            """As many bytes, in one piece, to where there is memory already."""
            first = rng.integers(steps - size)
            np.copyto(held, host.frames[first : first + size])
            return batch

        for way, step in (("gathered", gather), ("copied in one piece", copy)):
            for clock in (time.perf_counter, time.process_time):
                found = timing.rates(step, seconds=seconds, repeats=5, clock=clock)
                setting = f"frames={steps}, T={length}, way={way}, clock={clock.__name__}"
                row("windows fed", "", setting, found, "windows/s", f"batches of {batch}")


def images(channels: list[int], batch: int, repeats: int) -> None:
    """Time of a representation of Atari's frames: forward, and with its gradient.

    Args:
      channels: of the ResNet, a block each, see `settings.ATARI`.
      batch: observations at once.
      repeats: how often each is timed, in turn.
    """
    import jax
    import jax.numpy as jnp

    import parts
    from unplugged import atari
    from unplugged.model.actions import Discrete
    from unplugged.runs.spec import model_of
    from unplugged.settings import ATARI

    shape = (atari.SIZE, atari.SIZE, atari.STACK)
    settings = ATARI.override({"representation": tuple(channels), "dynamics": tuple(channels[:2])})
    model = model_of(settings, shape, Discrete(6))
    params = jax.jit(model.init)(jax.random.key(0))
    seen = jax.random.uniform(jax.random.key(1), (batch, *shape))

    def forward(near_zero: jax.Array, given: Any) -> jax.Array:
        params = jax.tree.map(lambda x: x + near_zero, given)
        return jnp.square(model.represent(params, seen)).mean()

    def gradient(near_zero: jax.Array, given: Any) -> Any:
        found = jax.grad(lambda given: forward(near_zero, given))(given)
        # All of it counts, and the first of what is returned feeds the next repeat.
        return sum(jnp.sum(x) for x in jax.tree.leaves(found))

    loops = {"forward": forward, "forward and backward": gradient}

    def stepper(part: parts.Part) -> Callable[[], int]:
        run = parts.loop(part, 2, params)

        def step() -> int:
            run()
            return 2 * batch

        return step

    times = alternate({name: stepper(part) for name, part in loops.items()}, repeats)
    setting = f"channels={channels[0]}, blocks={len(channels)}"
    note = f"CPU time, batches of {batch}"
    for name, found in times.items():
        millis = [1e3 * one for one in found]
        row("image", "", f"{setting}, part={name}", millis, "ms/frame", note)
    ratios = [b / a for a, b in zip(*times.values())]
    row("image", "", f"{setting}, gradient / forward", ratios, "ratio", "in turn")


def table(rows: int, columns: int, asked: int) -> None:
    """Seconds from a CSV to a dataset on the device, and to decide for rows of it.

    Args:
      rows: of the table.
      columns: of numbers in an observation.
      asked: rows that the saved policy decides for.
    """
    import tempfile
    from pathlib import Path

    import jax

    import workload
    from unplugged import datasets, logs, policy, runs, windows

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = workload.table(rows, columns)
        frame.to_csv(folder / "table.csv", index=False)
        begin = time.perf_counter()
        dataset = logs.from_table(folder / "table.csv", **workload.roles(columns))
        checked = time.perf_counter()
        jax.block_until_ready(windows.store(dataset))
        end = time.perf_counter()
        note = f"of which to the device {end - checked:.2f} s"
        setting = f"rows={rows}, columns={columns}"
        row("table", "", f"{setting}, part=read and checked", end - begin, "s", note)

        path = str(folder / "few.npz")
        datasets.save(logs.from_table(frame[:2_000], **workload.roles(columns)), path)
        spec = runs.Spec(
            benchmark="logged", environment="table", method="rosmo", dataset=path, holdout=0.25,
            updates=10, eval_every=10, seeds=[0],
        )  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):  # Its progress is no row.
            runs.train(spec, folder / "run")
        agent = policy.load(policy.save(folder / "run", folder / "policy"))
        agent.act(frame[:asked], key=0)
        found = []
        for key in range(5):
            begin = time.perf_counter()
            agent.act(frame[:asked], key=key)
            found.append(time.perf_counter() - begin)
        row("table", "rosmo", f"{setting}, part=decide for {asked}", found, "s", "policy selector")


class Counted(dm_env.Environment):
    """An environment that counts the steps of all instances."""

    steps = 0

    def __init__(self, environment: dm_env.Environment):
        self._environment = environment

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        return self._environment.reset()

    def step(self, action: int) -> dm_env.TimeStep:
        """One step, counted."""
        Counted.steps += 1
        return self._environment.step(action)

    def observation_spec(self) -> Any:
        """The wrapped environment's."""
        return self._environment.observation_spec()

    def action_spec(self) -> Any:
        """The wrapped environment's."""
        return self._environment.action_spec()


def evaluation(data: str, episodes: int, seconds: float) -> None:
    """Agent steps per second in real environments in lock-step, untrained networks."""
    import jax

    import workload
    from unplugged import environments, timing
    from unplugged.evaluation import evaluate, make_policy

    if data not in BSUITE:
        compiled_evaluation(data, episodes, seconds)
        return

    worlds = [Counted(environments.make("bsuite", data, seed=i)) for i in range(episodes)]
    model = workload.model(data)
    params = jax.jit(model.init)(jax.random.key(0))
    keys = itertools.accumulate(
        itertools.count(), lambda key, _: jax.random.fold_in(key, 0), initial=jax.random.key(1)
    )
    for selector in ("policy", "improved", "search"):
        policy = make_policy(model, selector, workload.BSUITE)

        def step(policy: Any = policy) -> int:
            before = Counted.steps
            evaluate(policy, params, worlds, next(keys))
            return Counted.steps - before

        found = timing.rates(step, seconds=seconds, repeats=3)
        setting = f"environment={data}, selector={selector}, episodes={episodes}"
        row("evaluation", "", setting, found, "agent steps/s")


def compiled_evaluation(game: str, episodes: int, seconds: float) -> None:
    """The same for a MinAtar game: all episodes to their ends in one compiled call."""
    import jax

    import workload
    from unplugged import games, timing
    from unplugged.evaluation import make_policy

    model, world = workload.model(game), games.make("minatar", game)
    params = jax.jit(model.init)(jax.random.key(0))
    keys = (jax.random.key(i) for i in itertools.count())
    for selector in ("policy", "improved", "search"):
        policy = make_policy(model, selector, workload.FORMS[game].settings)

        @jax.jit
        def play(key: Any, policy: Any = policy) -> Any:
            return games.play(world, functools.partial(policy, params), key, episodes)[1]

        def step(play: Any = play) -> int:
            return int(play(next(keys)).sum())

        found = timing.rates(step, seconds=seconds, repeats=3)
        setting = f"environment={game}, selector={selector}, episodes={episodes}"
        row("evaluation", "", setting, found, "agent steps/s", "one compiled call")


def online(
    game: str, fraction: float, simulations: int, round_updates: int, seconds: float, split: bool
) -> None:
    """Environment steps, searches and updates per second of mzu online.

    With `split`, also where the time goes. Acting for an update and drawing its batch, the
    reanalysis of it included, are timed alone; learning is the rest of the whole.
    """
    import jax

    from unplugged import online, timing

    spec = online.OnlineSpec(
        benchmark="minatar",
        environment=game,
        method="mzu",
        reanalyse_fraction=fraction,
        round_updates=round_updates,
        eval_every=round_updates,
        updates=round_updates,
        overrides={"num_simulations": simulations},
    )
    learner, data, _ = online.build(spec)
    state = learner.init(0)
    chunk = round_updates * max(1, 20 // round_updates)

    def step() -> int:
        nonlocal state
        state, _ = jax.block_until_ready(learner.run(state, data, chunk))
        return chunk

    before = int(state.actors.frames)
    updates = timing.rates(step, seconds=seconds, repeats=3)
    frames = (int(state.actors.frames) - before) / int(state.updates)
    setting = f"data={game}, simulations={simulations}, actors={learner.actors}"
    setting += f", reanalysed={fraction:g}"
    row("online", "mzu", setting, updates, "updates/s")
    row("online", "mzu", setting, [x * frames for x in updates], "environment steps/s")
    searches = spec.settings.batch_size * (learner.actors // round_updates)
    row("online", "mzu", setting, [x * searches for x in updates], "searches/s")
    if not split:
        return
    act = jax.jit(lambda state, key: learner.act(state, key, learner.first_hand))
    draw = jax.jit(learner.draw)
    keys = (jax.random.key(i) for i in itertools.count())

    def one_act() -> int:
        jax.block_until_ready(act(state, next(keys)))
        return round_updates

    def one_draw() -> int:
        jax.block_until_ready(draw(state, data, next(keys)))
        return 1

    acting, drawing = (
        statistics.median(1e3 / x for x in timing.rates(fn, seconds=seconds, repeats=3))
        for fn in (one_act, one_draw)
    )
    whole = 1e3 / statistics.median(updates)
    for part, value in (
        ("acting", acting), ("reanalysing", drawing), ("learning", whole - acting - drawing)
    ):  # fmt: skip
        row("time of part online", "mzu", f"{setting}, part={part}", value, "ms/update")


def costs(method: str, data: str) -> None:
    """Seconds to compile a training run, and the peak memory of its process."""
    import jax

    import workload
    from unplugged import windows

    learner = workload.learner(method, data)
    store, state = windows.store(workload.dataset(data)), jax.jit(learner.init)(0)
    begin = time.perf_counter()
    lowered = learner.run.lower(state, store, 100)
    traced = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state, store))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    setting = f"data={data}"
    note = f"of which tracing and lowering {traced - begin:.2f} s"
    row("compile", method, setting, end - begin, "s", note)
    size = sum(x.nbytes for x in jax.tree.leaves(store))
    note = f"of which the dataset on the device {size / 2**20:.0f} MiB"
    row("peak memory", method, setting, peak / 2**20, "MiB", note)


MEASUREMENTS = {
    fn.__name__: fn
    for fn in (
        check,
        serve,
        share,
        split,
        networks,
        continuous,
        growth,
        seeds,
        sampling,
        feeding,
        images,
        table,
        evaluation,
        online,
        costs,
    )
}

if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
    MEASUREMENTS[sys.argv[2]](**json.loads(sys.argv[3]))
