"""A learned policy in one folder, to be called from anywhere.

`policy.save("runs/clinic", "policies/clinic")` makes the folder, and
`policy.load("policies/clinic").act(rows)` decides.

A folder holds the weights (`weights.safetensors`), the compiled functions (`act.jax`, `expect.jax`,
by `jax.export`), and `policy.json` with the code book, the names of the actions, where it comes
from and a checksum of each file. Loading needs JAX, NumPy and pandas, none of the code that
trained, and no pickle.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import export

from unplugged.common import checks, files, safetensors
from unplugged.data.coding import CodeBook, Quantity

__all__ = ["Decision", "Policy", "PolicyError", "load", "save"]

VERSION = 2
AT_ONCE = 4_096  # rows at most that are decided in one call
PLATFORMS = ("cpu", "cuda", "tpu")
_FROM_RUN = ("parameters", "data_checksum", "program", "git_revision", "packages", "device")
_WEIGHTS, _ABOUT, _FUNCTIONS = "weights.safetensors", "policy.json", ("act", "expect")


class PolicyError(ValueError):
    """A policy that cannot be saved, loaded or asked so."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a policy decides in B states; of a single one the arrays have no first axis.

    Attributes:
      action: what to do, by its name: the table's own action, or the environment's number. [B];
        of a continuous policy amounts [B, D], in the table's or the environment's own units, or in
        [-1, 1] if the dataset does not say what its bounds were.
      probabilities: of each action, before one was drawn. Shape [B, A]; None: continuous.
      action_values: discounted return that the method expects of each action. Shape [B, A]; None:
        it learns no values.
      value: that of the state. Shape [B]; None likewise.
      actions: names of the A actions; of a continuous policy those of the D amounts, if there are.
    """

    action: Any
    probabilities: np.ndarray | None
    action_values: np.ndarray | None
    value: np.ndarray | None
    actions: tuple[Any, ...]

    def frame(self) -> pd.DataFrame:
        """A row a state: action, value, and of each action `p(name)` and `q(name)`.

        Of a continuous policy a column an amount.
        """
        columns: dict[str, Any]
        if self.probabilities is None:
            amounts = np.atleast_2d(self.action)
            names = self.actions or [f"action {i}" for i in range(amounts.shape[1])]
            columns = dict(zip(names, amounts.T))
        else:
            single = self.probabilities.ndim == 1
            columns = {"action": [self.action] if single else list(self.action)}
        if self.value is not None:
            columns["value"] = np.atleast_1d(self.value)
        for letter, values in (("p", self.probabilities), ("q", self.action_values)):
            if values is not None:
                of = np.atleast_2d(values).T
                columns |= {f"{letter}({name})": x for name, x in zip(self.actions, of)}
        return pd.DataFrame(columns)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A loaded policy.

    Attributes:
      about: what `policy.json` says: method, selector, environment, observation shape, action
        names, seed and update, and the provenance of the run.
      book: the code book of a policy that was learned from a table; None: it takes observations.
    """

    about: Mapping[str, Any]
    book: CodeBook | None
    _weights: Mapping[str, jax.Array]
    _act: Any
    _expect: Any

    @property
    def actions(self) -> tuple[Any, ...]:
        """Names of the actions, by number."""
        return tuple(self.about["actions"])

    def observe(self, rows: Any) -> tuple[np.ndarray, bool]:
        """Rows as observations, float32 [B, ...], and whether they were a single one.

        Args:
          rows: of a table, a frame, mappings, a mapping or a series with the columns of an
            observation; or observations as an array, [B, ...] or [...]. To a policy that was
            learned from a table those are what its code book makes of rows, and it warns.

        Raises:
          TableError: if a column is missing or a value unknown, see `CodeBook.encode`.
          PolicyError: if they are neither, have another shape, are not finite or allow nothing.
        """
        if isinstance(rows, Sequence) and len(rows) and isinstance(rows[0], Mapping):
            rows = pd.DataFrame(list(rows))
        if isinstance(rows, (pd.DataFrame, pd.Series, Mapping)):
            if self.book is None:
                raise PolicyError(
                    f"this policy of {self.about['environment']} takes observations "
                    f"{self.about['observation_shape']}, no rows of a table; give an array"
                )
            single = not isinstance(rows, pd.DataFrame)
            frame = pd.DataFrame([dict(rows)]) if single else rows
            found = self.book.encode(frame)
            masks = self.book.masks(frame)
            if masks is not None:
                found = np.concatenate([found, masks.astype(np.float32)], axis=1)
            return found, single
        shape = tuple(self.about["observation_shape"])
        try:
            array = np.asarray(rows, np.float32)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"observations must be numbers in one shape ({error})") from error
        if array.shape != shape and array.shape[1:] != shape:
            what = " or rows of the table" if self.book else ""
            flat = "" if array.ndim or self.book else (
                "; gymnasium.wrappers.FlattenObservation makes arrays of numbers"
            )  # fmt: skip
            raise PolicyError(
                f"observations must have shape {list(shape)} or [B, {', '.join(map(str, shape))}]"
                f"{what}, got {list(array.shape)}{flat}"
            )
        if self.book is not None:
            warnings.warn(
                "an array is taken for observations that are coded and standardised already; give "
                "rows of the table as a frame or mapping, or what policy.book.encode(frame) gives",
                stacklevel=3,
            )
        single = array.shape == shape
        array = array[None] if single else array
        if (wrong := ~np.isfinite(array)).any():
            i, *place = (int(x[0]) for x in np.nonzero(wrong))
            raise PolicyError(
                f"observation {i} is {array[(i, *place)]} at {place}; give finite numbers"
            )
        if self.about.get("masked") and not (some := array[:, -len(self.actions) :].any(1)).all():
            raise PolicyError(
                f"observation {int(np.argmin(some))} allows no action: its last "
                f"{len(self.actions)} numbers say which are, by 1 and 0"
            )
        return array, single

    def act(self, rows: Any, *, key: int | jax.Array | None = None) -> Decision:
        """Decides: an action each, drawn as the run's own policy drew in its evaluations.

        Args:
          rows: see `observe`.
          key: randomness of the draw and of a search; the same key decides the same, so give
            another at each call. None: another each time.

        Raises:
          TableError, PolicyError: see `observe`.
        """
        observation, single = self.observe(rows)
        if not len(observation):
            raise PolicyError("there are no rows to decide for")
        if key is None:
            key = secrets.randbits(32)
        if not isinstance(key, jax.Array):
            key = jax.random.key(checks.within("key", key, 0, 2**32 - 1, integer=True))
        found = self._some(observation[:AT_ONCE], key)
        for begin in range(AT_ONCE, len(observation), AT_ONCE):
            more = self._some(
                observation[begin : begin + AT_ONCE], jax.random.fold_in(key, begin), fill=True
            )
            found = jax.tree.map(lambda *x: np.concatenate(x), found, more)
        if single:
            found = jax.tree.map(lambda x: x[0], found)
        action, probabilities, expected = found
        if bounds := self.about.get("bounds"):
            parts = [Quantity("", *of).decode(action[..., i]) for i, of in enumerate(bounds)]
            action = np.stack(parts, axis=-1)
        elif self.actions:
            names = pd.Series(self.actions, dtype=object)[np.atleast_1d(action)].infer_objects()
            action = names.iloc[0] if single else names.to_numpy()
        value, action_values = expected
        return Decision(action, probabilities, action_values, value, self.actions)

    def _some(self, observation: np.ndarray, key: jax.Array, *, fill: bool = False) -> Any:
        """What is decided in one call; it can be filled up, since each size is compiled anew."""
        number = len(observation)
        if fill and number < AT_ONCE:
            last = np.repeat(observation[-1:], AT_ONCE - number, axis=0)
            observation = np.concatenate([observation, last])
        action, probabilities = self._act(self._weights, observation, jax.random.key_data(key))
        expected = None, None
        if self._expect is not None:
            expected = self._expect(self._weights, observation)
        return jax.tree.map(lambda x: np.asarray(x)[:number], (action, probabilities, expected))


def load(folder: str | os.PathLike[str]) -> Policy:
    """Loads what `save` wrote.

    Raises:
      FileNotFoundError: if there is no policy.
      PolicyError: if it is of another version, or a file is not what was saved.
    """
    folder = files.expanded(folder)
    if not (folder / _ABOUT).is_file():
        raise FileNotFoundError(f"no policy in {folder}: it has no {_ABOUT}; see policy.save")
    try:
        about = json.loads((folder / _ABOUT).read_text())
        sums, version = about["files"], about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise PolicyError(
            f"{folder / _ABOUT} is damaged ({error}); save the policy again"
        ) from error
    if version != VERSION:
        raise PolicyError(
            f"{folder} is of version {version}, this code reads {VERSION}; save the policy again"
        )
    for name, wanted in sums.items():
        path = folder / name
        if not path.is_file() or _sum(path.read_bytes()) != wanted:
            raise PolicyError(f"{path} is not what was saved; save the policy again")
    _check_flatbuffers()
    functions: dict[str, Any] = {}
    for name in _FUNCTIONS:
        functions[name] = None
        if f"{name}.jax" in sums:
            try:
                exported = export.deserialize(bytearray((folder / f"{name}.jax").read_bytes()))
            except Exception as error:  # Whatever another version of JAX raises.
                raise PolicyError(
                    f"{folder} was saved with jax {about['run']['packages'].get('jax')}, and jax "
                    f"{jax.__version__} cannot read {name}.jax ({error}); save it again"
                ) from error
            functions[name] = jax.jit(exported.call)
    book = about.get("book")
    return Policy(
        about=about,
        book=None if book is None else CodeBook.from_json(book),
        _weights=jax.tree.map(jnp.asarray, safetensors.load(folder / _WEIGHTS)),
        _act=functions["act"],
        _expect=functions["expect"],
    )


def save(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    seed: int | None = None,
    selector: str | None = None,
    greedy: bool = False,
) -> Path:
    """Saves the policy of a finished offline run, at its last checkpoint, in a folder of its own.

    Args:
      run: the run's directory; its dataset must lie where it did.
      folder: the folder to be made.
      seed: which of its seeds; None: its first.
      selector: how to act, see `acting.SELECTORS`; None: as the run's evaluations did.
      greedy: whether its most probable action is taken, instead of drawn.

    Returns:
      The folder.

    Raises:
      FileNotFoundError: if there is no such run, or it has no checkpoint of that seed.
      FileExistsError: if the folder is there.
      ValueError: if the run is no offline run of recorded data; if the method cannot act by that
        selector.
    """
    # Imported here, so that whoever only loads needs none of it.
    from unplugged import runs
    from unplugged.data import logs, windows
    from unplugged.runs import decisions, evaluation
    from unplugged.runs import spec as runs_spec

    _check_flatbuffers()
    run, folder = files.expanded(run), files.expanded(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there; delete it, or name another folder")
    spec = runs.of_folder(run)
    if selector is not None:
        spec = dataclasses.replace(spec, selector=selector)
    seed = spec.seeds[0] if seed is None else seed
    learner, state = runs.restore(spec, run, seed)
    model = learner.model
    draw = evaluation.draw(model, spec.acts_by, spec.settings, greedy=greedy)
    expect = decisions.expected(learner)
    paths, tree = jax.tree_util.tree_flatten_with_path(state.params)
    unflatten: Any = functools.partial(jax.tree.unflatten, tree)
    weights = {"/".join(str(key.key) for key in path): np.asarray(x) for path, x in paths}
    assert len(weights) == len(paths)

    def act(weights: Mapping[str, jax.Array], observation: jax.Array, key: jax.Array) -> Any:
        params = unflatten([weights[name] for name in order])
        return draw(params, observation, jax.random.wrap_key_data(key))

    def expects(weights: Mapping[str, jax.Array], observation: jax.Array) -> Any:
        assert expect is not None
        return tuple(expect(unflatten([weights[name] for name in order]), observation))

    record = json.loads((run / "provenance.json").read_text())
    order = list(weights)
    dataset = runs_spec.load(spec.dataset)
    shape = windows.seen(*spec.form())
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *shape), np.float32)
    key = jax.random.key_data(jax.random.key(0))
    book = logs.code_book(dataset)

    def exported(function: Any, *arguments: Any) -> bytes:
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize())

    content = {
        _WEIGHTS: safetensors.to_bytes(weights), "act.jax": exported(act, weights, rows, key)
    }  # fmt: skip
    if expect is not None:
        content["expect.jax"] = exported(expects, weights, rows)
    named: Any = range(0 if model.actions.continuous else model.num_actions)
    if book:
        named = [of.name for of in book.quantities] or book.actions
    about = {
        "version": VERSION,
        "method": spec.method,
        "selector": spec.acts_by,
        "greedy": greedy,
        "environment": spec.environment,
        "observation_shape": list(shape),
        "actions": list(named),
        "book": None if book is None else book.to_json(),
        "masked": dataset.allowed is not None,
        "bounds": _bounds(dataset),
        "seed": seed,
        "update": int(state.updates),
        "run": {name: record.get(name) for name in _FROM_RUN},
        "files": {name: _sum(data) for name, data in content.items()},
    }
    content[_ABOUT] = json.dumps(about, indent=1, sort_keys=True).encode()
    new = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{files.TEMPORARY}")
    try:
        for name, data in content.items():
            files.write_whole(new / name, data)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _bounds(dataset: Any) -> list[list[float]] | None:
    """The least and the most of each continuous action; None: discrete, or not known."""
    if not dataset.actions.continuous:
        return None
    ends = [dataset.metadata.get(name) for name in ("action_low", "action_high")]
    return None if None in ends else [list(of) for of in zip(*ends)]


def _check_flatbuffers() -> None:
    """Raises ModuleNotFoundError if jax.export has not what it writes with."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise ModuleNotFoundError("saved policies need flatbuffers: pip install flatbuffers")


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
