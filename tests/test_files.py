import os
import stat
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


def test_a_file_keeps_the_users_umask_and_is_on_the_disk_before_it_has_its_name(
    tmp_path, monkeypatch
):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: [done.append("sync"), sync(handle)])
    monkeypatch.setattr(os, "replace", lambda *names: [done.append("name"), replace(*names)])
    for mask, mode in ((0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            files.write_whole(tmp_path / "file", "x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert done == ["sync", "name", "sync"] * 2


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / f"results.csv.1-ab{files.TEMPORARY}").write_text("half")
    (tmp_path / f"40{files.TEMPORARY}").mkdir()
    (tmp_path / f"40{files.TEMPORARY}" / "part").write_text("half")
    (tmp_path / "results.csv").write_text("whole")
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_another_users_lock_says_whose_it_is(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with files.lock(path, patience=0.0, busy="taken"):
        assert str(os.getpid()) in path.read_text()
        monkeypatch.setattr(files, "_user", lambda number: "bo")
        held = rf"^taken \(it is .*'s, process {os.getpid()} on "
        with pytest.raises(files.LockedError, match=held):
            with files.lock(path, patience=0.0, busy="taken"):
                pass
    monkeypatch.setattr(files, "_user", lambda number: f"user-{number}")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    whose = f"belongs to user-{path.stat().st_uid}, and you are user-{os.getuid()}; use a folder of"
    with pytest.raises(PermissionError, match=whose):
        with files.lock(path, patience=0.0, busy="taken"):
            pass
