"""Files that appear only when whole, folders that are checked before work begins, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp"  # how the names of unfinished files and folders end


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder in place of a leading `~`, as a shell would read it."""
    return Path(os.path.expanduser(path))


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file beside its place and renames it, so that no half of it is ever seen.

    It is on the disk before it has its name, so that the machine may stop too. Its permissions are
    the user's umask.
    """
    path = expanded(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems have none.
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what a killed process left half-written; to be called under the folder's lock."""
    for path in folder.glob(f"*{TEMPORARY}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder if need be and returns it; "~" is the user's home.

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


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # Of another machine, or of a container without names.
        return f"user {number}"


def _open_lock(path: str | os.PathLike[str]) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        try:
            owner = f"it belongs to {_user(os.stat(path).st_uid)}"
        except OSError:
            owner = "its folder belongs to somebody else"
        raise PermissionError(
            f"cannot take the lock {os.fspath(path)}: {owner}, and you are {_user(os.getuid())}; "
            "use a folder of your own"
        ) from error


def _holder(handle: int) -> str:
    """Who another user is that holds a lock, as " (by ...)"; nothing if it is the same one."""
    user, _, rest = os.pread(handle, 1_000, 0).decode(errors="replace").partition("\n")
    return f" (it is {user}'s, {rest.strip()})" if user and user != _user(os.getuid()) else ""


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, patience: float, busy: str) -> Iterator[int]:
    """Holds a lock file; the system frees it when its holder ends, however it ends.

    The file says who holds it.

    Args:
      path: the lock file.
      patience: seconds to wait for the lock if somebody else holds it; `busy` is printed
        before a wait without end.
      busy: what to say if somebody else holds it; who, if it is another user, is added.

    Yields:
      The open file descriptor, which a child process may inherit to keep the lock.

    Raises:
      LockedError: if the lock is still held when patience ends.
      PermissionError: if the file is another user's; it says whose.
    """
    handle = _open_lock(expanded(path))
    begin, said = time.monotonic(), False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - begin >= patience:
                    raise LockedError(f"{busy}{_holder(handle)}") from None
            if patience == float("inf") and not said:
                print(f"{busy}{_holder(handle)}", flush=True)
                said = True
            time.sleep(0.1)
        os.ftruncate(handle, 0)
        here = f"process {os.getpid()} on {socket.gethostname()}"
        os.pwrite(handle, f"{_user(os.getuid())}\n{here}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)
