import re

import numpy as np
import pytest

from unplugged import collect, datasets, dqn, files
from unplugged.recording import partial

SMALL = dqn.Settings(
    environments=4, channels=4, hidden=16, batch_size=8, replay=400, learn_after=100
)


def bsuite(folder=None, seed=3):
    return collect.train_dqn("catch", episodes=40, noise=0.2, seed=seed, partial=folder)


def memory(folder=None):
    return collect.train_dqn("memory_len_2", episodes=90, noise=0.0, seed=3, partial=folder)


def compiled(folder=None):
    return dqn.train("breakout", transitions=1_600, seed=1, settings=SMALL, partial=folder)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Saves every 100 steps, of which those recordings have about 400."""
    monkeypatch.setattr(collect, "SAVE_EVERY", 100)
    monkeypatch.setattr(dqn, "CHUNK", 100)


@pytest.fixture
def killed_after(monkeypatch):
    """Makes recording end at its n-th file, which is never written."""
    write = files.write_whole

    def arrange(number):
        left = iter(range(number))

        def write_or_die(path, content):
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(files, "write_whole", write_or_die)

    yield arrange


@pytest.mark.parametrize(
    ("record", "files_written"),
    [
        # Killed within a stretch: before the first of its three files, and after each.
        (bsuite, (3, 1, 5)),
        (memory, (4,)),
        pytest.param(compiled, (5,), marks=pytest.mark.slow),
    ],
)
def test_cut_off_it_goes_on_to_the_same_bytes(record, files_written, killed_after, tmp_path):
    datasets.save(record(), tmp_path / "whole.npz")
    folder = tmp_path / "partial"
    for number in files_written:
        killed_after(number)
        with pytest.raises(KeyboardInterrupt):
            record(folder)
    killed_after(1_000)
    assert (folder / "index.json").exists()
    datasets.save(record(folder), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_kept_recording_is_not_played_again_by_the_agent(tmp_path, monkeypatch):
    whole = bsuite(tmp_path / "partial")
    monkeypatch.setattr(collect.dqn.DQN, "select_action", None)
    assert datasets.checksum(bsuite(tmp_path / "partial")) == datasets.checksum(whole)


def keep(folder, seed=1):
    kept = partial.Partial(folder, {"seed": seed})
    for number in range(3):
        kept.save({"action": np.arange(5) + number}, {"weights": np.full(4, number)})


def test_another_recording_is_not_gone_on_with(tmp_path, capsys):
    keep(tmp_path)
    assert partial.Partial(tmp_path, {"seed": 2}).restore() is None
    assert capsys.readouterr().out == (
        f"{tmp_path} is of another recording (other seed): it is not used, and recording begins "
        "anew\n"
    )
    keep(tmp_path, seed=2)  # takes its place, and nothing of it is left
    assert partial.Partial(tmp_path, {"seed": 2}).restore() is not None


def test_what_was_kept_comes_back(tmp_path):
    keep(tmp_path)
    parts, state = partial.Partial(tmp_path, {"seed": 1}).restore()
    assert [part["action"][0] for part in parts] == [0, 1, 2]
    np.testing.assert_array_equal(state["weights"], [2, 2, 2, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.json", "part_0.npz", "part_1.npz", "part_2.npz", "state_3.npz",
    ]  # fmt: skip


def test_a_change_of_any_byte_is_noticed(tmp_path, capsys):
    keep(tmp_path)
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for at in rng.choice(len(content), 60, replace=False):
            changed = bytearray(content)
            changed[at] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
            found = partial.Partial(tmp_path, {"seed": 1}).restore()
            said = capsys.readouterr().out
            assert found is None, (path, at)
            assert said.endswith("it is not used, and recording begins anew\n")
            assert said.count("\n") == 1
        path.write_bytes(content[: len(content) // 2])
        assert partial.Partial(tmp_path, {"seed": 1}).restore() is None
        assert "damaged" in capsys.readouterr().out
        path.write_bytes(content)
    assert partial.Partial(tmp_path, {"seed": 1}).restore() is not None


def test_an_environment_that_is_not_its_seed_is_refused(tmp_path, monkeypatch):
    bsuite(tmp_path / "partial")
    make = collect.environments.make
    monkeypatch.setattr(
        collect.environments, "make", lambda *names, seed, noise: make(*names, seed=9, noise=noise)
    )
    expected = "does not play its episodes as before: delete " + re.escape(
        str(tmp_path / "partial")
    )
    with pytest.raises(RuntimeError, match=expected):
        bsuite(tmp_path / "partial")
    # The advice.
    for path in (tmp_path / "partial").iterdir():
        path.unlink()
    assert bsuite(tmp_path / "partial").num_episodes == 40
