"""A DQN on Atari that is recorded, killed and goes on."""

import dataclasses
import itertools

import numpy as np
import pytest

from unplugged import atari, atari_dqn, datasets, frames
from unplugged.recording.atari_dqn import _Rest, _Rows

TINY = atari_dqn.Settings(
    environments=2, checkpoint=80, channels=(2, 2, 2), hidden=4, batch_size=3, learn_after=20,
    target_interval=3,
)  # fmt: skip


def filled():
    """Two environments: episodes of 5 and 3 rows, and of 2 and 4, and a row of others each."""
    rows, rng = _Rows(2, 12), np.random.default_rng(0)
    rows.frames[:] = rng.integers(0, 256, [2, 12, 1, 1])
    rows.action[:], rows.reward[:] = rng.integers(0, 4, [2, 12]), rng.normal(size=[2, 12])
    for environment, lengths in enumerate(((5, 3, 4), (2, 4, 6))):
        edges = np.cumsum([0, *lengths])
        for i, (a, b) in enumerate(itertools.pairwise(edges)):
            rows.begin[environment, a:b] = a
            if i < 2:
                (rows.terminated if i == 0 else rows.cut)[environment, b - 1] = True
    return rows


def test_what_is_replayed_is_what_was_recorded():
    rows = filled()
    images = [np.full([84, 84], 7, np.uint8)] * 2
    rests = [_Rest(images, [1, 2], [0.5, 1.0], True), _Rest(images[:1], [3], [1.0], False)]
    found = [frames.Episode(*one, 0, 0) for e in range(2) for one in rows.episodes(e, 0, rests[e])]
    assert [len(one.action) for one in found] == [5, 3, 6, 2, 4, 7]
    assert [one.terminated for one in found] == [True, False, True, True, False, False]
    np.testing.assert_array_equal(found[2].frames[:4], rows.frames[0, 8:])
    again = _Rows(2, 24)
    again.refill(found, 12)
    for name in ("frames", "action", "reward", "terminated", "begin"):
        np.testing.assert_array_equal(getattr(again, name)[:, :12], getattr(rows, name))
    rows.cut[:, -1] = True  # What comes next there is another game.
    np.testing.assert_array_equal(again.cut[:, :12], rows.cut)


def test_batches_never_cross_an_episode():
    rows = filled()
    stacks, following, action, reward, discount, weight = rows.batches(
        0, 11, 3, dataclasses.replace(TINY, batch_size=50), np.random.default_rng(0)
    )
    assert stacks.shape == (3, 50, 4, 84, 84) and stacks.dtype == np.uint8
    of = {rows.reward[e, r]: (e, r) for e in range(2) for r in range(12)}
    for i in np.ndindex(3, 50):
        e, r = of[reward[i]]
        begin = rows.begin[e, r]
        expected = [rows.frames[e, max(r - back, begin), 0, 0] for back in (3, 2, 1, 0)]
        np.testing.assert_array_equal(stacks[i][:, 0, 0], expected)
        assert action[i] == rows.action[e, r]
        assert discount[i] == (0.0 if rows.terminated[e, r] else np.float32(0.99))
        assert weight[i] == (not rows.cut[e, r])
        if weight[i] and discount[i]:
            expected = [rows.frames[e, max(r + 1 - back, begin), 0, 0] for back in (3, 2, 1, 0)]
            np.testing.assert_array_equal(following[i][:, 0, 0], expected)


@pytest.mark.slow
def test_a_recording_that_is_killed_goes_on_to_the_same(tmp_path, monkeypatch):
    pytest.importorskip("ale_py")
    monkeypatch.setattr(atari, "LENGTH", 70)  # so that episodes end soon
    common = dict(transitions=161, seed=1, settings=TINY)
    whole = atari_dqn.record("breakout", folder=tmp_path / "whole", **common)
    assert whole.metadata["transitions_seen"] == 240 <= whole.num_transitions
    assert whole.metadata["last_row"] == frames.TRANSITION
    datasets.statistics(whole, np.zeros(1), 1)
    assert (whole.table.rows <= 70).all() and set(np.unique(whole.reward)) <= {-1.0, 0.0, 1.0}

    save, at = frames.files.write_whole, iter(range(10))

    def killed(path, content):
        if "agent" in str(path) and next(at) == 1:
            raise KeyboardInterrupt
        return save(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(frames.files, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            atari_dqn.record("breakout", folder=tmp_path / "killed", **common)
    assert [x.name for x in (tmp_path / "killed").glob("shard-*")] == ["shard-00000"]
    again = atari_dqn.record("breakout", folder=tmp_path / "killed", **common)
    assert again.checksum == whole.checksum
    with pytest.raises(datasets.DatasetError, match="another conversion: environment is 'break"):
        atari_dqn.record("pong", folder=tmp_path / "killed", **common)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="unknown Atari game 'pongg': did you mean 'pong'"):
        atari_dqn.record("pongg", transitions=1, seed=0, folder=tmp_path)
    with pytest.raises(ValueError, match="transitions must lie in"):
        atari_dqn.record("pong", transitions=0, seed=0, folder=tmp_path)
