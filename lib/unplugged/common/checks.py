"""Clear errors for bad input: what is wrong, and the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


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
    integer: bool = False,
) -> Any:
    """Returns `value` if it lies in [low, high] (or (low, high]); raises ValueError otherwise."""
    number = isinstance(value, int) if integer else isinstance(value, (int, float))
    if not number or isinstance(value, bool):
        kind = "an integer" if integer else "a number"
        raise ValueError(f"{what} must be {kind}, got {value!r}")
    too_low = value <= low if open_low else value < low
    if too_low or value > high or value != value:
        bracket = "(" if open_low else "["
        raise ValueError(f"{what} must lie in {bracket}{low}, {high}], got {value}")
    return value
