"""Files that appear only when whole, folders that are checked before work begins, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file beside its place and renames it, so that no half of it is ever seen."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder if need be and returns it.

    Raises:
      PermissionError: if nothing can be written there, before any work is done.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to the folder {path}: {error.strerror}") from error
    return path


class LockedError(RuntimeError):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, wait: bool, busy: str) -> Iterator[int]:
    """Holds a lock file; the system frees it when its holder ends, however it ends.

    Args:
      path: the lock file.
      wait: whether to wait for the lock, printing `busy` once, or to raise.
      busy: what to say if somebody else holds it.

    Yields:
      The open file descriptor, which a child process may inherit to keep the lock.

    Raises:
      LockedError: if the lock is held and `wait` is False.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LockedError(busy) from None
            print(busy, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)
