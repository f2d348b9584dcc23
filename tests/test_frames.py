"""Recordings of single frames: converted, verified, and drawn from as if they were stacked."""

import dataclasses
import errno
import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import unplugged.data.frame_stores
import unplugged.data.frames
import unplugged.runs.spec
from unplugged import (
    atari,
    datasets,
    feeding,
    files,
    frame_stores,
    frames,
    methods,
    policy,
    runs,
    selection,
    videos,
    windows,
)
from unplugged.datasets import DatasetError
from unplugged.learner import Learner
from unplugged.runs.spec import model_of
from unplugged.settings import Settings

SIZE = (6, 5)
SMALL = {
    "network": "conv", "representation": [4], "dynamics": [4], "prediction": [4], "batch_size": 4,
    "num_bins": 11, "unroll_steps": 1, "td_steps": 1,
}  # fmt: skip
FACTS = {**frames.of_game("pong", 1, "a test"), "frame_shape": list(SIZE)}


def episode(rows, number, *, terminated=True, last=None, checkpoint=0, reward=0.0, size=SIZE):
    rng = np.random.default_rng([checkpoint, number])
    return frames.Episode(
        frames=rng.integers(0, 256, [rows, *size], np.uint8),
        action=rng.integers(0, 6, rows).astype(np.int32),
        reward=np.append(rng.integers(-1, 2, rows - 1), reward).astype(np.float32),
        terminated=terminated,
        checkpoint=checkpoint,
        number=number,
        last=last,
    )


def source(shards, **facts):
    """A source of episodes in memory; a callable among them is called, and may raise."""

    def episodes(number, share):
        some = shards[number]
        for one in some[: frames.first(len(some), share)]:
            yield one() if callable(one) else one

    return frames.Source({**FACTS, **facts}, [f"file-{i}" for i in range(len(shards))], episodes)


def made(last=frames.TRANSITION):
    """Three shards; every third episode was cut off."""
    return [
        [
            episode(
                4 + (3 * s + e) % 5, e, terminated=(s + e) % 3 != 0, checkpoint=s, last=last,
                reward=1.0,
            )
            for e in range(4)
        ]
        for s in range(3)
    ]  # fmt: skip


@pytest.fixture(params=[frames.TRANSITION, frames.FRAME])
def converted(request, tmp_path):
    shards = made(request.param)
    return shards, frames.convert(source(shards), tmp_path / "pong")


def stacked(one, last):
    """An episode as `datasets.from_episodes` takes it, its frames stacked by hand."""
    goes_on = last == frames.TRANSITION and one.terminated
    images = list(one.frames) + [one.frames[-1]] * goes_on
    length = len(images) - 1
    padded = [images[0]] * 3 + images
    return {
        "observation": np.stack(
            [np.stack(padded[i : i + 4], axis=-1) for i in range(length + 1)]
        ).astype(np.float32) * atari.SCALE,
        "action": one.action[:length],
        "reward": one.reward[:length],
        "terminated": one.terminated,
    }  # fmt: skip


def by_hand(shards, last):
    return datasets.from_episodes(
        [stacked(one, last) for some in shards for one in some],
        {"environment": "pong", "num_actions": 6},
    )


def test_windows_are_those_of_stacks_made_by_hand(converted):
    shards, recording = converted
    plain = by_hand(shards, recording.metadata["last_row"])
    assert recording.num_transitions == plain.num_transitions
    assert recording.observation_shape == (*SIZE, 4) and recording.actions == plain.actions
    np.testing.assert_array_equal(recording.episode_returns, plain.episode_returns)
    for name in ("action", "reward", "discount", "is_first", "is_last"):
        np.testing.assert_array_equal(getattr(recording, name), getattr(plain, name))
        assert getattr(recording, name).dtype == getattr(plain, name).dtype
    ours, theirs = frame_stores.store(recording), windows.store(plain)
    for key in range(3):
        draw = jax.jit(windows.sample, static_argnums=(2, 3))
        a = draw(ours, jax.random.key(key), 32, 6)
        b = draw(theirs, jax.random.key(key), 32, 6)
        for x, y in zip(a[:6], b[:6]):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_some_episodes_are_a_recording_too(converted):
    shards, recording = converted
    plain = by_hand(shards, recording.metadata["last_row"])
    for which in ([7, 2], [0], list(range(12))):
        ours = frame_stores.store(recording.episodes(which))
        theirs = windows.store(plain.episodes(which))
        every = jnp.arange(len(theirs.action))
        np.testing.assert_array_equal(ours.observe(every), theirs.observe(every))
        np.testing.assert_array_equal(ours.end, theirs.end)
    kept = datasets.subsample(recording, 0.5, 0)
    same = datasets.subsample(plain, 0.5, 0)
    np.testing.assert_array_equal(kept.reward, same.reward)
    train, held = datasets.split(recording, 0.25, 0)
    assert train.num_episodes + held.num_episodes == 12
    assert len({datasets.checksum(x) for x in (recording, kept, train, held)}) == 4


def test_blocks_go_to_the_device_one_after_the_other(converted, monkeypatch):
    _, recording = converted
    whole = frame_stores.store(recording).observation
    for block in (1, 7, recording.num_steps):
        monkeypatch.setattr(unplugged.data.frame_stores, "_BLOCK", block)
        np.testing.assert_array_equal(frame_stores.store(recording).observation, whole)


def test_frames_are_written_in_many_parts(tmp_path, monkeypatch):
    whole = frames.convert(source(made()), tmp_path / "a").checksum
    monkeypatch.setattr(unplugged.data.frames, "CHUNK", 3)
    monkeypatch.setattr(unplugged.data.frames, "_FLUSH", 6)
    assert frames.convert(source(made()), tmp_path / "b").checksum == whole


class KilledError(BaseException):
    pass


def killed(*arguments):
    raise KilledError


@pytest.mark.parametrize("shard", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 2])
def test_a_killed_conversion_goes_on_to_the_same_recording(tmp_path, shard, at):
    whole = frames.convert(source(made()), tmp_path / "whole")
    broken = made()
    broken[shard][at] = killed
    folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        frames.convert(source(broken), folder)
    assert sorted(path.name for path in folder.glob("shard*")) == [
        f"shard-{number:05d}" for number in range(shard)
    ]
    with pytest.raises(DatasetError, match="is not whole: its conversion must go on"):
        frames.load(folder)
    (folder / "shard-00002.tmp" / "frames").mkdir(parents=True)  # left by a power cut
    again = made()
    again[:shard] = [[killed]] * shard  # What is there is not read again.
    resumed = frames.convert(source(again), folder)
    assert resumed.checksum == whole.checksum
    np.testing.assert_array_equal(
        frame_stores.store(resumed).observation, frame_stores.store(whole).observation
    )
    names = ("recording.json", "conversion.json", "shard-00001/rows.npz")
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert frames.convert(source([[killed]] * 3), folder).checksum == whole.checksum  # It is done.


PAUSE = 0.02  # seconds


def slowed(call):
    """The function with a pause before it and one after."""

    @functools.wraps(call)
    def slow(*arguments):
        time.sleep(PAUSE)
        found = call(*arguments)
        time.sleep(PAUSE)
        return found

    return slow


def convert_slowly(folder, begun):
    """A conversion that takes at least 34 pauses, and says when it begins."""
    files.write_whole = slowed(files.write_whole)  # five times
    shards = [[functools.partial(slowed(lambda x: x), one) for one in some] for some in made()]
    begun.send(True)
    frames.convert(source(shards), folder)


def contents(folder):
    return {x.relative_to(folder): x.read_bytes() for x in folder.rglob("*") if x.is_file()}


@pytest.mark.slow
def test_a_conversion_killed_at_random_moments_ends_in_the_same_files(tmp_path, monkeypatch):
    whole = frames.convert(source(made()), tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where it finds this module
    context.set_forkserver_preload([__name__])  # What takes long to begin, begins once.
    moments = np.random.default_rng(0).uniform(0.0, 34 * PAUSE, 10)
    left = set()
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        here, there = context.Pipe()
        child = context.Process(target=convert_slowly, args=(folder, there))
        child.start()
        assert here.recv()
        time.sleep(moment)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL and not (folder / "recording.json").exists()
        left.add(len([*folder.glob("shard-?????")]))
        assert frames.convert(source(made()), folder).checksum == whole.checksum
        assert contents(folder) == contents(tmp_path / "whole")
    assert len(left) > 2  # They differ in how far it was.


def test_a_share_keeps_the_first_episodes(tmp_path):
    half = frames.convert(source(made()), tmp_path / "half", share=0.5)
    assert half.num_episodes == 6 and half.metadata["share"] == 0.5
    assert half.metadata["episodes"] == 6
    with pytest.raises(
        DatasetError,
        match=r"half holds another conversion: share is 0.5 there and 1.0 here; remove that fol",
    ):
        frames.convert(source(made()), tmp_path / "half")
    (tmp_path / "half" / "conversion.json").write_text("{")
    with pytest.raises(DatasetError, match=r"conversion\.json is damaged .*remove that folder"):
        frames.convert(source(made()), tmp_path / "half", share=0.5)
    with pytest.raises(ValueError, match=r"share must lie in \(0.0, 1.0\]"):
        frames.convert(source(made()), tmp_path / "none", share=0.0)


def test_episodes_that_disagree_on_their_last_row_are_an_error(tmp_path):
    shards = made()
    shards[1][2] = shards[1][2]._replace(last=frames.FRAME)
    shards[2] = [killed]  # which is not come to
    said = rf"disagree: .* alone in file-1, .* in file-0; .* from one, and remove {tmp_path} if"
    with pytest.raises(DatasetError, match=said):
        frames.convert(source(shards), tmp_path)
    assert [path.name for path in tmp_path.glob("shard*")] == ["shard-00000"]
    with pytest.raises(DatasetError, match=said):  # A resumed conversion knows what was shown.
        frames.convert(source(shards), tmp_path)
    whole = frames.convert(source(made()), tmp_path / "whole")
    assert frames.convert(source(made()), tmp_path).checksum == whole.checksum


def test_one_odd_return_is_counted_and_many_are_refused(tmp_path):
    shards = made()
    kind = shards[0][0].last
    shards[0][0] = shards[0][0]._replace(last=frames.UNCLEAR)
    shown = frames.convert(source(shards), tmp_path / "one").metadata
    whole = frames.convert(source(made()), tmp_path / "none").metadata
    assert (whole["last_row_unclear"], shown["last_row_unclear"]) == (0, 1)
    assert shown["last_row"] == whole["last_row"]
    assert shown["last_row_shown_by"] == whole["last_row_shown_by"] - (kind is not None)
    shards[0][1] = shards[0][1]._replace(last=frames.UNCLEAR)
    with pytest.raises(DatasetError, match=r"returns of 2 of \d+ episodes in file-0 are no sums"):
        frames.convert(source(shards), tmp_path / "two")


def test_without_evidence_the_last_row_is_a_frame(tmp_path):
    shards = [[episode(3, 0), episode(1, 1), episode(4, 2)]]
    recording = frames.convert(source(shards), tmp_path)
    assert recording.metadata["last_row"] == frames.FRAME
    assert recording.num_episodes == 2 and recording.num_transitions == 5  # One had none.
    assert recording.metadata["last_row_shown_by"] == 0
    shards[0][0] = shards[0][0]._replace(last=frames.TRANSITION)
    shown = frames.convert(source(shards), tmp_path / "shown").metadata
    assert (shown["last_row"], shown["last_row_shown_by"]) == (frames.TRANSITION, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros([5, 8, 5], np.uint8)}, "has frames of 8 x 5, expected 6 x 5"),
        ({"frames": np.zeros([5, *SIZE])}, r"has frames float64 \[5, 6, 5\], expected uint8"),
        ({"frames": np.zeros([4, *SIZE], np.uint8)}, "4 frames, 5 actions and 5 rewards"),
        ({"action": np.full(5, 6)}, "has action 6, and pong has 0..5"),
        ({"reward": np.full(5, np.nan)}, "has a reward that is not finite"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(tmp_path, changes, message):
    shards = [[episode(5, 0)], [episode(5, 0, checkpoint=7)._replace(**changes)]]
    with pytest.raises(DatasetError, match=f"file-1: episode 0 of checkpoint 7 .*{message}"):
        frames.convert(source(shards), tmp_path)
    assert not (tmp_path / "recording.json").exists()
    assert [path.name for path in tmp_path.glob("shard*")] == ["shard-00000"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("...: No space left on "
    "device [...]")],
)  # fmt: skip
def test_a_full_disk_is_said_and_the_conversion_goes_on(tmp_path, monkeypatch, error):
    def full(path, content):
        if path.name == "rows.npz" and "shard-00001" in str(path):
            raise error
        return write(path, content)

    write = files.write_whole
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", full)
        with pytest.raises(DatasetError, match="is full, 1 of 3 shards are there: make room"):
            frames.convert(source(made()), tmp_path / "pong")
    assert sorted(x.name for x in (tmp_path / "pong").glob("shard*")) == ["shard-00000"]
    whole = frames.convert(source(made()), tmp_path / "other")
    assert frames.convert(source(made()), tmp_path / "pong").checksum == whole.checksum


def test_damage_after_the_conversion_is_found(tmp_path):
    folder = tmp_path / "pong"
    recording = frames.convert(source(made()), folder)
    chunk = folder / "shard-00001" / "frames" / "0.0.0"
    whole = chunk.read_bytes()
    for at in (len(whole) // 2, 20, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        chunk.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"shard-00001: .*(damaged|read).* convert again"):
            frame_stores.store(recording)
    chunk.write_bytes(whole[:-9])
    with pytest.raises(DatasetError, match="shard-00001: frames cannot be read"):
        frame_stores.store(recording)
    # The advice: without this shard and the header the rest stays.
    shutil.rmtree(folder / "shard-00001")
    (folder / "recording.json").unlink()
    again = made()
    again[0] = again[2] = [killed]
    assert frames.convert(source(again), folder).checksum == recording.checksum


def test_what_it_says_must_be_what_it_holds(tmp_path):
    folder = tmp_path / "pong"
    frames.convert(source(made()), folder)
    header = folder / "recording.json"
    text = header.read_text()
    header.write_text(text.replace('"sticky": 0.25', '"sticky": 0.0'))
    with pytest.raises(DatasetError, match="was altered since it was written"):
        frames.load(folder)
    header.write_text(text[:50])
    with pytest.raises(DatasetError, match=r"recording.json is damaged"):
        frames.load(folder)
    header.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(DatasetError, match="format version 2, this code reads 1"):
        frames.load(folder)
    with pytest.raises(FileNotFoundError, match="there is no recording"):
        frames.load(tmp_path)
    (tmp_path / "shard-00000").mkdir()
    with pytest.raises(DatasetError, match="holds something else: remove that folder"):
        frames.convert(source(made()), tmp_path)


def test_more_memory_than_there_is_is_said_before_any_is_taken(converted, monkeypatch):
    _, recording = converted
    monkeypatch.setattr(unplugged.data.frame_stores, "device_memory", lambda: 1_000)

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(unplugged.data.frame_stores, "_resident", never)
    with pytest.raises(DatasetError, match=r"frames of pong need .* GB can be had: lower fraction"):
        frame_stores.store(recording)
    with monkeypatch.context() as patch:  # On an accelerator the learner needs room beside them.
        patch.setattr(frame_stores, "device_memory", lambda: 9_000_001_000)
        frame_stores.check_fits(recording)
        patch.setattr(jax, "default_backend", lambda: "gpu")
        with pytest.raises(DatasetError, match="and 1e-06 GB can be had"):
            frame_stores.check_fits(recording)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(
        DatasetError, match=r"fraction to at most .*; or make room .* and 1e-08 GB are free"
    ):
        frame_stores.opened(recording)


def test_windows_from_the_host_are_those_of_the_device(converted):
    _, whole = converted
    for recording in (whole, whole.episodes([7, 2, 11])):
        ours, theirs = frame_stores.store(recording), frame_stores.host(recording)
        every = np.arange(recording.num_steps)
        np.testing.assert_array_equal(theirs.observe(every), ours.observe(every))
        np.testing.assert_array_equal(theirs.observe(np.int32(3)), ours.observe(np.int32(3)))
        np.testing.assert_array_equal(theirs.reward, ours.reward)
        start = jnp.asarray(ours.start)
        for length in (1, 9):
            gathered = theirs.gather(np.asarray(start), length)
            fed = dataclasses.replace(theirs.steps, observation=jnp.asarray(gathered))
            for x, y in zip(windows.at(fed, start, length)[:6], windows.at(ours, start, length)):
                np.testing.assert_array_equal(x, y)
    unpacked = whole.folder / "frames.raw"
    assert unpacked.stat().st_size == int(whole.table.rows.sum()) * 30
    unpacked.write_bytes(unpacked.read_bytes()[:-1])  # cut short: it is made again
    again = frame_stores.host(whole.episodes(list(range(12))))
    np.testing.assert_array_equal(frame_stores.host(whole).observe(every), again.observe(every))
    content = bytearray(unpacked.read_bytes())
    assert len(content) == int(whole.table.rows.sum()) * 30
    content[-1] ^= 1  # a bit of the last episode's
    unpacked.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame_stores.host(whole.episodes([0]))  # which another episode's damage does not touch
    with pytest.warns(UserWarning, match=r"frames\.raw is damaged; it is unpacked anew"):
        theirs = frame_stores.host(whole)
    np.testing.assert_array_equal(theirs.observe(every), again.observe(every))


@pytest.mark.slow
def test_updates_that_the_host_feeds_are_those_of_the_device(tmp_path, monkeypatch):
    recording = frames.convert(source(made()), tmp_path)
    settings = Settings(**SMALL)
    model = model_of(settings, recording.observation_shape, recording.actions)
    learner = Learner(model, methods.get("bc"), settings)
    resident, fed = frame_stores.store(recording), frame_stores.host(recording)
    assert feeding.is_fed(fed) and not feeding.is_fed(resident)
    of_update = 4 * 6 * 30
    monkeypatch.setattr(feeding, "_PIECE", 2 * of_update)  # three pieces of two
    state, found = learner.init(3), learner.init(3)
    for _ in range(2):
        one = feeding.compiled(learner, state, resident, 6)
        state, losses = one(state, resident)
        other = feeding.compiled(learner, found, fed, 6)
        found, too = other(found, fed)
        np.testing.assert_allclose(losses["loss"], too["loss"], rtol=1e-6)
    assert int(found.updates) == 12
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(found.params)):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    stacked = jax.tree.map(lambda x: x[None], found)
    with pytest.raises(ValueError, match="one seed at a time: set vmap_seeds to false"):
        feeding.compiled(learner, stacked, fed, 6)


def explored(**parameters):
    """What is defined when the cells of 03_explore_recording have run."""
    path = Path(__file__).parents[1] / "notebooks" / "03_explore_recording.ipynb"
    scope = dict(parameters)
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            exec("".join(cell["source"]).removeprefix("%matplotlib inline\n"), scope)
    return scope


@pytest.mark.slow
def test_a_run_trains_on_a_recording(tmp_path, monkeypatch):
    pytest.importorskip("ale_py")
    shards = [[episode(12, e, reward=1.0, size=(84, 84)) for e in range(4)]]
    monkeypatch.setattr(atari.Atari, "length", 5)
    facts = frames.of_game("pong", 1, "a test")
    recording = frames.convert(dataclasses.replace(source(shards), facts=facts), tmp_path / "pong")
    common = dict(
        dataset=str(tmp_path / "pong"), benchmark="atari", method="bc", overrides=SMALL,
        updates=2, eval_every=1, eval_episodes=2, fraction=0.5,
    )  # fmt: skip
    spec = runs.Spec(environment="pong", **common)
    rows = runs.train(spec, tmp_path / "run")
    assert rows["update"].tolist() == [0, 1, 2] and np.isfinite(rows["loss"].iloc[1:]).all()
    with monkeypatch.context() as patch:  # To look at it and to act, no frames are put anywhere.
        patch.setattr(unplugged.runs.spec, "on_device", killed)
        learner, state = runs.restore(spec, tmp_path / "run", 0)
        chosen = runs.by_selectors(spec, tmp_path / "run", selectors=["greedy"], episodes=2)
        assert chosen["episodes"].tolist() == [2]
        seen = list(videos.episode(spec, learner, state.params, seed=1))
        assert len(seen) == 6 and videos.picture(seen[-1].observation).shape == (84, 84, 3)
        shown = explored(run=str(tmp_path / "run"), seed=0, episode=1, step=3, num_simulations=2)
        kept = datasets.subsample(recording, 0.5, 0)
        expected = frame_stores.store(kept).observe(jnp.int32(shown["begin"][1] + 3))
        np.testing.assert_array_equal(shown["observations"](1).observe(np.int32(3)), expected)
    monkeypatch.setattr(
        unplugged.data.frame_stores, "device_memory", lambda: 1_000
    )  # from the host
    fed = runs.train(spec, tmp_path / "fed")
    assert (tmp_path / "pong" / "frames.raw").exists()
    np.testing.assert_allclose(fed["loss"].iloc[1:], rows["loss"].iloc[1:], rtol=1e-6)
    monkeypatch.undo()
    store = frame_stores.store(recording)
    seen = frame_stores.described((84, 84, 4), recording.num_steps, recording.num_transitions,
                            recording.actions)  # fmt: skip
    assert jax.tree.map(lambda x: (x.shape, x.dtype), store) == jax.tree.map(
        lambda x: (x.shape, x.dtype), seen
    )
    judged = runs.Spec(environment="pong", **{**common, "fraction": 1.0, "holdout": 0.25})
    runs.train(judged, tmp_path / "judged")
    row = selection.report(judged, tmp_path / "judged", fqe_updates=1, clone_updates=1).iloc[0]
    assert row["episodes"] == 1 and np.isfinite(row["fqe_return"]) and row["unseen"] is None
    agent = policy.load(policy.save(tmp_path / "judged", tmp_path / "agent"))
    assert agent.act(np.asarray(store.observe(jnp.arange(3)))).probabilities.shape == (3, 6)
    with monkeypatch.context() as patch:
        patch.setattr(frame_stores, "device_memory", lambda: 1_000)
        with pytest.raises(DatasetError, match="lower fraction to at most"):
            selection.report(judged, tmp_path / "judged", fqe_updates=1)
        with pytest.raises(ValueError, match="diagnose looks at states on the device"):
            dataclasses.replace(judged, diagnose=True).build()
    with pytest.raises(DatasetError, match="was recorded in 'pong', not in 'breakout'"):
        runs.train(runs.Spec(environment="breakout", **common), tmp_path / "other")
    with pytest.raises(ValueError, match="observations of atari are pixels, which are never stand"):
        runs.Spec(environment="pong", **{**common, "overrides": {"standardize": True}})
