"""Reading .npz files that may be damaged, or none at all: sizes first, then data, no pickles."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unplugged.common import memory

# Deflate makes at most 1,032 bytes of one. Recordings reach 600 at most, on boards that are zero
# but for a cell or two.
_MOST_FOLD, _LARGE = 800, 2**30
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # What NumPy writes.

# What other files begin with.
_SIGNATURES = {
    b"PK": "cut short, a zip file without its end",
    b"\x93NUMPY": "a single NumPy array (.npy)",
    b"\x89HDF": "an HDF5 file (minari_io.from_minari reads a Minari dataset by its id)",
    b"PAR1": "a Parquet file",
    b"SQLite": "an SQLite file",
    b"\x1f\x8b": "compressed with gzip",
    b"\x80": "a pickle, which is never loaded",
}


class NpzError(ValueError):
    """A file that cannot be read, and why."""


class DamagedError(NpzError):
    """A file that was one once."""


class OtherKindError(NpzError):
    """A file of another kind, or with other arrays."""


class Form(NamedTuple):
    """What an array is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An open .npz file.

    Attributes:
      forms: the form of each array that was asked for.
    """

    def __init__(self, archive: zipfile.ZipFile, forms: dict[str, Form]):
        self._archive = archive
        self.forms = forms

    def read(self, name: str) -> np.ndarray:
        """An array of those that were asked for.

        Raises:
          NpzError: if it is damaged.
        """
        with _damage(), self._archive.open(f"{name}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


@contextlib.contextmanager
def opened(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Archive]:
    """Opens an .npz file and looks at the headers of some arrays; their data stay unread.

    Args:
      path: the file.
      names: arrays that it must have.
      optional: arrays that it may have.

    Raises:
      OtherKindError: if it is another kind of file, naming that, or lacks an array.
      DamagedError: if it cannot be read, or an array's header and the zip's sizes differ.
      NpzError: if an array is pickled; if the arrays need more memory than there is, or are nearly
        all the same byte.
    """
    if not zipfile.is_zipfile(path):
        what = kind(path)
        raise (DamagedError if "cut short" in what else OtherKindError)(what)
    with contextlib.ExitStack() as stack:
        with _damage():
            archive = stack.enter_context(zipfile.ZipFile(path))
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            if missing := [name for name in names if name not in held]:
                lacks, has = ", ".join(missing), ", ".join(ascii(x)[1:-1] for x in held[:8])
                raise OtherKindError(f"lacks {lacks}, and has {has or 'nothing'}")
            names = (*names, *(name for name in optional if name in held))
            forms = {name: _form(archive, name) for name in names}
        total = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
        fold = total / path.stat().st_size
        if total > _LARGE and fold > _MOST_FOLD:
            raise NpzError(
                f"{fold:,.0f} times as large when unpacked, {_size(total)}: damaged, or nearly all "
                "the same; leave out what never changes"
            )
        if total > (free := memory.free()):
            raise NpzError(f"needs {_size(total)} of memory, and {_size(free)} can be had")
        yield Archive(archive, forms)


def kind(path: Path) -> str:
    """What a file that is no zip seems to be."""
    with path.open("rb") as file:
        begin = file.read(1_024)
    if not begin:
        return "cut short, an empty file"
    for signature, what in _SIGNATURES.items():
        if begin.startswith(signature):
            return what
    if not any(byte < 9 or 13 < byte < 32 for byte in begin):  # Control characters, but for layout.
        return "a text file, such as CSV or JSON"
    return "a file of an unknown kind"


def _form(archive: zipfile.ZipFile, name: str) -> Form:
    """The form of an array by its own header, if the zip's sizes say the same."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in _METHODS or info.flag_bits & 1:
        raise DamagedError(f"damaged: {name} is compressed in a way that is not NumPy's")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(stream)
        begin = stream.tell()
    if dtype.hasobject:
        raise NpzError("holds pickled objects, which are never loaded")
    claimed = begin + math.prod(shape) * dtype.itemsize
    if claimed != info.file_size or min(shape, default=0) < 0:
        raise DamagedError(
            f"cut short or damaged: {name} claims {_size(claimed)} and has {_size(info.file_size)}"
        )
    return Form(shape, dtype)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Of whatever a damaged file raises in zipfile, zlib and NumPy makes one kind of error."""
    try:
        yield
    except NpzError:
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise DamagedError(f"cut short or damaged ({detail})") from error


def _size(number: int) -> str:
    """Bytes for people: "4.0 GiB"."""
    power = min(max(abs(number).bit_length() - 1, 0) // 10, 4)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{number / 1_024**power:,.{1 if power else 0}f} {unit}"
