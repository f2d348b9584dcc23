"""Rows of a table as numbers, and action numbers as names: the code book of a table of one's own.

It is kept as JSON in a dataset's metadata and with a saved policy, so that whatever acts later gets
raw rows. It needs neither the table nor what learned from it.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks

MOST_VALUES = 256  # different texts of one column: more are names or free text
LARGEST = 1e15  # as in a dataset

_PLAIN = (str, bool, int, float, np.number, np.bool_)

Row = Callable[[int], str]  # what row i of a table is called in messages


class TableError(ValueError):
    """A table that cannot be used: which column, which row, and what to do."""


def by_number(i: int) -> str:
    """Row i of a frame, counted from 0."""
    return f"row {i}"


def by_line(i: int) -> str:
    """Row i of a CSV file, as an editor counts lines; the first has the names."""
    return f"line {i + 2}"


@dataclasses.dataclass(frozen=True)
class Column:
    """How one column of a table becomes numbers.

    Attributes:
      name: of the column.
      mean: of a number, subtracted.
      scale: of a number, divided by; 1 where the column is constant.
      values: of a category, in the order of its one-hot code; None: it is a number.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    values: tuple[Any, ...] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the numbers that it becomes."""
        if self.values is None:
            return [self.name]
        return [f"{self.name}={value}" for value in self.values]

    def encode(self, series: pd.Series, row: Row) -> np.ndarray:
        """The column as numbers, float32 [N, 1] or one-hot [N, values].

        Raises:
          TableError: if a value is missing, no number, or no category that is known.
        """
        if self.values is None:
            standard = (numbers(series, self.name, row) - self.mean) / self.scale
            return standard.astype(np.float32)[:, None]
        codes = codes_of(series, self.name, self.values, row)
        return np.eye(len(self.values), dtype=np.float32)[codes]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column of continuous actions, of which agents see numbers in [-1, 1].

    Attributes:
      name: of the column.
      low: the least that can be done, which becomes -1.
      high: the most, which becomes 1.
    """

    name: str
    low: float
    high: float

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Amounts [N] in [-1, 1]."""
        return np.clip(2.0 * (values - self.low) / (self.high - self.low) - 1.0, -1.0, 1.0)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Numbers [N], clipped to [-1, 1], as amounts."""
        share = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0
        return (1.0 - share) * self.low + share * self.high


@dataclasses.dataclass(frozen=True)
class CodeBook:
    """How rows become observations, and action numbers the table's own actions.

    Attributes:
      observation: the columns of an observation, in order.
      action: the column of actions; None: they are continuous.
      actions: what each action number stands for: texts, whole numbers or truth values.
      allowed: for each action the column that says whether it may be taken; None: all may.
      quantities: the columns of continuous actions, in order.
    """

    observation: tuple[Column, ...]
    action: str | None
    actions: tuple[Any, ...]
    allowed: tuple[str, ...] | None = None
    quantities: tuple[Quantity, ...] = ()

    @property
    def names(self) -> list[str]:
        """What each number of an observation is."""
        return [name for column in self.observation for name in column.names]

    def encode(self, rows: pd.DataFrame, row: Row = by_number) -> np.ndarray:
        """Raw rows as observations, float32 [N, D].

        Args:
          rows: with the columns of an observation; others are not looked at.
          row: what row i is called in messages.

        Raises:
          TableError: if a column is missing, or see `Column.encode`.
        """
        check_columns(rows, [column.name for column in self.observation])
        return np.concatenate([of.encode(rows[of.name], row) for of in self.observation], axis=1)

    def masks(self, rows: pd.DataFrame, row: Row = by_number) -> np.ndarray | None:
        """Which actions each row allows, bool [N, A]; None if the table does not say.

        Raises:
          TableError: if a column is missing or holds no truths, or a row allows nothing.
        """
        if self.allowed is None:
            return None
        check_columns(rows, self.allowed)
        found = np.stack([truths(rows[name], name, row) for name in self.allowed], axis=1)
        if not found.any(axis=1).all():
            i = int(np.argmin(found.any(axis=1)))
            raise TableError(
                f"{row(i)} allows no action (columns {', '.join(self.allowed[:5])}); leave out "
                "rows where nothing is decided"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The code book as JSON can hold it."""
        return {**dataclasses.asdict(self), "observation": [vars(of) for of in self.observation]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CodeBook:
        """What `to_json` gave."""
        columns = []
        for of in content["observation"]:
            values = None if of["values"] is None else tuple(of["values"])
            columns.append(Column(of["name"], of["mean"], of["scale"], values))
        allowed = content.get("allowed")
        return cls(
            tuple(columns), content["action"], tuple(content["actions"]),
            None if allowed is None else tuple(allowed),
            tuple(Quantity(**of) for of in content.get("quantities", ())),
        )  # fmt: skip


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raises TableError naming the nearest if a column is missing, or stands twice."""
    for name in names:
        if name not in frame.columns:
            if len(frame.columns) == 1 and (marks := re.findall("[;\t|]", str(frame.columns[0]))):
                raise TableError(
                    f"no column {name!r}, and only one at all, {reprlib.repr(frame.columns[0])}; "
                    f"read the file by pandas.read_csv(..., sep={marks[0]!r}) and give the frame"
                )
            there = checks.nearest(name, map(str, frame.columns)).replace("Valid:", "There are:")
            raise TableError(f"no column {name!r}: {there}")
        if isinstance(frame[name], pd.DataFrame):
            raise TableError(f"the table has {name!r} more than once; rename one of its columns")


def is_category(series: pd.Series, name: str, row: Row) -> bool:
    """Whether a column is texts or of pandas' kind `category`, and not numbers.

    Raises:
      TableError: if it is neither: dates, texts among numbers, other objects.
    """
    kind = series.dtype
    if isinstance(kind, pd.CategoricalDtype):
        if odd := [x for x in kind.categories if not isinstance(x, _PLAIN)]:
            raise TableError(
                f"column {name!r} has categories such as {odd[0]!r}; make texts of them, by "
                "astype(str)"
            )
        return True
    if isinstance(kind, pd.StringDtype):
        return True
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        raise TableError(
            f"column {name!r} holds dates or times; give numbers, such as "
            f"(frame[{name!r}] - frame[{name!r}].min()) / pandas.Timedelta(hours=1)"
        )
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        if pd.api.types.is_complex_dtype(kind):
            raise TableError(f"column {name!r} holds complex numbers; give two columns")
        return False
    there = series[series.notna()]
    text = there.map(lambda x: isinstance(x, str)).to_numpy(bool)
    if text.all():
        return True
    known = there.map(lambda x: isinstance(x, _PLAIN))
    if not known.all():
        i = series.index.get_indexer_for([there.index[int(np.argmin(known.to_numpy(bool)))]])[0]
        what = type(series.iloc[i]).__name__
        raise TableError(
            f"column {name!r} holds a {what} in {row(i)}; give numbers, by astype(float), texts, "
            "by astype(str), or a step's dates by pandas.to_datetime"
        )
    if not text.any():
        true = there.map(lambda x: isinstance(x, (bool, np.bool_))).to_numpy(bool)
        if true.any() and not true.all():
            raise TableError(f"column {name!r} holds truths among numbers; make it one of both")
        return False
    i = int(np.flatnonzero(series.map(lambda x: isinstance(x, str)).to_numpy(bool))[0])
    raise TableError(
        f"column {name!r} holds texts among numbers, such as {series.iloc[i]!r} in {row(i)}; make "
        f"it one of both, by pandas.to_numeric or astype(str)"
    )


def check_there(series: pd.Series, name: str, row: Row, remedy: str) -> None:
    """Raises TableError if a value of a column is missing."""
    missing = series.isna().to_numpy()
    if missing.any():
        i, number = int(np.argmax(missing)), int(missing.sum())
        more = f" and {number - 1} more" if number > 1 else ""
        raise TableError(f"column {name!r} has no value in {row(i)}{more}; {remedy}")


def unnamed(name: str) -> str:
    """What to do about a category that is missing."""
    return (
        f"give it a name, such as frame[{name!r}].fillna('unknown'); NA, None and null in a CSV "
        "file are read as missing, unless you read it by pandas.read_csv(..., "
        "keep_default_na=False) and give the frame"
    )


def numbers(series: pd.Series, name: str, row: Row, remedy: str | None = None) -> np.ndarray:
    """A column of finite numbers, float64 [N].

    Args:
      series: the column.
      name: its name.
      row: what row i is called in messages.
      remedy: what to do about a missing value; None: what is right for an observation's.

    Raises:
      TableError: if a value is missing, no number, infinite or beyond `LARGEST`.
    """
    there = series[series.notna()]
    if is_category(series, name, row) and len(there):
        odd = pd.to_numeric(there.astype(object), errors="coerce").isna()
        example = there[odd].iloc[0] if odd.any() else there.iloc[0]
        i = int(np.argmax((series == example).to_numpy()))
        raise TableError(
            f"column {name!r} must hold numbers, and is the text {reprlib.repr(example)} in "
            f"{row(i)}; correct it, or make numbers of them by pandas.to_numeric(frame[{name!r}])"
        )
    fill = (
        f"fill it knowingly, and say where by a column of its own: frame['{name} is missing'] = "
        f"frame[{name!r}].isna()"
    )
    check_there(series, name, row, remedy or fill)
    values = series.to_numpy(np.float64)
    far = ~(np.abs(values) <= LARGEST)
    if far.any():
        i = int(np.argmax(far))
        raise TableError(
            f"column {name!r} is {values[i]:g} in {row(i)}, and at most {LARGEST:g} can be learned "
            "from; if that marks what is missing, make it so, else divide"
        )
    return values


def truths(series: pd.Series, name: str, row: Row) -> np.ndarray:
    """A column of truths, bool [N]: true and false, or 1 and 0.

    Raises:
      TableError: if a value is missing or something else.
    """
    check_there(series, name, row, "say true or false in every row")
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(bool)
    known = series.isin([0, 1]).to_numpy()
    if not known.all():
        i = int(np.argmin(known))
        raise TableError(
            f"column {name!r} must be true or false, or 1 or 0, and is {series.iloc[i]!r} in "
            f"{row(i)}; compare it with what means true, as frame[{name!r}] == 'yes'"
        )
    return series.to_numpy(np.float64) == 1.0


def categories(series: pd.Series) -> list[Any]:
    """The different values of a column that is all there: sorted, or in pandas' own order."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        found = series.cat.remove_unused_categories().cat.categories
    else:
        found = pd.unique(series)
        found = found[np.argsort(np.asarray(found, object), kind="stable")]
    return [checks.plain(value) for value in found]


def codes_of(series: pd.Series, name: str, values: Sequence[Any], row: Row) -> np.ndarray:
    """Places of a column's values in a list of them, int64 [N].

    Raises:
      TableError: if a value is missing or none of them.
    """
    check_there(series, name, row, unnamed(name))
    if isinstance(series.dtype, pd.CategoricalDtype):
        places = pd.Index(values).get_indexer(series.cat.categories)
        codes = places[series.cat.codes.to_numpy()]
    else:
        codes = pd.Index(values).get_indexer(pd.Index(series))
    if (codes < 0).any():
        i = int(np.argmax(codes < 0))
        raise TableError(
            f"column {name!r} is {series.iloc[i]!r} in {row(i)}, which the table that was learned "
            f"from never had: {checks.nearest(str(series.iloc[i]), map(str, values))}"
        )
    return codes
