"""Files that appear only when whole, folders that are checked before work begins, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder in place of a leading `~`, as a shell would read it."""
    return Path(os.path.expanduser(path))


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file beside its place and renames it, so that no half of it is ever seen."""
    path = expanded(path)
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
    path = expanded(path)
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
def lock(path: str | os.PathLike[str], *, patience: float, busy: str) -> Iterator[int]:
    """Holds a lock file; the system frees it when its holder ends, however it ends.

    Args:
      path: the lock file.
      patience: seconds to wait for the lock if somebody else holds it; `busy` is printed
        before a wait without end.
      busy: what to say if somebody else holds it.

    Yields:
      The open file descriptor, which a child process may inherit to keep the lock.

    Raises:
      LockedError: if the lock is still held when patience ends.
    """
    handle = os.open(expanded(path), os.O_RDWR | os.O_CREAT, 0o644)
    begin, said = time.monotonic(), False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - begin >= patience:
                    raise LockedError(busy) from None
            if patience == float("inf") and not said:
                print(busy, flush=True)
                said = True
            time.sleep(0.1)
        yield handle
    finally:
        os.close(handle)
