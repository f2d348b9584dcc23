"""A recording that is not whole yet, on disk: a kill costs the last stretch, not all before it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unplugged.common import files

_INDEX = "index.json"
Arrays = Mapping[str, np.ndarray]


class Partial:
    """Stretches of a recording, one after the other, and the recorder's state after the last.

    Each is an .npz file without pickles. The index says whose recording it is and holds the
    SHA-256 of every other file. It is written last and replaces the one before, so that a kill at
    any moment leaves the stretches that it names.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]):
        """Nothing is kept if `folder` is None; `identity` is all that a recording depends on."""
        self._kept = folder is not None
        self._folder = Path(folder or os.devnull)
        self._identity = json.loads(json.dumps(identity))
        self._parts: list[str] = []

    def restore(self) -> tuple[list[Arrays], Arrays] | None:
        """The stretches so far and the state after them; None if there are none to go on with.

        Those of another recording, or with a file that is not as it was written, are not used, and
        one line says so; the first `save` removes them.
        """
        if not self._kept or not (self._folder / _INDEX).exists():
            return None
        try:
            index = json.loads((self._folder / _INDEX).read_text())
            was, parts = index["identity"], index["parts"]
            if was != self._identity:
                keys = [key for key, now in self._identity.items() if was.get(key) != now]
                self._say(f"of another recording (other {', '.join(keys)})")
                return None
            recorded = [self._read(f"part_{i}.npz", digest) for i, digest in enumerate(parts)]
            state = self._read(f"state_{len(parts)}.npz", index["state"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._say(f"damaged ({error})")
            return None
        self._parts = parts
        return recorded, state

    def save(self, part: Arrays, state: Arrays) -> None:
        """Adds a stretch and the state after it, both or none."""
        if not self._kept:
            return
        number = len(self._parts)
        if number == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        # What happened is mostly repetition; what was learned does not get smaller.
        self._parts.append(self._write(f"part_{number}.npz", part, np.savez_compressed))
        digest = self._write(f"state_{number + 1}.npz", state, np.savez)
        index = {"identity": self._identity, "parts": self._parts, "state": digest}
        files.write_whole(self._folder / _INDEX, json.dumps(index))
        for path in self._folder.glob("state_*.npz"):
            if path.name != f"state_{number + 1}.npz":
                path.unlink(missing_ok=True)

    def _say(self, why: str) -> None:
        print(f"{self._folder} is {why}: it is not used, and recording begins anew", flush=True)

    def _read(self, name: str, digest: str) -> Arrays:
        content = (self._folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{name} is not as it was written")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)

    def _write(self, name: str, arrays: Arrays, save: Callable[..., None]) -> str:
        buffer = io.BytesIO()
        save(buffer, **arrays)
        files.write_whole(self._folder / name, buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()
