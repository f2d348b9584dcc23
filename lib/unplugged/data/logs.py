"""A table of one's own as a dataset: a row a decision, from a frame, a CSV or a Parquet file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unplugged.common import checks, files
from unplugged.data import code_books, coding, datasets
from unplugged.data.coding import CodeBook, Row, TableError

__all__ = ["TableError", "code_book", "from_table"]

BENCHMARK = "logged"  # the row of benchmarks that a table's dataset is of
KEY = "table"  # of the metadata: the code book, and what became of the rows
_GAPS = 0.1  # share of steps that are skipped beyond which they are not numbered one by one


def from_table(
    table: pd.DataFrame | str | os.PathLike[str],
    *,
    episode: str,
    step: str,
    observation: Sequence[str],
    action: str | Sequence[str],
    reward: str,
    ended: str | bool,
    probability: str | None = None,
    allowed: Mapping[Any, str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fewest: int = 2,
    name: str = "table",
) -> datasets.Dataset:
    """A dataset of the rows of a table, a row a decision.

    Rows may stand in any order; an episode's are sorted by `step`, of which only the order counts.
    Numbers of observations are standardised, texts and pandas' categories one-hot coded; the code
    book is in the metadata, so that `policy.load(...).act` takes raw rows. Nothing is filled in.

    What followed the last row of an episode:

    - If the episode truly ended there, nothing needs to be known, and nothing is: the last row's
      observation stands for the final one, which no method looks at.
    - A last row with neither action nor reward is the final observation.
    - Otherwise the episode was cut off, and the last row's observation is the final one: its
      action and reward are lost, since nobody knows what they led to. A warning says how many.

    Args:
      table: a pandas frame, or the path of a .csv (also compressed) or .parquet file.
      episode: column of the episode's id; in a CSV file as it is written, 7 beside 007.
      step: column of numbers or dates by which an episode's rows are ordered.
      observation: columns of what was known when the action was chosen.
      action: column of what was done: texts, whole numbers or truths. Or a list of columns of
        numbers, how much of each was done: continuous actions.
      reward: column of what it earned, until the next row.
      ended: column of truths: whether the episode truly ended with this row. Or one truth for all
        episodes' last rows.
      probability: column of the probability with which the action was taken, of continuous actions
        its density, by their own units. None: not known.
      allowed: for each action the column that says whether it may be taken. None: all may.
      bounds: of columns of continuous actions the least and the most that can be done, beyond which
        no policy goes. Of columns that it does not name, those of the table.
      fewest: how often each action must occur at least, since nothing is learned from one example.
      name: what the table is called in results, its `environment`.

    Raises:
      TableError: naming column, row and remedy, if the table cannot be used.
      FileNotFoundError: if there is no such file.
      ModuleNotFoundError: if Parquet cannot be read here.
    """
    doing = [action] if isinstance(action, str) else list(action)
    _check_roles(episode, step, observation, doing, reward, ended, probability)
    _check_kind(action, doing, allowed, bounds)
    checks.within("fewest", fewest, 1, integer=True)
    optional = [probability, ended if isinstance(ended, str) else None]
    columns = [
        episode, step, *observation, *doing, reward, *(x for x in optional if x is not None),
        *(() if allowed is None else allowed.values()),
    ]  # fmt: skip
    frame, row = _read(table, columns, episode)
    if not len(frame):
        raise TableError("the table has no rows")

    order, first, last = _order(frame, episode, step, row)
    frame = frame[list(dict.fromkeys(columns))].iloc[order].reset_index(drop=True)
    sorted_row: Row = lambda i: row(int(order[i]))  # noqa: E731

    final = _final_rows(frame, doing, reward, last, sorted_row)
    over = _ends(frame, ended, last, final, sorted_row)
    ended_here = over & ~final  # The final observation was not recorded, and is not needed.
    cut = last & ~over & ~final
    _check_lengths(frame[episode], first & last & (final | cut), final, sorted_row)
    decides = ~(final | cut)

    columns_of = tuple(code_books.column(frame[name], name, sorted_row) for name in observation)
    if isinstance(action, str):
        book, codes = code_books.actions(
            frame, columns_of, action, allowed, decides, fewest, sorted_row
        )  # fmt: skip
    else:
        book, codes = code_books.amounts(
            frame, columns_of, doing, bounds or {}, decides, sorted_row
        )
    remedy = (
        "write 0 where nothing was earned (in an episode's last row leave out the action too, and "
        "it is the final observation)"
    )
    rewards = np.zeros(len(frame))
    there = np.flatnonzero(~final)
    rewards[there] = coding.numbers(
        frame[reward].iloc[there], reward, lambda i: sorted_row(int(there[i])), remedy
    )
    chances = code_books.probabilities(frame, probability, book, decides, sorted_row)
    masks = None
    if book.allowed is not None:
        masks = np.ones((len(frame), len(book.actions)), bool)
        # Also where an episode that was cut off goes on; a state at which it ended has no value.
        asked = np.flatnonzero(~final | ~over)
        masks[asked] = book.masks(frame.iloc[asked], lambda i: sorted_row(int(asked[i])))
        code_books.check_allowed(masks, codes, decides, book, sorted_row)

    # A row a step; where an episode truly ended, its last row twice.
    index = np.repeat(np.arange(len(frame)), 1 + ended_here)
    is_last = np.zeros(len(index), bool)
    is_last[np.cumsum(1 + ended_here)[last] - 1] = True
    truly = over[last][np.cumsum(is_last) - is_last]  # of each step's episode
    near_end = is_last | np.append(is_last[1:], False)
    acts = ~is_last
    dataset = datasets.Dataset(
        observation=book.encode(frame, sorted_row)[index],
        action=np.where(acts if codes.ndim == 1 else acts[:, None], codes[index], 0).astype(
            np.float32 if book.quantities else np.int32
        ),
        reward=np.where(acts, rewards[index], 0.0).astype(np.float32),
        discount=np.where(truly & near_end, 0.0, 1.0).astype(np.float32),
        is_first=np.append(True, is_last[:-1]),
        is_last=is_last,
        probability=(
            None if chances is None else np.where(acts, chances[index], 1.0).astype(np.float32)
        ),
        allowed=None if masks is None else masks[index],
        metadata={
            "benchmark": BENCHMARK,
            "environment": name,
            **code_books.action_facts(book),
            KEY: {
                **book.to_json(),
                "rows": len(frame),
                "rows_cut_off": int(cut.sum()),
                "episode": episode,
                "step": step,
                "reward": reward,
                "ended": ended,
                "probability": probability,
            },
        },
    )
    datasets.validate(dataset)
    if cut.any():
        _tell_lost(rewards, cut, decides, last, ended, sorted_row)
    return dataset


def _tell_lost(
    rewards: np.ndarray,
    cut: np.ndarray,
    decides: np.ndarray,
    last: np.ndarray,
    ended: str | bool,
    row: Row,
) -> None:
    """Warns of last rows of which only the observation is used; raises if all rewards are there.

    Raises:
      TableError: if nothing else earned anything.
    """
    first, lost = row(int(np.argmax(cut))), float(rewards[cut].sum())
    say = f"make column {ended!r} true there" if isinstance(ended, str) else "give ended=True"
    if rewards[cut].any() and not rewards[decides].any():
        raise TableError(
            f"all rewards stand in last rows of episodes that did not end, the first in {first}, "
            f"and what those led to is not known; if the episodes ended there, {say}; else add a "
            "row without action and reward, of what followed"
        )
    warnings.warn(
        f"{int(cut.sum())} of {int(last.sum())} episodes were cut off: of their last rows only "
        f"the observation is used, the first in {first}, and rewards of {lost:g} in all are lost. "
        f"If they ended there, {say}; where what followed is known, add a row of it without "
        "action and reward",
        stacklevel=3,
    )


def code_book(dataset: datasets.Dataset) -> CodeBook | None:
    """The code book of a dataset that was a table; None of any other."""
    found = dataset.metadata.get(KEY)
    return None if found is None else CodeBook.from_json(found)


def _check_roles(
    episode: str,
    step: str,
    observation: Sequence[str],
    doing: Sequence[str],
    reward: str,
    ended: str | bool,
    probability: str | None,
) -> None:
    """Raises TableError if a column has no name or two roles that contradict each other."""
    if isinstance(observation, str) or not len(observation):
        raise TableError(f"observation must be a list of columns, got {observation!r}")
    if wrong := [one for one in observation if not isinstance(one, str)]:
        raise TableError(f"observation must name columns by their texts, got {wrong[0]!r}")
    if not isinstance(ended, (str, bool, np.bool_)):
        raise TableError(f"ended must be a column's name, True or False, got {ended!r}")
    roles = {
        "episode": episode, "step": step, "action": doing[0] if doing else None, "reward": reward,
        **{f"action {i}": name for i, name in enumerate(doing[1:], 2)},
        "probability": probability, "ended": ended if isinstance(ended, str) else None,
    }  # fmt: skip
    for i, one in enumerate(observation):
        if one in list(observation)[:i]:
            raise TableError(f"observation names column {one!r} twice; name it once")
        for role, column in roles.items():
            if one == column and role != "step":
                raise TableError(
                    f"column {one!r} is the {role} and among the observations; an observation is "
                    "what was known before the action, so leave it out"
                )
    named = {role: column for role, column in roles.items() if column is not None}
    for role, column in named.items():
        if not isinstance(column, str):
            raise TableError(f"{role} must be a column's name, got {column!r}")
        for other, same in named.items():
            if other < role and same == column:
                raise TableError(f"column {column!r} is named as {other} and {role}; give each one")


def _check_kind(
    action: str | Sequence[str],
    doing: Sequence[str],
    allowed: Mapping[Any, str] | None,
    bounds: Mapping[str, tuple[float, float]] | None,
) -> None:
    """Raises TableError if what is said of actions is not of their kind."""
    if not doing:
        raise TableError("action must be a column, or a list of some; it is empty")
    if isinstance(action, str):
        if bounds is not None:
            raise TableError(
                f"bounds are of continuous actions; give action=[{action!r}], a list, or leave "
                "them out"
            )
        if allowed is not None and not isinstance(allowed, Mapping):
            raise TableError(
                f"allowed must name each action's column, as {{'none': 'may_none'}}, got "
                f"{allowed!r}"
            )
        return
    if allowed is not None:
        raise TableError("allowed is for actions with names, not for amounts; give bounds")
    for name, of in (bounds or {}).items():
        if name not in doing:
            raise TableError(f"bounds of {name!r}: {checks.nearest(name, doing)}")
        try:
            low, high = (checks.within("it", x, -coding.LARGEST, coding.LARGEST) for x in of)
        except (ValueError, TypeError) as error:
            raise TableError(f"bounds of {name!r} must be two numbers, got {of!r}") from error
        if not low < high:
            raise TableError(f"bounds of {name!r} are {of!r}; give the least, then the most")


def _read(table: Any, columns: Sequence[str], episode: str) -> tuple[pd.DataFrame, Row]:
    """The table's rows, and what they are called in messages."""
    if isinstance(table, pd.DataFrame):
        coding.check_columns(table, columns)
        return table, coding.by_number
    if not isinstance(table, (str, os.PathLike)):
        raise TableError(
            f"a table is a pandas frame or a path, got a {type(table).__name__}; "
            "pandas.DataFrame(...) makes a frame of most"
        )
    path = files.expanded(table)
    if not path.is_file():
        beside = [x.name for x in path.parent.glob("*")] if path.parent.is_dir() else []
        close = checks.nearest(path.name, beside).partition("Valid:")[0].strip()
        raise FileNotFoundError(f"no table {path}{f': {close}' if close else ''}")
    if ".csv" in path.suffixes:
        return _read_csv(path, columns, episode), coding.by_line
    if path.suffix not in (".parquet", ".pq"):
        raise TableError(
            f"{path.name} is neither .csv nor .parquet; read it with pandas and give the frame"
        )
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"reading {path.name} needs pyarrow: pip install -e '.[tables]', or write the "
            "table as .csv"
        ) from error
    except Exception as error:
        raise TableError(f"{path} cannot be read as Parquet ({error}); write it again") from error
    coding.check_columns(frame, columns)
    return frame, coding.by_number


def _read_csv(path: Path, columns: Sequence[str], episode: str) -> pd.DataFrame:
    """The columns of a CSV file; ids of episodes as they are written, such as 007."""
    try:
        header = pd.read_csv(path, nrows=1, header=None, dtype=str).iloc[0].astype(str)
        coding.check_columns(pd.DataFrame(columns=header), columns)
        wanted = list(dict.fromkeys(columns))
        return pd.read_csv(path, usecols=wanted, dtype={episode: str}, low_memory=False)
    except TableError as error:
        raise TableError(f"{path.name}: {error}") from error
    except (ValueError, UnicodeDecodeError, OSError) as error:
        what = str(error).strip().replace("\n", " ")
        raise TableError(
            f"{path} cannot be read as CSV ({what}); save it with commas and UTF-8, or read it "
            "with pandas and give the frame"
        ) from error


def _order(
    frame: pd.DataFrame, episode: str, step: str, row: Row
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of rows, episodes as they first appear; and which of those begin and end one."""
    coding.check_there(frame[episode], episode, row, "say whose row it is, or leave it out")
    coding.check_there(frame[step], step, row, "say when it was, or leave the row out")
    numbers, _ = pd.factorize(frame[episode])
    when = frame[step]
    kinds, numbered = pd.api.types, False
    if kinds.is_datetime64_any_dtype(when.dtype) or kinds.is_timedelta64_dtype(when.dtype):
        when = when.astype("int64")
    elif coding.is_category(when, step, row):
        texts = when.astype(str)
        when = pd.to_numeric(texts, errors="coerce")
        if when.isna().any():
            try:
                when = pd.to_datetime(texts, format="ISO8601", utc=True).astype("int64")
            except ValueError as error:
                raise TableError(
                    f"column {step!r} must order an episode's rows, and holds texts such as "
                    f"{texts.iloc[0]!r}; make numbers or dates of them, by pandas.to_numeric or "
                    "pandas.to_datetime"
                ) from error
    else:
        numbered = kinds.is_integer_dtype(when.dtype)
    when = when.to_numpy(np.int64 if kinds.is_integer_dtype(when.dtype) else np.float64)
    if (endless := ~np.isfinite(when)).any():
        i = int(np.argmax(endless))
        raise TableError(f"column {step!r} is {when[i]} in {row(i)}; say when it was")
    order = np.lexsort((when, numbers))
    numbers, when = numbers[order], when[order]
    same = numbers[1:] == numbers[:-1]
    if numbered:
        _tell_gaps(np.where(same, np.diff(when), 1), step, lambda i: row(int(order[i])))
    twice = same & (when[1:] == when[:-1])
    if twice.any():
        i = int(np.argmax(twice))
        one, other = sorted(order[i : i + 2].tolist())
        shown = frame[episode].iloc[one], frame[step].iloc[one]
        raise TableError(
            f"column {step!r}: {row(one)} and {row(other)} are both step {shown[1]} of episode "
            f"{shown[0]}; drop one (frame.drop_duplicates()), or number the rows"
        )
    return order, np.append(True, ~same), np.append(~same, True)


def _tell_gaps(apart: np.ndarray, step: str, row: Row) -> None:
    """Warns where rows are numbered one by one, and some are missing."""
    gaps = apart > 1
    if gaps.any() and gaps.mean() < _GAPS:
        i = int(np.argmax(gaps))
        warnings.warn(
            f"column {step!r} skips steps {int(gaps.sum())} times, first between {row(i)} and "
            f"{row(i + 1)}: the later row is taken for what followed; if time matters, make it an "
            "observation",
            stacklevel=4,
        )


def _final_rows(
    frame: pd.DataFrame, doing: Sequence[str], reward: str, last: np.ndarray, row: Row
) -> np.ndarray:
    """Which rows are an episode's final observation: last ones without action and reward."""
    missing = frame[list(doing)].isna().to_numpy()
    nothing = missing.all(axis=1) & last & frame[reward].isna().to_numpy()
    if (wrong := missing & ~nothing[:, None]).any():
        i, column = (int(x[0]) for x in np.nonzero(wrong))
        raise TableError(
            f"column {doing[column]!r} has no value in {row(i)}; name what was done, such as "
            "'nothing', or 0 of an amount, or leave the episode out (only an episode's last row, "
            "as its final observation, may lack both action and reward; NA, None and null in a CSV "
            "file are read as missing)"
        )
    return nothing


def _ends(
    frame: pd.DataFrame, ended: str | bool, last: np.ndarray, final: np.ndarray, row: Row
) -> np.ndarray:
    """Which rows are the last of an episode that truly ended."""
    if isinstance(ended, (bool, np.bool_)):
        return last & bool(ended)
    # A final observation needs no truth: its episode ended if the row before says so.
    said = np.flatnonzero(~(final & frame[ended].isna().to_numpy()))
    found = np.zeros(len(frame), bool)
    found[said] = coding.truths(frame[ended].iloc[said], ended, lambda i: row(int(said[i])))
    # Where the final observation is a row, the truth may stand at the last decision.
    decided_last = np.append(final[1:], False)
    if (wrong := found & ~last & ~decided_last).any():
        i = int(np.argmax(wrong))
        raise TableError(
            f"column {ended!r} is true in {row(i)}, and {row(i + 1)} goes on with the episode; it "
            "must be true in an episode's last row alone"
        )
    return last & (found | (final & np.append(False, found[:-1])))


def _check_lengths(episode: pd.Series, alone: np.ndarray, final: np.ndarray, row: Row) -> None:
    """Raises TableError if an episode has no decision of which is known what followed."""
    if alone.any():
        i = int(np.argmax(alone))
        why = "no action" if final[i] else "nothing of what followed"
        raise TableError(
            f"episode {episode.iloc[i]} has one row, {row(i)}, and {why}; leave it out, or say "
            f"that it ended (of {int(alone.sum())} such episodes the first)"
        )
