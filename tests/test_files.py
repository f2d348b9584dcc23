import threading
import time

import pytest

from unplugged import files


def test_a_lock_is_held_once(tmp_path):
    with files.lock(tmp_path / "lock", patience=0.0, busy="mine"):
        with pytest.raises(files.LockedError, match="mine"):
            with files.lock(tmp_path / "lock", patience=0.2, busy="mine"):
                pass
    with files.lock(tmp_path / "lock", patience=0.0, busy="mine"):
        pass


def test_a_lock_is_waited_for(tmp_path, capsys):
    held, order = threading.Event(), []

    def hold():
        with files.lock(tmp_path / "lock", patience=0.0, busy=""):
            held.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with files.lock(tmp_path / "lock", patience=float("inf"), busy="waiting for it"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "waiting for it\n"


def test_a_file_appears_only_when_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    files.write_whole(path, "old")

    def fail(*arguments):
        raise OSError("no")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert files.writable_folder("~/runs") == tmp_path / "runs"
    files.write_whole("~/runs/a.txt", "a")
    with files.lock("~/runs/lock", patience=0.0, busy=""):
        assert {p.name for p in tmp_path.rglob("*")} == {"runs", "a.txt", "lock"}
    assert files.expanded("a/~/b").as_posix() == "a/~/b"
