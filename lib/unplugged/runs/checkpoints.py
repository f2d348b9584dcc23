"""Checkpoints of a run: whose they are, which seeds go on together, saving and restoring."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from unplugged.common import files

SUMS = "SHA256SUMS"  # in a checkpoint: a line a file, as sha256sum writes and checks them


class DamagedError(ValueError):
    """A checkpoint is not what was saved."""


def _sums(folder: Path) -> str:
    """A checksum of every file of a checkpoint, a line each; those of a system are hidden."""
    found = []
    paths = (x for x in folder.rglob("*") if x.is_file() and not x.name.startswith("."))
    for path in sorted(x for x in paths if x != folder / SUMS):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    return "".join(found)


def damage(folder: Path, *, summed: bool = True) -> str | None:
    """What is wrong with a checkpoint's files; None: they are what was saved.

    Args:
      folder: the checkpoint.
      summed: whether it must have checksums, as all that were saved since they exist.
    """
    if not folder.is_dir():
        return "it is no folder"
    if not (folder / SUMS).exists():
        return f"{SUMS} is missing" if summed else None
    saved, there = (folder / SUMS).read_bytes(), _sums(folder).encode()
    if saved == there:
        return None
    lines = sorted(set(saved.splitlines()) ^ set(there.splitlines()))
    names = {line.partition(b"  ")[2].decode(errors="replace") for line in lines}
    return f"{min(names) if len(names) == 1 else SUMS} is not what was saved"


class Checkpoints:
    """Checkpoints of a group of seeds: the learner's state and the rows so far.

    One is written beside its place and renamed when it is whole and on the disk, with checksums of
    all its files. Nothing is restored before they are looked at.

    Args:
      folder: a folder of its own, named by the seeds as "seed_0_1"; a checkpoint is a folder in
        it, named by its update.
      keep: whether every checkpoint stays; otherwise the last one and the one before it.
      summed: whether checkpoints without checksums are damaged.
    """

    def __init__(self, folder: Path, *, keep: bool = True, summed: bool = True):
        self._folder = folder.absolute()
        self._keep = keep
        self._summed = summed
        # Of several processes each that saves does so by itself.
        number = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})
        self._checkpointer = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(
                composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
            ),
            multiprocessing_options=alone,
        )

    def updates(self) -> list[int]:
        """The updates at which there is a checkpoint, in order."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir())
        return sorted(int(name) for name in names if _UPDATE.fullmatch(name))

    def _path(self, update: int) -> Path:
        return self._folder / str(update)

    def restore(self, like: Any, update: int) -> tuple[Any, list[dict[str, Any]]]:
        """The state and the rows at an update.

        Raises:
          DamagedError: if the checkpoint is not what was saved.
        """
        path = self._path(update)
        wrong = damage(path, summed=self._summed)
        if wrong is None:
            try:
                state, rows = self._restore(like, path)
                of = sorted({row["seed"] for row in rows}), rows[-1]["update"]
                if of == (sorted(map(int, self._folder.name.split("_")[1:])), update):
                    return state, rows
                wrong = f"it is of seeds {of[0]}, update {of[1]}"  # It was copied.
            except (ValueError, TypeError, LookupError, OSError) as error:  # Without checksums.
                wrong = f"it cannot be read: {str(error).partition(chr(10))[0][:200]}"
        raise DamagedError(
            f"the checkpoint {path} is damaged ({wrong}); delete that folder and train again: the "
            "run goes on from the one before it"
        )

    def _restore(self, like: Any, path: Path) -> tuple[Any, list[dict[str, Any]]]:
        saved = self._checkpointer.restore(
            path,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_saveable(like)), rows=ocp.args.JsonRestore()
            ),
        )
        raw = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(saved["state"]))
        return wrapped_keys(raw, like), saved["rows"]

    def last(self, like: Any) -> tuple[int, Any, list[dict[str, Any]]] | None:
        """Update, state and rows of the last checkpoint that is whole; None if there is none.

        Damaged ones after it are named and set aside. To be called under the run's lock.
        """
        for update in reversed(self.updates()):
            try:
                return update, *self.restore(like, update)
            except DamagedError as error:
                self._set_aside(update, str(error).partition(";")[0])
        return None

    def _set_aside(self, update: int, what: str) -> None:
        name = f"{_DAMAGED}{self._folder.name}-{update}"
        aside = _unused(self._folder.parent / name)
        self._path(update).rename(aside)
        before = self.updates()
        then = f"going on from update {before[-1]}" if before else "there is none before it"
        print(f"{what}; {then}. It is now {aside}, which can be deleted", flush=True)

    def save(self, update: int, state: Any, rows: list[dict[str, Any]]) -> None:
        """Writes a checkpoint whole, or none."""
        whole = self._path(update)
        new = whole.with_name(f"{update}{files.TEMPORARY}")
        self._checkpointer.save(
            new,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_saveable(state)), rows=ocp.args.JsonSave(rows)
            ),
        )
        add_sums(new)
        for path in [*new.rglob("*"), new]:
            files.sync(path)
        new.rename(whole)
        files.sync(self._folder)
        for old in [] if self._keep else self.updates()[:-_KEPT]:
            gone = self._path(old).rename(self._folder / f"{old}{files.TEMPORARY}")
            shutil.rmtree(gone)

    def close(self) -> None:
        """Lets go of the folder."""
        self._checkpointer.close()


_KEPT = 2  # the last checkpoint, and one to go on from if that is damaged
_DAMAGED = "damaged-"
_UPDATE = re.compile(r"0|[1-9][0-9]*")


def add_sums(folder: Path) -> None:
    """Gives a checkpoint the checksums of what it holds now."""
    files.write_whole(folder / SUMS, _sums(folder))


def _unused(path: Path) -> Path:
    """A path by that name that is not there yet, numbered if need be."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def raw_keys(state: Any) -> Any:
    """The state with the plain numbers of its random keys, which can be saved and compared."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _saveable(state: Any) -> Any:
    """The state as it is saved: of one of several processes, which Orbax would gather, in NumPy."""
    raw = raw_keys(state)
    return raw if jax.process_count() == 1 else jax.tree.map(np.asarray, raw)


def wrapped_keys(raw: Any, like: Any) -> Any:
    """What `raw_keys` made of a state, with its random keys again."""
    return jax.tree.map(lambda x, of: jax.random.wrap_key_data(x) if _is_key(of) else x, raw, like)


def of_group(folder: Path, seeds: Sequence[int], *, keep: bool = True) -> Checkpoints:
    """Checkpoints of seeds that train in one program, in a run's folder for checkpoints."""
    name = "seed_" + "_".join(map(str, seeds))
    return Checkpoints(folder / name, keep=keep, summed=_identity_in(folder).summed)


_GROUP = re.compile(r"seed(_\d+)+")
_NOTES = ("identity.json", "starts.json")


def _saved_groups(folder: Path) -> list[tuple[int, ...]]:
    """The groups that have checkpoints, the largest first."""
    found = [
        tuple(int(part) for part in group.name.split("_")[1:])
        for group in sorted(folder.glob("seed_*"))
        if _GROUP.fullmatch(group.name) and group.is_dir()
    ]
    return sorted(found, key=len, reverse=True)


def tidy(folder: Path) -> None:
    """Removes what killed processes left in a run's folder for checkpoints; names what is strange.

    To be called under the run's lock.
    """
    for path in sorted(folder.glob(f"**/*{files.TEMPORARY}*")):
        if path.is_dir():  # Those within it are gone with it.
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    groups = [path for path in folder.glob("*") if _GROUP.fullmatch(path.name) and path.is_dir()]
    strange = [
        path
        for path in folder.glob("*")
        if path not in groups and path.name not in _NOTES and not path.name.startswith(_DAMAGED)
    ]
    strange += [path for of in groups for path in of.iterdir() if not _UPDATE.fullmatch(path.name)]
    for path in sorted(strange):
        print(f"{path} is no checkpoint and is left alone; delete it if you do not need it")


def _whole_groups(folder: Path, seeds: Sequence[int]) -> tuple[list[tuple[int, ...]], set[int]]:
    """The groups that go on as they are, and the seeds that are in none of them."""
    found, rest = [], set(seeds)
    for group in _saved_groups(folder):
        if rest.issuperset(group):
            found.append(group)
            rest.difference_update(group)
    return found, rest


class Group(NamedTuple):
    """Seeds that train in one program.

    Attributes:
      seeds: which.
      begun: a larger group with checkpoints, from whose states they go on; None: there is none.
    """

    seeds: tuple[int, ...]
    begun: tuple[int, ...] | None = None


def groups(folder: Path, seeds: Sequence[int], together: bool) -> list[Group]:
    """Which seeds train in one program.

    Groups with checkpoints go on as they are; a seed of a group that is not wanted as a whole is
    taken from it.
    """

    def divided(some: set[int], begun: tuple[int, ...] | None) -> list[Group]:
        parts = [tuple(sorted(some))] if together and some else [(x,) for x in sorted(some)]
        return [Group(part, begun) for part in parts]

    whole, rest = _whole_groups(folder, seeds)
    found = [Group(group) for group in whole]
    for group in _saved_groups(folder):
        found += divided(rest.intersection(group), group)
        rest.difference_update(group)
    return sorted(found + divided(rest, None))


def take(
    folder: Path, group: Group, init: Callable[[int], Any], *, keep: bool
) -> tuple[Checkpoints, Any]:
    """Checkpoints of a group, those of a larger one that it was begun in among them.

    To be called under the run's lock.

    Args:
      folder: a run's folder for checkpoints.
      group: which seeds.
      init: from a seed to its state before the first update.
      keep: see `Checkpoints`.

    Returns:
      The checkpoints, and the group's state before the first update.
    """
    own, like = of_group(folder, group.seeds, keep=keep), stack([init(x) for x in group.seeds])
    if group.begun is None or own.updates():
        return own, like
    larger = of_group(folder, group.begun)
    places = [group.begun.index(seed) for seed in group.seeds]
    try:
        of_all = stack([init(seed) for seed in group.begun])
        found = larger.last(of_all)
        earlier = [x for x in larger.updates() if keep and found and x < found[0]]
        chosen = [(x, *larger.restore(of_all, x)) for x in earlier] + ([found] if found else [])
        for update, state, rows in chosen:
            part = stack([unstack(state, len(group.begun), place) for place in places])
            own.save(update, part, [row for row in rows if row["seed"] in group.seeds])
    finally:
        larger.close()
    return own, like


def states(
    folder: Path, seeds: Sequence[int], init: Callable[[int], Any], *, every: bool = True
) -> Iterator[tuple]:
    """Checkpoints of some seeds as (seed, update, state), of groups each seed alone.

    Args:
      folder: a run's folder for checkpoints.
      seeds: the seeds wanted; one without checkpoints is left out.
      init: from a seed to a state of the same form.
      every: whether all of them, or only the last of each group.

    Raises:
      DamagedError: if one is not what was saved.
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
            for update in saved.updates()[0 if every else -1 :]:
                state, _ = saved.restore(like, update)
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


def others(found: Mapping[str, Any], identity: Mapping[str, Any], known: Mapping) -> list[str]:
    """Why something is of another run, as sentences' parts; nothing if it is of this one.

    A setting that no program of the run depends on may differ; programs and versions may if the
    environment says so (`ADOPT`).
    """
    differing = _differing(found, identity, known)
    if not _without(differing, "settings"):
        return []
    if os.environ.get(ADOPT) == "1" and not _without(differing, *_BENEATH):
        return []
    return differing


def note(folder: Path) -> Path:
    """Where a folder of checkpoints says whose they are."""
    return folder / "identity.json"


class _Note(NamedTuple):
    """What a folder of checkpoints says of itself.

    Attributes:
      identity: whose they are; None if that cannot be read.
      earlier: programs that they went through.
      summed: whether its checkpoints have checksums, as all that are saved now.
    """

    identity: dict[str, Any] | None
    earlier: list[dict[str, Any]]
    summed: bool


_SEAL = "checksum"


def _sealed(content: Mapping[str, Any]) -> str:
    """A note as text, with a checksum of what it says."""
    text = json.dumps(content, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**content, _SEAL: seal}, sort_keys=True, indent=1)


def _identity_in(folder: Path) -> _Note:
    """What a folder says of its checkpoints."""
    if not note(folder).exists():
        return _Note(None if _saved_groups(folder) else {}, [], summed=True)
    text = note(folder).read_text(errors="replace")
    try:
        found = dict(json.loads(text))
        summed = found.pop(_SEAL, None) is not None
    except (ValueError, TypeError):  # No JSON, or no object.
        return _Note(None, [], summed=True)
    if (summed or _SEAL in text) and _sealed(found) != text:
        return _Note(None, [], summed=True)
    return _Note(found, found.pop("earlier", []), summed)


def _write_note(folder: Path, identity: Mapping[str, Any], earlier: list[dict[str, Any]]) -> None:
    """Says whose the checkpoints are; those without checksums get them before."""
    for group in _saved_groups(folder):
        for path in (folder / ("seed_" + "_".join(map(str, group)))).iterdir():
            if _UPDATE.fullmatch(path.name) and path.is_dir() and not (path / SUMS).exists():
                print(f"{path} was saved without checksums: it is taken as it is, and gets them")
                add_sums(path)
    content = {**identity, "earlier": earlier} if earlier else identity
    files.write_whole(note(folder), _sealed(content))


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

    Raises:
      DamagedError: if what says whose they are is damaged.
    """
    if not folder.exists():
        return
    found = _identity_in(folder).identity
    if found is None:
        raise DamagedError(
            f"{note(folder)} is damaged, so that nobody knows whose checkpoints these are; delete "
            f"{folder} and train again"
        )
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
    changes no number that one cares about. Checkpoints of before there were checksums are taken as
    they are, and get them.

    Args:
      folder: a run's folder for checkpoints.
      identity: of the run.
      known: as for `check`; what older checkpoints do not know counts as that.

    Returns:
      The earlier programs and versions that its checkpoints went through.
    """
    earlier: list[dict[str, Any]] = []
    if folder.exists() and (note(folder).exists() or _saved_groups(folder)):
        found, earlier, summed = _identity_in(folder)
        why = ["identity.json is damaged"] if found is None else others(found, identity, known)
        differing = [] if found is None else _differing(found, identity, known)
        if found is not None and not why:
            if any(part.partition(":")[0] in _BENEATH for part in differing):
                earlier = [*earlier, {name: found.get(name) for name in _BENEATH}]
            if differing or not summed:
                _write_note(folder, identity, earlier)
            return earlier
        earlier, number = [], 1
        while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
            number += 1
        print(f"the checkpoints in {folder} are of another run ({'; '.join(why)}): now {aside}")
        folder.rename(aside)
    _write_note(folder, identity, earlier)
    return earlier
