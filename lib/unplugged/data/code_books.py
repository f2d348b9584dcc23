"""How the code book of a table is made: columns of observations, and what was done.

`logs.from_table` makes it of a table's sorted rows; `coding` has the book itself, which needs no
table.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks
from unplugged.data import coding
from unplugged.data.coding import CodeBook, Column, Quantity, Row, TableError

_MOST_ACTIONS = 1_000


def column(series: pd.Series, name: str, row: Row) -> Column:
    """How a column of an observation becomes numbers."""
    if coding.is_category(series, name, row):
        coding.check_there(series, name, row, coding.unnamed(name))
        return Column(name, values=tuple(_values(series, name, row)))
    values = coding.numbers(series, name, row)
    mean, scale = float(values.mean()), float(values.std())
    constant = scale <= 1e-12 * max(abs(mean), 1e-300)
    return Column(name, mean, 1.0 if constant else scale)


def action_facts(book: CodeBook) -> dict[str, Any]:
    """What a dataset's metadata say of its actions."""
    if not book.quantities:
        return {"num_actions": len(book.actions)}
    return {
        "action_dims": len(book.quantities),
        "action_low": [of.low for of in book.quantities],
        "action_high": [of.high for of in book.quantities],
    }


def amounts(
    frame: pd.DataFrame,
    columns: tuple[Column, ...],
    doing: Sequence[str],
    bounds: Mapping[str, tuple[float, float]],
    decides: np.ndarray,
    row: Row,
) -> tuple[CodeBook, np.ndarray]:
    """The code book of continuous actions, and those of all rows in [-1, 1] [N, D]."""
    which = np.flatnonzero(decides)
    found, codes = [], np.zeros((len(frame), len(doing)))
    for d, name in enumerate(doing):
        values = coding.numbers(
            frame[name].iloc[which], name, lambda i: row(int(which[i])),
            "say how much of it was done, 0 if nothing was",
        )  # fmt: skip
        low, high = map(float, bounds.get(name, (values.min(), values.max())))
        if low == high:
            raise TableError(
                f"column {name!r} is {low:g} in every decision; leave it out, or give its bounds"
            )
        if (beyond := (values < low) | (values > high)).any():
            i = int(np.argmax(beyond))
            raise TableError(
                f"column {name!r} is {values[i]:g} in {row(int(which[i]))}, beyond its bounds "
                f"[{low:g}, {high:g}]; correct it, or widen them"
            )
        found.append(Quantity(name, low, high))
        codes[which, d] = found[-1].encode(values)
    return CodeBook(columns, None, (), quantities=tuple(found)), codes


def actions(
    frame: pd.DataFrame,
    columns: tuple[Column, ...],
    action: str,
    allowed: Mapping[Any, str] | None,
    decides: np.ndarray,
    fewest: int,
    row: Row,
) -> tuple[CodeBook, np.ndarray]:
    """The code book, and the action numbers of all rows (0 where nothing is decided)."""
    which = np.flatnonzero(decides)
    taken = _named_actions(frame[action].iloc[which], action, lambda i: row(int(which[i])))
    actions = coding.categories(taken)
    if len(actions) > _MOST_ACTIONS:
        raise TableError(
            f"column {action!r} has {len(actions):,} different actions, more than "
            f"{_MOST_ACTIONS:,}; merge those that are alike, numbers by pandas.cut"
        )
    if len(actions) < 2:
        raise TableError(
            f"column {action!r} is {actions[0]!r} in every decision; there is nothing to choose"
        )
    codes = np.zeros(len(frame), np.int64)
    codes[which] = coding.codes_of(taken, action, actions, lambda i: row(int(which[i])))
    counts = np.bincount(codes[which], minlength=len(actions))
    if counts.min() < fewest:
        rare = int(np.argmin(counts))
        i = int(which[np.argmax(codes[which] == rare)])
        times = "once" if counts[rare] == 1 else f"{counts[rare]} times"
        raise TableError(
            f"column {action!r} is {actions[rare]!r} only {times}, first in {row(i)}: too seldom "
            f"to learn from; merge it with another action, leave its episodes out, or give "
            f"fewest={counts[rare]}"
        )
    return CodeBook(columns, action, tuple(actions), _masks(allowed, actions)), codes


def _masks(allowed: Mapping[Any, str] | None, actions: Sequence[Any]) -> tuple[str, ...] | None:
    """The columns of masks in the order of the actions."""
    if allowed is None:
        return None
    if missing := [action for action in actions if action not in allowed]:
        raise TableError(f"allowed has no column for action {missing[0]!r}; name one for each")
    if unknown := [action for action in allowed if action not in actions]:
        raise TableError(
            f"allowed names {unknown[0]!r}, which nobody did and nothing is learned of; leave it "
            f"out: {checks.nearest(str(unknown[0]), map(str, actions))}"
        )
    return tuple(allowed[action] for action in actions)


def _values(series: pd.Series, name: str, row: Row) -> list[Any]:
    """Categories of an observation's column, if they are few and no numbers."""
    found = coding.categories(series)
    own_order = isinstance(series.dtype, pd.CategoricalDtype)
    if not own_order and all(isinstance(value, str) for value in found):
        as_numbers = pd.to_numeric(pd.Series(found, dtype=object), errors="coerce")
        if as_numbers.notna().mean() > 0.5:
            odd = next((x for x, ok in zip(found, as_numbers.notna()) if not ok), found[0])
            i = int(np.argmax((series == odd).to_numpy()))
            raise TableError(
                f"column {name!r} holds numbers as texts, and {odd!r} in {row(i)}; make numbers of "
                f"them by pandas.to_numeric, or a category by astype('category')"
            )
        commas = pd.Series(found, dtype=object).str.fullmatch(r"[-+]?\d+,\d+")
        if commas.mean() > 0.5:
            raise TableError(
                f"column {name!r} holds numbers with a comma, such as "
                f"{found[int(commas.argmax())]!r}; read the file by "
                "pandas.read_csv(..., decimal=',') and give the frame"
            )
    if len(found) > coding.MOST_VALUES:
        raise TableError(
            f"column {name!r} has {len(found):,} different texts, such as "
            f"{reprlib.repr(found[0])}; leave out names and free text, or group them to at most "
            f"{coding.MOST_VALUES}"
        )
    return found


def _named_actions(series: pd.Series, name: str, row: Row) -> pd.Series:
    """Actions as texts, whole numbers or truths; those that are floats are made whole."""
    if coding.is_category(series, name, row) or pd.api.types.is_bool_dtype(series.dtype):
        return series
    values = coding.numbers(series, name, row)
    if (parts := values != np.round(values)).any():
        i = int(np.argmax(parts))
        raise TableError(
            f"column {name!r} is {values[i]:g} in {row(i)}, and actions are few things to choose "
            f"from; give action=[{name!r}] for an amount, or cut it into some, such as "
            f"pandas.cut(frame[{name!r}], 5, labels=False)"
        )
    return pd.Series(values.astype(np.int64), index=series.index)


def probabilities(
    frame: pd.DataFrame, name: str | None, book: CodeBook, decides: np.ndarray, row: Row
) -> np.ndarray | None:
    """The recorded probabilities of all rows, 1 where nothing is decided; None: not recorded.

    Those of continuous actions are densities, here of actions in [-1, 1].
    """
    if name is None:
        return None
    which = np.flatnonzero(decides)
    remedy = "give that of every decision, or leave probability=None"
    found = coding.numbers(frame[name].iloc[which], name, lambda i: row(int(which[i])), remedy)
    most, least, what = 1.0 + 1e-6, 1e-30, "probability above 0, at most 1"
    if book.quantities:
        most, what = np.inf, "density above 0"
    if (wrong := ~((found > least) & (found <= most))).any():
        i = int(np.argmax(wrong))
        raise TableError(
            f"column {name!r} is {found[i]:.9g} in {row(int(which[i]))}, and what was done had a "
            f"{what}; give that of the action that was taken"
        )
    chances = np.ones(len(frame))
    found = found if book.quantities else np.minimum(found, 1.0)
    chances[which] = found * np.prod([(of.high - of.low) / 2.0 for of in book.quantities])
    return chances


def check_allowed(
    masks: np.ndarray, codes: np.ndarray, decides: np.ndarray, book: CodeBook, row: Row
) -> None:
    """Raises TableError if something was done that was not allowed."""
    wrong = decides & ~masks[np.arange(len(codes)), codes]
    if wrong.any():
        i = int(np.argmax(wrong))
        assert book.allowed is not None
        raise TableError(
            f"{row(i)} took {book.actions[codes[i]]!r}, which column {book.allowed[codes[i]]!r} "
            "does not allow; correct one of both"
        )
