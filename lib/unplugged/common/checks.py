"""Clear errors for bad input: what is wrong, and the nearest right thing."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import yaml


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns a hint such as ``did you mean 'catch'? Valid: cartpole, catch``."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(name), valid, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}Valid: {', '.join(valid)}"


def one_of(kind: str, name: str, valid: Iterable[str]) -> str:
    """Returns `name` if it is one of `valid`; raises ValueError naming the nearest otherwise."""
    valid = list(valid)
    if name not in valid:
        raise ValueError(f"unknown {kind} {name!r}: {nearest(name, valid)}")
    return name


def within(
    what: str,
    value: float,
    low: float,
    high: float = float("inf"),
    *,
    open_low: bool = False,
    open_high: bool = False,
    integer: bool = False,
) -> Any:
    """Returns a number as Python's own if it lies in [low, high]; raises ValueError otherwise.

    NumPy's numbers are numbers; texts and truth values are none. It must be finite.
    """
    kind = numbers.Integral if integer else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{what} must be {'an integer' if integer else 'a number'}, got {value!r}")
    value = int(value) if isinstance(value, numbers.Integral) else float(value)
    too_low = value <= low if open_low else value < low
    too_high = value >= high if open_high or high == float("inf") else value > high
    if too_low or too_high or value != value:
        begin = "(" if open_low else "["
        end = ")" if open_high or high == float("inf") else "]"
        raise ValueError(f"{what} must lie in {begin}{low}, {high}{end}, got {value}")
    return value


@dataclasses.dataclass(frozen=True)
class Range:
    """Where an annotated number must lie, see `within`: `Annotated[float, Range(0.0, 1.0)]`."""

    low: float
    high: float = float("inf")
    open_low: bool = False
    open_high: bool = False


Count = Annotated[int, Range(1, 2**31 - 1)]
Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0)]
Positive = Annotated[float, Range(0.0, open_low=True)]


def fields(record: Any, *, within: str | None = None) -> None:
    """Checks every field of a frozen record by its annotation, and keeps it as Python's own type.

    Lists become tuples, NumPy's numbers and texts Python's, paths texts. To be called first in
    `__post_init__`.

    Args:
      record: what was made.
      within: the notebooks' parameter that its fields are given in; None: they are parameters.

    Raises:
      ValueError: naming the field, what it must be and what it is; for a text that papermill passed
        by `-p`, how it is passed as what it should be.
    """
    kind: Any = type(record)
    for name, hint in _hints(kind).items():
        object.__setattr__(record, name, of_type(name, getattr(record, name), hint, within))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def of_type(what: str, value: Any, hint: Any, within: str | None = None) -> Any:
    """A value as the annotation says, see `fields`.

    Args:
      what: the value's name.
      value: what was given.
      hint: `bool`, `int`, `float`, `str`, a `Literal` or `Any`; a `Sequence`, `tuple[..., ...]`, or
        `Mapping` by texts of these; or an option of None. Numbers may have a `Range`.
      within: see `fields`.

    Raises:
      ValueError: if it is something else.
    """
    try:
        return _of_type(what, value, hint)
    except ValueError as error:
        if not (isinstance(value, str) and what.isidentifier() and "'" not in value):
            raise
        try:
            _of_type(what, yaml.safe_load(value), hint)
        except (ValueError, yaml.YAMLError):
            raise error from None
        given = f"{within}: {{{what}: {value}}}" if within else f"{what}: {value}"
        advice = f"a text; with papermill pass it by -y '{given}'"
        raise ValueError(f"{error}, {advice}") from None


def _of_type(what: str, value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    where = Range(float("-inf"))
    if origin is Annotated:
        hint, *extras = arguments
        where = next((x for x in extras if isinstance(x, Range)), where)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        [hint] = [one for one in arguments if one is not types.NoneType]
        return _of_type(what, value, hint)
    if hint is Any:
        return plain(value)
    if hint in (int, float):
        return within(what, value, **dataclasses.asdict(where), integer=hint is int)
    if hint is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{what} must be true or false, got {value!r}")
        return bool(value)
    if origin is Literal:
        return one_of(what, value, arguments)
    if hint is str:
        if not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{what} must be a text, got {value!r}")
        return str(value)
    if origin is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            kind = "numbers" if _is_number(arguments[1]) else "values"
            raise ValueError(
                f'{what} must be a mapping of names to {kind}, such as {{"name": 1}}, got {value!r}'
            )
        return {
            str(name): _of_type(f"{what}[{str(name)!r}]", one, arguments[1])
            for name, one in value.items()
        }
    if origin in (tuple, Sequence):
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            kind = "numbers" if _is_number(arguments[0]) else "values"
            raise ValueError(f"{what} must be a list of {kind}, such as [0, 1], got {value!r}")
        return tuple(_of_type(f"{what}[{i}]", one, arguments[0]) for i, one in enumerate(value))
    raise TypeError(f"{what}: there is no check for {hint}")


def _is_number(hint: Any) -> bool:
    return (typing.get_args(hint) or (hint,))[0] in (int, float)


def plain(value: Any) -> Any:
    """A value of Python's own types where it is NumPy's, within lists and mappings too."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {plain(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value
