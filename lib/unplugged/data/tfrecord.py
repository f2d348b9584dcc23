"""TFRecord files of `tf.train.Example`, without TensorFlow; every checksum in them is checked.

A record is its length (uint64), a checksum of those 8 bytes, the bytes, and a checksum of them,
all little endian. A checksum is CRC-32C (Castagnoli), rotated and offset. Files may be gzipped,
whatever their name. What is damaged is told with its file and record; whoever reads keeps nothing
of such a file, whose later records nobody has looked at.
"""

from __future__ import annotations

import functools
import gzip
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from unplugged.common import files
from unplugged.data.datasets import DatasetError

_POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, its bits reversed.
_BLOCK = 256  # bytes of a block; blocks of a record are summed side by side
_SHARD = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})")


class MissingError(DatasetError):
    """A dataset has fewer files than it must have."""


# --- CRC-32C ------------------------------------------------------------------------------------


@functools.cache
def _table() -> np.ndarray:
    """What a byte does to the sum. Shape [256], uint32."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), _POLYNOMIAL, np.uint32(0))
    return table


def _times(matrix: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """A linear map over bits, given by the images [32] of single bits, of sums [N]."""
    result = np.zeros_like(sums)
    for bit in range(32):
        result ^= ((sums >> np.uint32(bit)) & np.uint32(1)) * matrix[bit]
    return result


@functools.cache
def _zeros(doublings: int) -> np.ndarray:
    """What 2^doublings bytes of 0 do to a sum, as a linear map. Shape [32]."""
    if doublings == 0:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _table()[bits & np.uint32(255)] ^ (bits >> np.uint32(8))
    half = _zeros(doublings - 1)
    return _times(half, half)


def crc32c(content: bytes) -> int:
    """CRC-32C of bytes, as iSCSI, ext4 and TFRecord have it."""
    data = np.frombuffer(content, np.uint8)
    table = _table()
    if len(data) < 4 * _BLOCK:
        total = 0xFFFFFFFF
        for byte in content:
            total = int(table[(total ^ byte) & 255]) ^ (total >> 8)
        return total ^ 0xFFFFFFFF
    # To begin with all bits set is to flip the first four bytes; zeros in front change nothing.
    number = 1 << max(0, (-(-len(data) // _BLOCK) - 1).bit_length())
    blocks = np.zeros(number * _BLOCK, np.uint8)
    blocks[len(blocks) - len(data) :] = data
    blocks[len(blocks) - len(data) :][:4] ^= np.uint8(255)
    sums = np.zeros(number, np.uint32)
    for column in np.ascontiguousarray(blocks.reshape(number, _BLOCK).T):
        sums = table[(sums ^ column) & np.uint32(255)] ^ (sums >> np.uint32(8))
    doublings = _BLOCK.bit_length() - 1
    while len(sums) > 1:
        sums = _times(_zeros(doublings), sums[0::2]) ^ sums[1::2]
        doublings += 1
    return int(sums[0]) ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    """The checksum of bytes as TFRecord stores it, 4 bytes."""
    total = crc32c(content)
    return struct.pack("<I", (((total >> 15) | (total << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


# --- Files --------------------------------------------------------------------------------------


def records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The records of a TFRecord file, plain or gzipped.

    Raises:
      FileNotFoundError: if there is no such file.
      DatasetError: if the file is cut short or damaged, naming it and the record.
    """
    path = files.expanded(path)
    number = 0
    try:
        with _opened(path) as file:
            while header := file.read(12):
                if len(header) < 12:
                    raise DatasetError("it is cut short")
                if masked(header[:8]) != header[8:]:
                    raise DatasetError("its length is damaged (its checksum does not match)")
                (length,) = struct.unpack("<Q", header[:8])
                content, checksum = file.read(length), file.read(4)
                if len(content) < length or len(checksum) < 4:
                    raise DatasetError("it is cut short")
                if masked(content) != checksum:
                    raise DatasetError("it is damaged (its checksum does not match)")
                yield content
                number += 1
    except (DatasetError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        why = "it is cut short" if isinstance(error, EOFError) else error
        raise DatasetError(f"{path}: record {number}: {why}; get the file again") from error


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(12)
    plain = len(start) < 2 or masked(start[:8]) == start[8:]  # A length can look like gzip's mark.
    return path.open("rb") if plain or start[:2] != b"\x1f\x8b" else cast(BinaryIO, gzip.open(path))


def shards(
    folder: str | os.PathLike[str], prefix: str | None = None, count: int | None = None
) -> list[Path]:
    """The files {prefix}-00000-of-{n:05d} and so on of a folder, in order.

    Args:
      folder: where they lie.
      prefix: of their names; None: the only one that there is.
      count: how many there are, the first ones; None: all n of them.

    Raises:
      FileNotFoundError: if there is no such folder, or no such file in it.
      DatasetError: if some are missing (`MissingError`) or beyond `count`, or there are files of
        several prefixes or numbers.
    """
    folder = files.expanded(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found: dict[tuple[str, int], dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if match and prefix in (None, match["prefix"]):
            kind = match["prefix"], int(match["of"])
            found.setdefault(kind, {})[int(match["number"])] = path
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
        raise FileNotFoundError(
            f"no files {prefix or 'NAME'}-00000-of-NNNNN in {folder}; it has {there or 'none'}"
        )
    if len(found) > 1:
        kinds = ", ".join(f"{name}-*-of-{of:05d}" for name, of in found)
        raise DatasetError(f"{folder} has files of several kinds, {kinds}: move others away")
    (((name, of), paths),) = found.items()
    wanted = of if count is None else count
    if missing := [number for number in range(wanted) if number not in paths]:
        raise MissingError(
            f"{folder} lacks {len(missing)} of {wanted} files, the first {name}-{missing[0]:05d}-"
            f"of-{of:05d}: get them, since what is left is another dataset"
        )
    if beyond := max(paths) + 1 - wanted:
        raise DatasetError(
            f"{folder} has {beyond + wanted} files {name}-NNNNN-of-{of:05d}, not {wanted}: say "
            f"{beyond + wanted}, or move others away"
        )
    return [paths[number] for number in range(wanted)]


# --- tf.train.Example ---------------------------------------------------------------------------


def example(record: bytes) -> dict[str, Any]:
    """The features of a `tf.train.Example`: each float32 [n], int64 [n], or a list of n bytes.

    Raises:
      DatasetError: if the record is no such message.
    """
    try:
        return _features(_only(memoryview(record), 1))
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise DatasetError(f"a record is no tf.train.Example ({error})") from error


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number that begins at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a message: a number, or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value: Any
            value, at = _varint(message, at)
        else:
            length = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                length, at = _varint(message, at)
            if length is None or at + length > len(message):
                raise ValueError("a field is of no known kind, or cut short")
            value, at = message[at : at + length], at + length
        yield key >> 3, value


def _only(message: memoryview, number: int) -> memoryview:
    """The value of a field, empty if it is not there; one that is there twice is merged."""
    return memoryview(b"".join(value for field, value in _fields(message) if field == number))


def _features(message: memoryview) -> dict[str, Any]:
    entries = (entry for field, entry in _fields(message) if field == 1)
    return {bytes(_only(entry, 1)).decode(): _feature(_only(entry, 2)) for entry in entries}


def _feature(message: memoryview) -> Any:
    """A feature: bytes, floats or whole numbers, of which one is there."""
    result: Any = []
    for kind, content in _fields(message):
        values = [value for field, value in _fields(content) if field == 1]
        if kind == 1:
            result = [bytes(value) for value in values]
        elif kind == 2:  # Packed, or one by one.
            result = np.frombuffer(b"".join(values), "<f4").astype(np.float32)
        elif kind == 3:
            result = np.concatenate([np.zeros(0, np.int64), *map(_whole_numbers, values)])
    return result


def _whole_numbers(values: int | memoryview) -> np.ndarray:
    """One number, or packed ones, as int64."""
    if isinstance(values, int):
        return np.array([values], np.uint64).astype(np.int64)
    data = np.frombuffer(values, np.uint8)
    ends = np.flatnonzero(data < 128)
    if not len(data):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise ValueError("whole numbers are cut short")
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(len(data)) - np.repeat(starts, np.diff(ends, prepend=-1))
    digits = (data & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(digits, starts).astype(np.int64)


def joined(parts: Mapping[str, np.ndarray], steps: int) -> np.ndarray:
    """Flat features of `steps` steps each, side by side in the order of their sorted names.

    Args:
      parts: each [steps * size], step by step.
      steps: how many.

    Returns:
      [steps, sum of the sizes].

    Raises:
      DatasetError: if one has not the same number of values in every step.
    """
    for name, values in parts.items():
        if not len(values) or len(values) % steps:
            raise DatasetError(f"{name} has {len(values)} values in {steps} steps")
    return np.concatenate([parts[name].reshape(steps, -1) for name in sorted(parts)], axis=1)
