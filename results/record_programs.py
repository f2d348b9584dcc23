"""Programs of committed runs, as lowered from the revision that each was trained at.

Provenance from 0.2.0 on has them; of earlier runs they were recorded once, by

    python results/record_programs.py results/cpu

in a clone with its history. A run of a tree with uncommitted changes ("+") has none.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HASHING = ROOT / "lib" / "unplugged" / "common" / "hashing.py"


def hashes(records: list[dict[str, Any]]) -> list[dict[str, str] | str]:
    """Hashes of each run's programs, by the library that is first in the path."""
    import jax
    import numpy as np

    from unplugged import datasets, environments, evaluation, methods, runs

    spec = importlib.util.spec_from_file_location("hashing_of_today", HASHING)
    hashing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hashing)
    known: dict[str, dict[str, str]] = {}

    def one(record: dict[str, Any]) -> dict[str, str]:
        parameters = record["parameters"]
        if "round_updates" in parameters:
            from unplugged import online

            run = online.OnlineSpec(**parameters)
        else:
            run = runs.Spec(**parameters)
        benchmark = getattr(run, "benchmark", "bsuite")
        settings = json.loads(json.dumps(dataclasses.asdict(run.settings)))
        then = record["settings"]
        if differing := [n for n in settings.keys() & then.keys() if settings[n] != then[n]]:
            raise ValueError(f"{differing} differ from those of the record")
        compiled = benchmark in ("minatar", "gymnax")
        if compiled:
            from unplugged import games

            try:
                game = games.make(benchmark, run.environment)
            except TypeError:
                game = games.make(run.environment)
            shape, actions = game.observation_shape, game.num_actions
        else:
            world = environments.make(benchmark, run.environment, seed=0)
            shape = tuple(world.observation_spec().shape)
            actions = int(world.action_spec().num_values)
        acts = getattr(run, "acts_by", None) or methods.get(run.method).selector
        labels = ("dataset", "seeds", "updates", "eval_every", "data_seed", "fraction", "holdout",
                  "keep_checkpoints", "vmap_seeds")  # fmt: skip
        key = json.dumps([{k: v for k, v in parameters.items() if k not in labels}, settings])
        if key in known:
            return known[key]

        length, episodes = 51, 400
        step = np.arange(length * episodes) % length
        width = (-(-int(np.prod(shape)) // 8),) if compiled else shape
        metadata = {"benchmark": benchmark, "environment": run.environment, "noise": 0.0,
                    "num_actions": actions}  # fmt: skip
        fake = datasets.Dataset(
            observation=np.zeros([len(step), *width], np.uint8 if compiled else np.float32),
            action=np.zeros(len(step), np.int32),
            reward=np.zeros(len(step), np.float32),
            discount=np.where(step >= length - 2, 0.0, 1.0).astype(np.float32),
            is_first=step == 0,
            is_last=step == length - 1,
            metadata={**metadata, **({"packed_shape": list(shape)} if compiled else {})},
        )
        datasets.load = lambda path: fake
        learner, data, *_ = run.build() if hasattr(run, "build") else runs.build(run)

        def described(store: Any) -> Any:
            names = getattr(store, "_fields", None) or [f.name for f in dataclasses.fields(store)]
            parts = {}
            for name in names:
                x = getattr(store, name)
                if hasattr(x, "shape"):
                    rows = 900 if name == "start" else 1_000
                    x = jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
                parts[name] = x
            return type(store)(**parts)

        if isinstance(data, dict):
            data = {name: described(store) for name, store in data.items()}
        else:
            data = described(data)
        state = jax.eval_shape(lambda: learner.init(0))
        policy = evaluation.make_policy(learner.model, acts, run.settings)
        if compiled:

            def play(params: Any, key: Any) -> Any:
                return games.play(
                    game, lambda seen, key: policy(params, seen, key), key, run.eval_episodes
                )[0]

            plays = hashing.of_program(jax.jit(play), state.params, jax.random.key(0))
        else:
            seen = jax.ShapeDtypeStruct((run.eval_episodes, *shape), np.float32)
            plays = hashing.of_program(policy, state.params, seen, jax.random.key(0))
        known[key] = {
            "initialisation": hashing.of_program(
                jax.jit(learner.init), jax.ShapeDtypeStruct((), np.uint32)
            ),
            "training": hashing.of_program(
                learner.run, state, data, getattr(run, "updates_at_once", 1)
            ),
            "evaluation": plays,
            **({} if compiled else {"environment": hashing.of_environment(world)}),
        }
        return known[key]

    found: list[dict[str, str] | str] = []
    for record in records:
        try:
            found.append(one(record))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def of_revision(revision: str, records: list[dict[str, Any]]) -> list[dict[str, str] | str]:
    """`hashes` in a process of its own, with the library as it was at a revision."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "lib"], capture_output=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(archive.stdout)).extractall(folder, filter="data")
        done = subprocess.run(
            [sys.executable, __file__, "--here"],
            input=json.dumps(records),
            env={**os.environ, "PYTHONPATH": f"{folder}/lib"},
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        return [f"exit status {done.returncode}"] * len(records)
    return json.loads(done.stdout.splitlines()[-1])


def main(folder: Path) -> None:
    """Adds `program` to every record of a profile's provenance that lacks it."""
    of_revisions: dict[str, list[tuple[Path, str]]] = {}
    contents = {}
    for path in sorted(folder.glob("*.provenance.json")):
        contents[path] = json.loads(path.read_text())
        for run, record in contents[path].items():
            revision = record.get("git_revision") or "+"
            if "data_checksum" in record and "program" not in record and "+" not in revision:
                of_revisions.setdefault(revision, []).append((path, run))
    for number, (revision, wanted) in enumerate(of_revisions.items()):
        records = [contents[path][run] for path, run in wanted]
        for (path, run), found in zip(wanted, of_revision(revision, records)):
            print(f"{number + 1}/{len(of_revisions)} {revision[:9]} {path.stem} {run}: {found}",
                  flush=True)  # fmt: skip
            if isinstance(found, dict):
                contents[path][run]["program"] = found
        for path in {path for path, _ in wanted}:
            path.write_text(json.dumps(contents[path], indent=1, sort_keys=True))


if __name__ == "__main__":
    if sys.argv[1:] == ["--here"]:
        print(json.dumps(hashes(json.load(sys.stdin))))
    else:
        main(Path(sys.argv[1]))
