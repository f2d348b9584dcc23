"""RL Unplugged's Atari and DQN Replay, from files of their formats that are written here."""

import gzip
import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import tfrecord_writer as writer
from unplugged import dqn_replay, frames, importers, rlu_atari, tfrecord
from unplugged.datasets import DatasetError

SIZE = (84, 84)


def png(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def images(rows, seed=0, size=SIZE):
    """Frames that differ, of few values, so that they are small."""
    rng = np.random.default_rng([seed, rows])
    return np.repeat(rng.integers(1, 256, [rows, 1, size[1]], np.uint8), size[0], axis=1)


def record(rows=5, seed=0, ended=True, last=0.0, claimed=None, checkpoint=0, number=0, **changes):
    """An episode as the files hold it; `last` is its last reward, `claimed` its return."""
    reward = np.array([*((np.arange(rows - 1) + seed) % 3 - 1.0), last])
    return {
        "checkpoint_idx": np.array([checkpoint]),
        "episode_idx": np.array([number]),
        "episode_return": np.array([99.0]),
        "clipped_episode_return": np.array([reward.sum() if claimed is None else claimed]),
        "observations": [png(frame) for frame in images(rows, seed)],
        "actions": (np.arange(rows) + seed) % 6,
        "unclipped_rewards": reward,
        "clipped_rewards": reward,
        "discounts": np.array([*np.ones(rows - 1), 0.0 if ended else 1.0]),
        **changes,
    }


def tfds(features):
    """The same in TFDS's form."""
    rows = len(features["actions"])
    ended = features["discounts"][-1] == 0.0
    return {
        "checkpoint_id": features["checkpoint_idx"],
        "episode_id": features["episode_idx"],
        "episode_return": features["episode_return"],
        "steps/observation": features["observations"],
        "steps/action": features["actions"],
        "steps/reward": features["clipped_rewards"],
        "steps/discount": np.append(features["discounts"][1:], 0.0 if ended else 1.0),
        "steps/is_first": np.eye(1, rows, dtype=int)[0],
        "steps/is_last": np.eye(1, rows, rows - 1, dtype=int)[0],
        "steps/is_terminal": np.eye(1, rows, rows - 1, dtype=int)[0] * ended,
    }


def write(root, shards, game="Pong", run=1):
    """Files of a game: a list of records a shard."""
    for number, records in enumerate(shards):
        writer.write(
            root / game / f"run_{run}-{number:05d}-of-{len(shards):05d}",
            [writer.example(one) for one in records],
        )
    return root


def write_tfds(root, checkpoints, game="Pong", run=1):
    """Two files a checkpoint."""
    folder = root / f"{game}_run_{run}" / "1.1.0"
    for number, records in enumerate(checkpoints):
        stem = f"rlu_atari_checkpoints_ordered-checkpoint_{number:02d}.tfrecord"
        half = -(-len(records) // 2)
        for part, some in enumerate((records[:half], records[half:])):
            path = folder / f"{stem}-{part:05d}-of-00002"
            writer.write(path, [writer.example(tfds(one)) for one in some], compressed=False)
    return root


def shards(count=2, episodes=3, **options):
    return [
        [record(4 + e, 10 * s + e, checkpoint=s, number=e, **options) for e in range(episodes)]
        for s in range(count)
    ]


def all_of(source, share=1.0):
    return [list(source.episodes(number, share)) for number in range(len(source.shards))]


def test_episodes_are_read_as_they_are(tmp_path):
    source = rlu_atari.source(write(tmp_path, shards()), "pong")
    assert source.shards == ["run_1-00000-of-00002", "run_1-00001-of-00002"]
    assert source.facts["environment"] == "pong" and source.facts["num_actions"] == 6
    found = all_of(source)
    assert [len(of) for of in found] == [3, 3]
    one = found[1][2]
    assert (one.checkpoint, one.number, one.terminated, one.last) == (1, 2, True, None)
    np.testing.assert_array_equal(one.frames, images(6, 12))
    np.testing.assert_array_equal(one.action, [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(one.reward, [-1, 0, 1, -1, 0, 0])


def test_the_games_own_folder_does_too(tmp_path):
    write(tmp_path, shards(), game="MsPacman", run=3)
    source = rlu_atari.source(tmp_path / "MsPacman", "ms_pacman", run=3)
    assert source.facts["run"] == 3 and len(source.shards) == 2


def test_tfds_form_is_the_same_data(tmp_path):
    of = shards()
    one = all_of(rlu_atari.source(write(tmp_path / "a", of), "pong"))
    other = all_of(rlu_atari.source_tfds(write_tfds(tmp_path / "b", of), "pong", checkpoints=2))
    for x, y in zip(itertools.chain(*one), itertools.chain(*other), strict=True):
        for a, b in zip(x, y):
            np.testing.assert_array_equal(a, b)


def test_a_share_is_the_first_episodes_of_each_checkpoint(tmp_path):
    folder = write(tmp_path, shards(episodes=5))
    for share, kept in ((0.1, 1), (0.4, 2), (1.0, 5)):
        found = all_of(rlu_atari.source(folder, "pong"), share)
        assert [[one.number for one in of] for of in found] == [list(range(kept))] * 2


def test_a_download_may_be_partial_if_that_is_said(tmp_path):
    folder = write(tmp_path, shards(5))
    whole = all_of(rlu_atari.source(folder, "pong"))
    for number in (3, 4):
        (folder / "Pong" / f"run_1-{number:05d}-of-00005").unlink()
    with pytest.raises(DatasetError, match=r"lacks 2 of 5 files.* say how many .*\(checkpoints\)"):
        rlu_atari.source(folder, "pong")
    found = importers.source("rl_unplugged", folder, "pong", checkpoints=3)
    assert len(found.shards) == 3
    for x, y in zip(itertools.chain(*all_of(found)), itertools.chain(*whole[:3]), strict=True):
        np.testing.assert_array_equal(x.frames, y.frames)
    with pytest.raises(DatasetError, match=r"has 3 files .*, not 2: say 3, or move others away"):
        rlu_atari.source(folder, "pong", checkpoints=2)
    with pytest.raises(DatasetError, match="lacks 6 of 9 files, the first run_1-00003-of-00005"):
        rlu_atari.source(folder, "pong", checkpoints=9)
    (folder / "Pong" / "run_1-00001-of-00005").unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 3 files, the first run_1-00001-of-00005"):
        rlu_atari.source(folder, "pong", checkpoints=3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"last": 0.0}, None),
        ({"last": 1.0}, frames.TRANSITION),
        ({"last": 1.0, "claimed": -1.0}, frames.FRAME),
        ({"last": 1.0, "claimed": 7.0}, frames.UNCLEAR),
        ({"last": 0.0, "claimed": 7.0}, frames.UNCLEAR),
        ({"last": 1.0, "ended": False}, None),  # Nothing is known of one that was cut off.
        ({"last": 1.0, "claimed": 7.0, "ended": False}, None),
    ],
)
def test_the_last_reward_shows_what_the_last_row_is(tmp_path, options, expected):
    source = rlu_atari.source(write(tmp_path, [[record(**options)]]), "pong")
    assert next(iter(source.episodes(0, 1.0))).last == expected


@pytest.mark.parametrize(
    ("returned", "expected"),
    [(0.0, frames.TRANSITION), (-1.0, frames.FRAME), (99.0, frames.TRANSITION)],
)
def test_in_tfds_form_the_return_tells_if_it_is_of_these_rewards(tmp_path, returned, expected):
    one = record(last=1.0, episode_return=np.array([returned]))  # Without the last they make -1.
    source = rlu_atari.source_tfds(write_tfds(tmp_path, [[one, one]]), "pong", checkpoints=1)
    assert [of.last for of in source.episodes(0, 1.0)] == [expected] * 2


def test_an_episode_at_the_limit_of_steps_is_cut_off(tmp_path, monkeypatch):
    folder = write(tmp_path, [[record(5, last=1.0), record(6, last=1.0)]])
    monkeypatch.setattr(rlu_atari.atari, "LENGTH", 6)
    short, long = all_of(rlu_atari.source(folder, "pong"))[0]
    assert (short.terminated, short.last) == (True, frames.TRANSITION)
    assert (long.terminated, long.last) == (False, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros(3, int)}, "has 5 observations, 3 actions, 5 rewards and 5 disc"),
        ({"clipped_rewards": np.full(5, 4.0)}, "has a reward 4, and clipped ones are within 1"),
        ({"o_t": [b""]}, "is a shuffled transition.*take the folder atari_episodes_ordered"),
        ({"observations": [b"no"] * 5}, "frame 0 is no PNG, or a damaged one"),
        ({"observations": [png(np.ones((84, 80 + i % 2), np.uint8)) for i in range(5)]},
         "has frames of 84 x 80 and 84 x 81, expected one size"),
    ],
)  # fmt: skip
def test_another_record_is_named(tmp_path, changes, message):
    folder = write(tmp_path, [[record(), record(**changes)]])
    with pytest.raises(DatasetError, match=f"run_1-00000-of-00001: record 1: .*{message}"):
        all_of(rlu_atari.source(folder, "pong"))


@pytest.mark.parametrize("share", [1.0, 0.3])  # With a share too the whole file is looked at.
def test_a_damaged_shard_is_refused(tmp_path, share):
    folder = write(tmp_path, shards(1))
    path = folder / "Pong" / "run_1-00000-of-00001"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DatasetError, match=r"00001: record .*get the file again"):
        all_of(rlu_atari.source(folder, "pong"), share)
    content = bytearray(gzip.decompress(whole))
    content[-300] ^= 1
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DatasetError, match=r"record 2: it is damaged .its checksum"):
        all_of(rlu_atari.source(folder, "pong"), share)


def test_what_is_missing_is_named(tmp_path):
    folder = write(tmp_path, shards())
    with pytest.raises(ValueError, match="unknown Atari game 'pongg': did you mean 'pong'"):
        rlu_atari.source(folder, "pongg")
    with pytest.raises(FileNotFoundError, match=r"no folder Breakout in .*; it has Pong"):
        rlu_atari.source(folder, "breakout")
    with pytest.raises(FileNotFoundError, match="no files run_2-00000-of-NNNNN"):
        rlu_atari.source(folder, "pong", run=2)
    with pytest.raises(ValueError, match=r"run must lie in \[1, 5\], got 6"):
        rlu_atari.source(folder, "pong", run=6)
    (folder / "Pong" / "run_1-00000-of-00002").unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 2 files, the first run_1-00000"):
        rlu_atari.source(folder, "pong")


def test_what_is_missing_in_tfds_form_is_named(tmp_path):
    folder = write_tfds(tmp_path, shards(3))
    place = folder / "Pong_run_1" / "1.1.0"
    for path in place.glob("*checkpoint_01*00000-of*"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"lacks 1 of 2 files, the first .*checkpoint_01"):
        rlu_atari.source_tfds(folder, "pong", checkpoints=3)
    for path in place.glob("*checkpoint_01*"):
        path.unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 3 checkpoints, the first 1: get them, or"):
        rlu_atari.source_tfds(folder, "pong", checkpoints=3)
    with pytest.raises(DatasetError, match="has 3 checkpoints, not 2: say 3, or move others away"):
        rlu_atari.source_tfds(folder, "pong", checkpoints=2)
    with pytest.raises(DatasetError, match="lacks 48 of 50 checkpoints, the first 1"):
        rlu_atari.source_tfds(folder, "pong")


def test_tfds_own_account_of_its_files_is_kept_to(tmp_path):
    folder = write_tfds(tmp_path, shards(2, episodes=4))
    place = folder / "Pong_run_1" / "1.1.0"
    (folder / "Pong_run_1" / "incomplete.1.1.0").mkdir()
    info = {"splits": [{"name": f"checkpoint_{n:02d}", "shardLengths": ["2", "2"]} for n in (0, 1)]}
    (place / "dataset_info.json").write_text(json.dumps(info))
    assert [len(of) for of in all_of(rlu_atari.source_tfds(folder, "pong"))] == [4, 4]
    stem = "rlu_atari_checkpoints_ordered-checkpoint_01.tfrecord"
    path = place / f"{stem}-00001-of-00002"
    whole = path.read_bytes()
    (first, *_) = tfrecord.records(path)
    path.write_bytes(whole[: 16 + len(first)])  # Cut where a record ends.
    with pytest.raises(DatasetError, match=r"00001-of-00002 has 1 records, and .* says 2; get the"):
        all_of(rlu_atari.source_tfds(folder, "pong"))
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="00001-of-00002: it is empty; get the file again"):
        all_of(rlu_atari.source_tfds(folder, "pong"))
    for file in place.glob("*checkpoint_01*"):
        file.unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 2 checkpoints, the first 1"):
        rlu_atari.source_tfds(folder, "pong")
    (place / "dataset_info.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset_info\.json is damaged"):
        rlu_atari.source_tfds(folder, "pong")


# --- DQN Replay ---------------------------------------------------------------------------------


def gz(path, array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(buffer.getvalue()))


def replay(root, number, lengths, rows=30, added=None, ends=(), begin=3):
    """A file: episodes of some lengths with padding, the last cut off by what comes after."""
    place = root / "Pong" / "1" / "replay_logs"
    columns = {"observation": [], "action": [], "reward": [], "terminal": []}
    for i, length in enumerate(lengths):
        padding = begin if i == 0 else 3
        columns["observation"].append(
            np.concatenate([np.zeros([padding, *SIZE], np.uint8), images(length, 10 * number + i)])
        )
        columns["action"].append([0] * padding + [1] * length)
        columns["reward"].append([0] * padding + [0.5] * length)
        columns["terminal"].append([0] * (padding + length - 1) + [int(i < len(lengths) - 1)])
    kinds = {
        "observation": np.uint8,
        "action": np.int32,
        "reward": np.float32,
        "terminal": np.uint8,
    }
    for name, parts in columns.items():
        whole = np.concatenate(parts).astype(kinds[name])
        stale = np.full([rows - len(whole), *whole.shape[1:]], 5, kinds[name])
        gz(place / f"$store$_{name}_ckpt.{number}.gz", np.concatenate([whole, stale]))
    added = number * rows + rows - 1 if added is None else added
    gz(place / f"add_count_ckpt.{number}.gz", np.array(added))
    return root


def test_replay_logs_without_padding_and_stale_rows(tmp_path):
    replay(tmp_path, 0, [5, 7, 8])  # 9 + 20 rows and a stale one
    replay(tmp_path, 1, [9, 6], begin=1, added=30 + 19)  # partial
    source = dqn_replay.source(tmp_path, "pong", checkpoints=1)
    first, second = all_of(source)
    assert [len(one.action) for one in first] == [5, 7, 8]
    assert [one.terminated for one in first] == [True, True, False]
    assert [len(one.action) for one in second] == [9, 6]
    assert {one.last for one in first + second} == {frames.TRANSITION}
    np.testing.assert_array_equal(first[1].frames, images(7, 1))
    np.testing.assert_array_equal(second[1].frames, images(6, 11))
    np.testing.assert_array_equal(second[0].reward, np.full(9, 0.5))
    shared = all_of(source, 0.4)
    assert [[one.number for one in of] for of in shared] == [[0], [0]]


def test_the_end_by_the_time_limit_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(dqn_replay.atari, "LENGTH", 7)
    (found,) = all_of(dqn_replay.source(replay(tmp_path, 0, [5, 7, 8]), "pong", checkpoints=1))
    assert [one.terminated for one in found] == [True, False, False]


def test_a_time_limit_across_two_files_is_none(tmp_path, monkeypatch):
    """8 steps in the first file, one lost, and 3 in the second, where the limit is."""
    replay(tmp_path, 0, [5, 7, 8])
    replay(tmp_path, 1, [3, 6], begin=0, added=30 + 12)
    for limit, terminated in ((12, False), (13, True)):
        monkeypatch.setattr(dqn_replay.atari, "LENGTH", limit)
        _, second = all_of(dqn_replay.source(tmp_path, "pong", checkpoints=2))
        assert [one.terminated for one in second] == [terminated, False]
    # An episode that begins where the file does is as long as it is.
    replay(tmp_path, 1, [3, 6], begin=3, added=30 + 15)
    monkeypatch.setattr(dqn_replay.atari, "LENGTH", 12)
    _, second = all_of(dqn_replay.source(tmp_path, "pong", checkpoints=2))
    assert [one.terminated for one in second] == [True, False]


def test_a_last_file_without_additions_is_left_out(tmp_path):
    replay(tmp_path, 0, [5, 7, 8])
    for added in (0, 29):  # What the first file says.
        replay(tmp_path, 1, [5, 7, 8], added=added)
        (found,) = all_of(dqn_replay.source(tmp_path, "pong", checkpoints=1))
        assert [len(one.action) for one in found] == [5, 7, 8]
    count = tmp_path / "Pong" / "1" / "replay_logs" / "add_count_ckpt.1.gz"
    for wrong in (np.array([]), np.array(-1), np.array(3.5)):
        gz(count, wrong)
        with pytest.raises(DatasetError, match=r"add_count_ckpt.1.gz: it holds .*expected a count"):
            dqn_replay.source(tmp_path, "pong", checkpoints=1)


def test_damaged_or_missing_replay_logs_are_named(tmp_path):
    replay(tmp_path, 0, [5, 7, 8])
    place = tmp_path / "Pong" / "1" / "replay_logs"
    path = place / "$store$_observation_ckpt.0.gz"
    source, whole = dqn_replay.source(tmp_path, "pong", checkpoints=1), path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(DatasetError, match=r"observation_ckpt.0.gz: it is cut short; get the fil"):
        all_of(source)
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # gzip's own checksum
    path.write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"observation_ckpt.0.gz: CRC check failed"):
        all_of(source, 0.3)
    reward = place / "$store$_reward_ckpt.0.gz"
    gz(reward, np.full(30, 50.0, np.float32))
    with pytest.raises(DatasetError, match=r"reward_ckpt.0.gz: has a reward 50, and clipped ones"):
        all_of(source)
    with pytest.raises(
        DatasetError, match=r"lacks \$store\$_observation_ckpt.1.gz: get it.*or say"
    ):
        dqn_replay.source(tmp_path, "pong")
    reward.unlink()
    with pytest.raises(DatasetError, match=r"lacks \$store\$_reward_ckpt.0.gz: get it"):
        dqn_replay.source(tmp_path, "pong", checkpoints=1)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*Pong/2/replay_logs"):
        dqn_replay.source(tmp_path, "pong", run=2)


def test_padding_that_is_none_is_an_error(tmp_path):
    replay(tmp_path, 0, [5, 7], added=18)
    path = tmp_path / "Pong" / "1" / "replay_logs" / "$store$_action_ckpt.0.gz"
    gz(path, np.ones(30, np.int32))
    with pytest.raises(DatasetError, match="row 8: an episode begins without 3 rows of zeros"):
        all_of(dqn_replay.source(tmp_path, "pong", checkpoints=1))
