"""Arrays by name in a .safetensors file: a JSON header with their places, then their bytes.

The format is Hugging Face's (github.com/huggingface/safetensors), which other tools read. Nothing
in it can be executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import numpy as np

from unplugged.common import files

_KINDS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32,
    "U64": np.uint64, "BOOL": np.bool_,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}


class SafetensorsError(ValueError):
    """A file that is none, or was cut short or altered."""


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a file with these arrays of numbers."""
    header, parts, begin = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, begin + len(data)],
        }
        parts.append(data)
        begin += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Data begin at a multiple of 8.
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
      SafetensorsError: if places, shapes and sizes do not agree.
    """
    content = files.expanded(path).read_bytes()
    size = int.from_bytes(content[:8], "little")
    found = {}
    try:
        header = json.loads(content[8 : 8 + size])
        header.pop("__metadata__", None)
        data, used = content[8 + size :], 0
        for name, of in header.items():
            begin, end = of["data_offsets"]
            kind = np.dtype(_KINDS[of["dtype"]]).newbyteorder("<")
            array = np.frombuffer(data[begin:end], kind).reshape(of["shape"])
            found[name] = array.astype(kind.newbyteorder("="))
            used += end - begin
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SafetensorsError(f"{path} is no whole .safetensors file ({error})") from error
    if used != len(data):
        raise SafetensorsError(f"{path} has {len(data)} bytes of data, and its header {used}")
    return found
