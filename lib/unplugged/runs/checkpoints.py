"""Checkpoints of a run: whose they are, which seeds go on together, saving and restoring."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from unplugged.common import files


class Checkpoints:
    """Checkpoints of a group of seeds: the learner's state and the rows so far."""

    def __init__(self, folder: Path, *, keep: bool = True):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if keep else 1, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def updates(self) -> list[int]:
        """The updates at which there is a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def restore(
        self, like: Any, step: int | None = None
    ) -> tuple[Any, list[dict[str, Any]]] | None:
        """The checkpoint at an update (None: the last), or None if there is none."""
        step = self._manager.latest_step() if step is None else step
        if step is None:
            return None
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(raw_keys(like)), rows=ocp.args.JsonRestore()
            ),
        )
        raw = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(saved["state"]))
        state = jax.tree.map(
            lambda x, of: jax.random.wrap_key_data(x) if _is_key(of) else x, raw, like
        )
        return state, saved["rows"]

    def save(self, update: int, state: Any, rows: list[dict[str, Any]]) -> None:
        """Writes a checkpoint whole, or none."""
        self._manager.save(
            update,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(raw_keys(state)), rows=ocp.args.JsonSave(rows)
            ),
        )

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def raw_keys(state: Any) -> Any:
    """The state with the plain numbers of its random keys, which can be saved and compared."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def of_group(folder: Path, seeds: Sequence[int], *, keep: bool = True) -> Checkpoints:
    """Checkpoints of seeds that train in one program, in a run's folder for checkpoints."""
    return Checkpoints(folder / ("seed_" + "_".join(map(str, seeds))), keep=keep)


def _saved_groups(folder: Path) -> list[tuple[int, ...]]:
    """The groups that have checkpoints, the largest first."""
    found = [
        tuple(int(part) for part in group.name.split("_")[1:])
        for group in sorted(folder.glob("seed_*"))
    ]
    return sorted(found, key=len, reverse=True)


def _whole_groups(folder: Path, seeds: Sequence[int]) -> tuple[list[tuple[int, ...]], set[int]]:
    """The groups that go on as they are, and the seeds that are in none of them."""
    found, rest = [], set(seeds)
    for group in _saved_groups(folder):
        if rest.issuperset(group):
            found.append(group)
            rest.difference_update(group)
    return found, rest


def groups(folder: Path, seeds: Sequence[int], together: bool) -> list[tuple[int, ...]]:
    """Which seeds train in one program: groups with checkpoints go on as they are."""
    found, rest = _whole_groups(folder, seeds)
    if rest:
        found += [tuple(sorted(rest))] if together else [(seed,) for seed in sorted(rest)]
    return sorted(found)


def states(folder: Path, seeds: Sequence[int], init: Callable[[int], Any]) -> Iterator[tuple]:
    """Every checkpoint of some seeds as (seed, update, state), of groups each seed alone.

    Args:
      folder: a run's folder for checkpoints.
      seeds: the seeds wanted; one without checkpoints is left out.
      init: from a seed to a state of the same form.
    """
    whole, left = _whole_groups(folder, seeds)
    chosen = [(group, set(group)) for group in whole]
    for group in _saved_groups(folder):  # Of the others, those that hold a wanted seed.
        if wanted := left.intersection(group):
            chosen.append((group, wanted))
            left -= wanted
    for group, wanted in chosen:
        saved, like = of_group(folder, group), stack([init(seed) for seed in group])
        try:
            for update in saved.updates():
                restored = saved.restore(like, update)
                assert restored is not None  # Of the updates that there are.
                state, _ = restored
                for i, seed in enumerate(group):
                    if seed in wanted:
                        yield seed, update, unstack(state, len(group), i)
        finally:
            saved.close()


def stack(states: Sequence[Any]) -> Any:
    """States of a group as one with an axis of seeds in front; a single one stays as it is."""
    return jax.tree.map(lambda *x: jnp.stack(x), *states) if len(states) > 1 else states[0]


def unstack(state: Any, seeds: int, number: int) -> Any:
    """One of the states that `stack` put together."""
    return jax.tree.map(lambda x: x[number], state) if seeds > 1 else state


ADOPT = "UNPLUGGED_ADOPT"  # "1" in the environment: go on with checkpoints of other programs

_HOW_EVALUATED = ("selector", "eval_every", "eval_episodes", "greedy", "diagnose")
_BENEATH = ("program", "versions")


def defaults(kind: type) -> dict[str, Any]:
    """The fields of a dataclass that have a default, which older records may not know yet."""
    return {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }


def _differing(found: Mapping[str, Any], identity: Mapping[str, Any], known: Mapping) -> list[str]:
    """In what two identities differ, as sentences' parts; what one does not know is at its default.

    Of settings, programs and versions each is named: "settings: td_steps 5, was 3".
    """
    known = json.loads(json.dumps({name: known[name] for name in known if name in identity}))
    parts = []
    for name, wanted in identity.items():
        there = found.get(name, known.get(name))
        if name in ("settings", *_BENEATH):
            there = {**known.get(name, {}), **(there or {})}
            inner = [
                part if name == "program" else f"{part} {of}, was {there.get(part, 'unknown')}"
                for part, of in wanted.items()
                if there.get(part) != of
            ]
            if inner:
                parts.append(f"{name}: {', '.join(inner)}")
        elif there != wanted:
            parts.append(f"{name}: {wanted!r}, was {there!r}" if name != "data" else "data: others")
    return parts


def _without(differing: list[str], *names: str) -> list[str]:
    return [part for part in differing if part.partition(":")[0] not in names]


def note(folder: Path) -> Path:
    """Where a folder of checkpoints says whose they are."""
    return folder / "identity.json"


def _identity_in(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Whose checkpoints a folder holds, and the earlier programs that they went through."""
    found = json.loads(note(folder).read_text()) if note(folder).exists() else {}
    earlier = found.pop("earlier", [])
    return found, earlier


def check(
    folder: Path,
    identity: Mapping[str, Any],
    known: Mapping[str, Any],
    programs: Callable[[], Mapping[str, str]],
) -> None:
    """Raises ValueError if a folder's checkpoints are of a run with other parameters or data.

    How they were evaluated, and by which programs they were trained, does not matter; nor does a
    setting on which training does not depend.

    Args:
      folder: a run's folder for checkpoints; if it is not there, nothing is wrong.
      identity: of the run that is wanted.
      known: parameters' defaults, of `settings` those of each setting.
      programs: gives those of the run that is wanted; called if settings differ.
    """
    if not folder.exists():
        return
    found, _ = _identity_in(folder)
    differing = _without(_differing(found, identity, known), *_HOW_EVALUATED, *_BENEATH)
    if differing and not _without(differing, "settings"):
        then, now = found.get("program", {}), programs()
        if all(then.get(name) == now[name] for name in ("initialisation", "training")):
            return
    if differing:
        raise ValueError(f"the checkpoints in {folder} are of another run ({'; '.join(differing)})")


def keep_or_set_aside(
    folder: Path, identity: Mapping[str, Any], known: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Makes a folder one for checkpoints of this very run; another run's are renamed, not lost.

    A setting that no program of the run depends on may differ. Checkpoints of other programs or
    versions are kept if the environment says so (`ADOPT`), which is right after a change that
    changes no number that one cares about.

    Args:
      folder: a run's folder for checkpoints.
      identity: of the run.
      known: as for `check`; what older checkpoints do not know counts as that.

    Returns:
      The earlier programs and versions that its checkpoints went through.
    """
    identity = dict(identity)
    earlier: list[dict[str, Any]] = []
    if folder.exists():
        found, earlier = _identity_in(folder)
        differing = _differing(found, identity, known)
        if not _without(differing, "settings"):
            if differing:
                noted = {**identity, "earlier": earlier} if earlier else identity
                files.write_whole(note(folder), json.dumps(noted, sort_keys=True, indent=1))
            return earlier
        if not _without(differing, *_BENEATH) and os.environ.get(ADOPT) == "1":
            earlier = [*earlier, {name: found.get(name) for name in _BENEATH}]
        else:
            earlier, number = [], 1
            while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
                number += 1
            why = "; ".join(differing)
            print(f"the checkpoints in {folder} are of another run ({why}): now {aside}")
            folder.rename(aside)
    if earlier:
        identity["earlier"] = earlier
    files.write_whole(note(folder), json.dumps(identity, sort_keys=True, indent=1))
    return earlier
