import dataclasses
import gzip
import json
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unplugged import datasets, memory, npz
from unplugged import windows as data_windows
from unplugged.model.actions import Discrete, Normal


def test_saved_and_loaded_is_the_same(dataset, tmp_path):
    datasets.save(dataset, tmp_path / "toy.npz")
    again = datasets.load(tmp_path / "toy.npz")
    for name in ("observation", "action", "reward", "discount", "is_first", "is_last"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))
    assert again.metadata == dataset.metadata
    assert datasets.checksum(again) == datasets.checksum(dataset)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.npz"]


def test_a_part_is_saved_with_its_own_count_of_episodes(dataset, tmp_path):
    counted = dataclasses.replace(dataset, metadata={**dataset.metadata, "episodes": 6})
    datasets.save(counted.episodes([0, 2]), tmp_path / "part.npz")
    assert datasets.load(tmp_path / "part.npz").metadata["episodes"] == 2


def test_saving_twice_gives_the_same_bytes(dataset, tmp_path):
    for name in ("a.npz", "b.npz"):
        datasets.save(dataset, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_counts_and_returns(dataset):
    assert (dataset.num_episodes, dataset.num_transitions) == (6, 3 + 4 + 5 + 6 + 7 + 8)
    first = dataset.episodes([0])
    np.testing.assert_allclose(dataset.episode_returns[0], first.reward.sum(), rtol=1e-6)
    # Episode 0 truly ended: its last transition and last step have discount 0.
    np.testing.assert_array_equal(first.discount, [1, 1, 0, 0])
    np.testing.assert_array_equal(dataset.episodes([1]).discount, [1] * 5)


@settings(deadline=None, derandomize=True)
@given(st.floats(0.001, 1.0), st.integers(0, 5), st.integers(1, 60))
def test_subsample_keeps_whole_episodes_spread_evenly(fraction, seed, total):
    episodes = [
        {"observation": np.full([3, 1], i), "action": [0, 0], "reward": [i, 0], "terminated": True}
        for i in range(total)
    ]
    whole = datasets.from_episodes(episodes, {"num_actions": 1})
    part = datasets.subsample(whole, fraction, seed)
    datasets.validate(part)
    keep = max(1, round(fraction * total))
    which = part.episode_returns.astype(int)
    assert len(which) == keep and (np.diff(which) > 0).all()
    # One from each of `keep` equal stretches.
    edges = np.linspace(0, total, keep + 1).round()
    assert ((which >= edges[:-1]) & (which < edges[1:])).all()
    again = datasets.subsample(whole, fraction, seed).episode_returns
    np.testing.assert_array_equal(again, part.episode_returns)


@settings(deadline=None, derandomize=True)
@given(st.floats(0.001, 0.99), st.integers(0, 5), st.integers(2, 40))
def test_split_parts_are_disjoint_and_whole(holdout, seed, total):
    episodes = [
        {"observation": np.full([3, 1], i), "action": [0, 0], "reward": [i, 0], "terminated": True}
        for i in range(total)
    ]
    whole = datasets.from_episodes(episodes, {"num_actions": 1})
    if round(holdout * total) == total:
        with pytest.raises(ValueError, match="leaves none to train on"):
            datasets.split(whole, holdout, seed)
        return
    train, held = datasets.split(whole, holdout, seed)
    both = np.concatenate([train.episode_returns, held.episode_returns])
    assert sorted(both) == list(range(total))
    assert held.num_episodes == max(1, round(holdout * total))
    assert (np.diff(train.episode_returns) > 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(dataset, fraction):
    with pytest.raises(ValueError, match="fraction must lie in"):
        datasets.subsample(dataset, fraction, 0)


def damage(path, how):
    """Rewrites a saved dataset with something wrong."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays["header"]))
    if how == "altered":
        arrays["reward"][2] += 1.0
    elif how == "version":
        header["version"] = 99
    elif how == "not finite":
        arrays["observation"][3] = np.nan
        parts = {k: v for k, v in arrays.items() if k != "header"}
        header["checksum"] = datasets.checksum(
            datasets.Dataset(**parts, metadata=header["metadata"])
        )
    elif how == "pickled":
        arrays["reward"] = np.array([{}] * 3, dtype=object)
    elif how == "lacks":
        del arrays["discount"]
    arrays["header"] = np.array(json.dumps(header))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "how, message",
    [
        ("altered", "altered since it was written"),
        ("version", "format version 99, this code reads 1"),
        ("not finite", "observation is not finite .* at step 3"),
        ("pickled", "pickled objects, which are never loaded"),
        ("lacks", "lacks discount"),
    ],
)
def test_damaged_files_are_refused(dataset, tmp_path, how, message):
    datasets.save(dataset, tmp_path / "toy.npz")
    damage(tmp_path / "toy.npz", how)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load(tmp_path / "toy.npz")


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_a_file_cut_short_is_refused(dataset, tmp_path, keep):
    datasets.save(dataset, tmp_path / "toy.npz")
    data = (tmp_path / "toy.npz").read_bytes()
    size = keep if isinstance(keep, int) else int(keep * len(data))
    (tmp_path / "toy.npz").write_bytes(data[:size])
    with pytest.raises(datasets.DatasetError, match="cut short"):
        datasets.load(tmp_path / "toy.npz")


def test_a_pickle_is_refused(dataset, tmp_path):
    (tmp_path / "toy.npz").write_bytes(pickle.dumps(dataset.observation))
    with pytest.raises(datasets.DatasetError, match="a pickle, which is never loaded"):
        datasets.load(tmp_path / "toy.npz")


def test_a_flipped_byte_is_noticed(dataset, tmp_path):
    path = tmp_path / "toy.npz"
    datasets.save(dataset, path)
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("reward.npy").header_offset + 60
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(datasets.DatasetError):
        datasets.load(path)


def test_a_missing_file_names_its_neighbours(dataset, tmp_path):
    datasets.save(dataset, tmp_path / "catch.npz")
    with pytest.raises(FileNotFoundError, match=f"in {tmp_path}: did you mean 'catch.npz'"):
        datasets.load(tmp_path / "cacth.npz")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reward": np.inf}, "reward is not finite"),
        ({"discount": 0.5}, "discount must be 0"),
        ({"discount": 0.0}, "discount is 0 inside an episode"),
        ({"action": 3}, "action 3 at step 1 is outside 0..2"),
        ({"is_last": True}, "not whole"),
        ({"is_first": True}, "not whole"),
    ],
)
def test_validate_names_what_is_wrong(dataset, change, message):
    name, value = next(iter(change.items()))
    array = getattr(dataset, name).copy()
    array[1] = value
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.validate(dataclasses.replace(dataset, **{name: array}))


ARRAYS = ("observation", "action", "reward", "discount", "is_first", "is_last")


def written(path, dataset, metadata=None, **arrays):
    """Writes a file with a valid checksum of anything, which `datasets.save` would refuse."""
    found = {**{name: getattr(dataset, name) for name in ARRAYS}, **arrays}
    metadata = dataset.metadata if metadata is None else metadata
    whole = dataclasses.replace(dataset, **found)
    object.__setattr__(whole, "metadata", metadata)
    checksum = datasets.checksum(whole)
    header = {"version": 1, "checksum": checksum, "metadata": metadata}
    np.savez_compressed(path, header=np.array(json.dumps(header)), **found)
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("action", lambda x: x.astype(np.float32) + 0.5, "action must be int32, is float32"),
        ("action", lambda x: x[:, None], r"action must have shape \[N\], has \[39, 1\]"),
        ("action", lambda x: x[:-1], "observation has 39 steps, action has 38"),
        ("is_last", lambda x: x.astype(np.int64), "is_last must be bool, is int64"),
        ("is_first", lambda x: x.astype(np.float32), "is_first must be bool, is float32"),
        ("reward", lambda x: x.astype(np.complex64), "reward must be float32, is complex64"),
        ("reward", lambda x: np.full(39, 2.0**62, np.float32), r"reward is 4\.612e\+18 at step 0"),
        ("discount", lambda x: x.astype(np.float64), "discount must be float32, is float64"),
        ("observation", lambda x: x.astype(np.complex64), "observation must be float32, is comp"),
        ("observation", lambda x: x.astype("U4"), "observation must be float32, is <U4"),
        ("observation", lambda x: x.astype(">f4"), "observation must be float32, is >f4"),
        ("observation", lambda x: np.full([39, 2], 2**62), "observation must be float32, is int64"),
        ("observation", lambda x: x + np.float32(2**62), "observation is 4.612e.18 at step 0, and"),
        ("observation", lambda x: x[:, :0], r"observation must have shape \[N, ...\], has \[39, 0"),
        ("reward", lambda x: np.where(np.arange(39) == 3, 5, x).astype(np.float32),
         r"reward must be 0 at the last step of an episode, .*; it is 5.0 at step 3"),
        ("action", lambda x: np.where(np.arange(39) == 8, 1, x).astype(np.int32),
         "action must be 0 at the last step of an episode"),
    ],
)  # fmt: skip
def test_arrays_are_checked_whole_with_a_valid_checksum(dataset, tmp_path, name, change, message):
    path = written(tmp_path / "a.npz", dataset, **{name: change(getattr(dataset, name))})
    with pytest.raises(datasets.DatasetError, match=f"a.npz: {message}"):
        datasets.load(path)


WRONG_FACTS = [
    ({"num_actions": "2"}, "num_actions must be an integer, got '2'"),
    ({"num_actions": 2.5}, "num_actions must be an integer, got 2.5"),
    ({"num_actions": True}, "num_actions must be an integer, got True"),
    ({"num_actions": None}, "num_actions must be an integer, got None"),
    ({"num_actions": 0}, "num_actions must lie in"),
    ({"episodes": 6.0}, "episodes must be an integer"),
    ({"noise": "0.1"}, "noise must be a number"),
    ({"noise": 7}, "noise must lie in"),
    ({"seed": -1}, "seed must lie in"),
    ({"max_episode_steps": 0}, "max_episode_steps must lie in"),
    ({"packed_shape": "9"}, "packed_shape must be a list of sizes"),
    ({"packed_shape": [2, 0]}, "a size of packed_shape must lie in"),
    ({"environment": 5}, "environment must be a text, got 5"),
    ({"benchmark": ["bsuite"]}, "benchmark must be a text"),
]


@pytest.mark.parametrize(("facts", "message"), WRONG_FACTS)
def test_metadata_are_checked(dataset, tmp_path, facts, message):
    metadata = {**dataset.metadata, **facts}
    with pytest.raises(datasets.DatasetError, match=f"metadata: {message}"):
        datasets.from_episodes([], metadata)
    with pytest.raises(datasets.DatasetError, match=f"a.npz: metadata: {message}"):
        datasets.load(written(tmp_path / "a.npz", dataset, metadata))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"num_actions": 3, "model": {"a": object()}}, r"metadata\['model'\]\['a'\] is <object"),
        ({"num_actions": 3, "mean": float("nan")}, r"metadata\['mean'\] is nan, which JSON cannot"),
        ({"num_actions": 3, "what": {1, 2}}, r"metadata\['what'\] is \{1, 2\}"),
        ({"num_actions": 3, 4: "four"}, "metadata must have names as keys, got 4"),
        ([("num_actions", 3)], "metadata must map names to facts, got"),
        ({}, "metadata lacks num_actions"),
    ],
)
def test_metadata_are_what_json_can_hold(metadata, message):
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.from_episodes([], metadata)


def test_numbers_of_numpy_are_numbers(tmp_path):
    episode = {
        "observation": np.zeros([3, 2], np.float64), "action": [np.int64(1), np.uint8(0)],
        "reward": [np.float32(1.0), True], "terminated": np.bool_(True),
    }  # fmt: skip
    metadata = {
        "num_actions": np.int64(2), "noise": np.float32(0.5), "sizes": (np.int32(1), 2),
        "new": np.bool_(True),
    }  # fmt: skip
    dataset = datasets.from_episodes([episode], metadata)
    plain = {"num_actions": 2, "noise": 0.5, "sizes": [1, 2], "new": True}
    assert dataset.metadata == plain
    assert [type(x) for x in dataset.metadata.values()] == [int, float, list, bool]
    datasets.save(dataset, tmp_path / "a.npz")
    assert datasets.load(tmp_path / "a.npz").metadata == plain


def an_episode(**changes):
    whole = {
        "observation": np.zeros([4, 2]), "action": [0, 1, 0], "reward": [0.0, 1.0, 0.0],
        "terminated": True,
    }  # fmt: skip
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminated": [False, False, False]},
         r"terminated must be one .*, such as bool\(terminated\[-1\]\), got \[False, False, False"),
        ({"terminated": 1}, "terminated must be one true or false"),
        ({"terminated": "no"}, "terminated must be one true or false"),
        ({"terminated": None}, "terminated must be one true or false"),
        ({"action": [[0], [1], [0]]}, r"action must have shape \[L\], .* has \(3, 1\)"),
        ({"action": [0, 1.5, 0]}, "actions must be whole numbers"),
        ({"action": [0, np.nan, 0]}, "actions must be whole numbers"),
        ({"action": [0, 2**40, 0]}, "actions must be whole numbers"),
        ({"action": ["0", "1", "0"]}, "action must be a list of numbers, got values of type <U1"),
        ({"action": 1}, "action must be a list of numbers, got a single value"),
        ({"reward": [[0.0]] * 3}, r"reward must have shape \[L\]"),
        ({"reward": [1j, 0, 0]}, "reward must be a list of numbers, got values of type complex128"),
        ({"reward": [None, 0, 0]}, "reward must be a list of numbers, got values of type object"),
        ({"observation": [["a", "b"]] * 4}, "observation must be a list of numbers, got v"),
        ({"observation": [[1, 2], [1], [1], [1]]}, "observation must be numbers in one shape"),
        ({"observation": np.full([4, 2], 2**62)}, r"observation reaches 4611686018427387904, and"),
        ({"observation": np.full([4, 2], -(2**25))}, r".*beyond 16777216 float32.*; subtract"),
        ({"observation": np.zeros([4, 3])}, r"observations \(3,\), the first's \(2,\)"),
    ],
)  # fmt: skip
def test_an_episode_is_checked_where_it_enters(changes, message):
    with pytest.raises(datasets.DatasetError, match=f"episode 1: {message}"):
        datasets.from_episodes([an_episode(), an_episode(**changes)], {"num_actions": 2})


def test_a_large_value_of_an_episode_is_refused_with_its_step():
    for value in (1e300, 1e20):
        seen = np.zeros([4, 2])
        seen[2, 1] = value
        with pytest.raises(datasets.DatasetError, match=r"observation is .* at step 2"):
            datasets.from_episodes([an_episode(observation=seen)], {"num_actions": 2})
        divided = datasets.from_episodes([an_episode(observation=seen / value)], {"num_actions": 2})
        assert divided.observation[2, 1] == 1.0
    times = np.arange(1_700_000_000, 1_700_000_004)[:, None]
    with pytest.raises(datasets.DatasetError, match="subtract an offset"):
        datasets.from_episodes([an_episode(observation=times)], {"num_actions": 2})
    datasets.from_episodes([an_episode(observation=times - times[0])], {"num_actions": 2})


def test_what_an_episode_lacks_is_said():
    episode = an_episode()
    episode["rewards"] = episode.pop("reward")
    with pytest.raises(
        datasets.DatasetError, match=r"episode 0: lacks reward; .* has obs.*, rewards"
    ):
        datasets.from_episodes([episode], {"num_actions": 2})
    with pytest.raises(datasets.DatasetError, match="episode 0: must be a mapping, is a tuple"):
        datasets.from_episodes([(1, 2)], {"num_actions": 2})


def test_the_advice_on_terminated_works():
    flags = [False, False, False]
    truncated = datasets.from_episodes([an_episode(terminated=bool(flags[-1]))], {"num_actions": 2})
    np.testing.assert_array_equal(truncated.discount, [1, 1, 1, 1])


def test_lengths_of_an_episode_must_fit():
    episode = {
        "observation": np.zeros([3, 1]), "action": [0, 0, 0], "reward": [0, 0, 0],
        "terminated": True,
    }  # fmt: skip
    with pytest.raises(datasets.DatasetError, match="episode 0: 3 observations, 3 actions"):
        datasets.from_episodes([episode], {"num_actions": 1})


def test_actions_must_be_whole_numbers():
    episode = {"observation": np.zeros([3, 1]), "reward": [0, 0], "terminated": True}
    with pytest.raises(datasets.DatasetError, match="episode 0: actions must be whole numbers"):
        datasets.from_episodes([{**episode, "action": [0.9, 1.7]}], {"num_actions": 2})
    whole = datasets.from_episodes([{**episode, "action": [0.0, 1.0]}], {"num_actions": 2})
    assert whole.action.tolist() == [0, 1, 0]


@pytest.mark.parametrize("which", [[], [6], [-1], [True, False], [0.0], 2, [[0]]])
def test_episodes_that_are_not_there(dataset, which):
    with pytest.raises(datasets.DatasetError, match="episodes"):
        dataset.episodes(which)


def test_a_count_of_episodes_must_be_right(dataset, tmp_path):
    path = written(tmp_path / "a.npz", dataset, {**dataset.metadata, "episodes": 7})
    with pytest.raises(datasets.DatasetError, match="metadata count 7 episodes, of 6"):
        datasets.load(path)


@pytest.mark.parametrize(
    "header", ["", "[1]", "{}", '{"version": 1', '{"version": 1, "checksum": "", "metadata": 5}']
)
def test_a_damaged_header_is_refused(dataset, tmp_path, header):
    arrays = {name: getattr(dataset, name) for name in ARRAYS}
    np.savez(tmp_path / "a.npz", header=np.array(header), **arrays)
    with pytest.raises(datasets.DatasetError, match=r"a\.npz: (its header|metadata must map)"):
        datasets.load(tmp_path / "a.npz")


def test_any_changed_byte_is_harmless_or_refused(dataset, tmp_path):
    path = tmp_path / "a.npz"
    datasets.save(dataset, path)
    data, checksum = path.read_bytes(), datasets.checksum(dataset)
    rng = np.random.default_rng(0)
    refused = 0
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            assert datasets.checksum(datasets.load(path)) == checksum
        except datasets.DatasetError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(data) / 7 / 2  # The others are times, and what no reader looks at.


def claiming(path, dataset, shape, written_bytes=0):
    """A file whose observations claim a shape, and are as many bytes, all zero."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("header", *ARRAYS):
            with archive.open(f"{name}.npy", "w") as file:
                if name == "observation":
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.write(bytes(written_bytes))
                    continue
                header = {"version": 1, "checksum": "", "metadata": dict(dataset.metadata)}
                array = np.array(json.dumps(header)) if name == "header" else None
                np.lib.format.write_array(file, getattr(dataset, name, array))
    return path


def test_sizes_are_looked_at_before_data_are_read(dataset, tmp_path, monkeypatch):
    path = claiming(tmp_path / "a.npz", dataset, (39, 10**14 // 39))
    with pytest.raises(
        datasets.DatasetError, match=r"claims 363\.8 TiB and has 128 bytes; collect"
    ):
        datasets.load(path)
    # 32 MiB of zeros, with a limit of one.
    width = 2**23 // 39
    path = claiming(tmp_path / "a.npz", dataset, (39, width), 39 * width * 4)
    monkeypatch.setattr(npz.Archive, "read", None)
    monkeypatch.setattr(npz, "_LARGE", 2**20)
    with pytest.raises(datasets.DatasetError, match=r"times as large when unpacked, 32\.0 MiB"):
        datasets.load(path)
    monkeypatch.setattr(npz, "_LARGE", 2**30)
    datasets.save(dataset, tmp_path / "small.npz")  # What changes, alone.
    monkeypatch.setattr(memory, "free", lambda: 3 * 2**20)
    with pytest.raises(
        datasets.DatasetError, match=r"needs 32.0 MiB of memory, and 3.0 MiB can be"
    ):
        datasets.load(path)


ROWS = pd.DataFrame(
    {
        "episode": [0, 0, 0, 1, 1],
        "x": [0.1, 0.2, 0.3, 0.4, 0.5],
        "action": [0, 1, 0, 1, 0],
        "reward": [0.0, 1.0, 0.0, 2.0, 0.0],
    }
)


def test_another_kind_of_file_says_what_it_is_and_its_advice_works(tmp_path):
    def says(content, message):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(datasets.DatasetError, match=rf"a\.npz: {message}"):
            datasets.load(tmp_path / "a.npz")

    made = "; not a dataset of ours: .* datasets.from_episodes, and write those with datasets.save"
    says(ROWS.to_csv(index=False).encode(), "a text file, such as CSV or JSON" + made)
    says(b"\x89HDF\r\n\x1a\n...", r"an HDF5 file \(minari_io.from_minari reads" + ".*" + made)
    says(b"PAR1....", "a Parquet file" + made)
    says(b"\x93NUMPY\x01\x00", r"a single NumPy array \(.npy\)" + made)
    says(gzip.compress(b"x"), "compressed with gzip" + made)
    says(b"\x00\x01\x02", "a file of an unknown kind" + made)
    np.savez(tmp_path / "b.npz", observations=[1], rewards=[2])
    says(
        (tmp_path / "b.npz").read_bytes(), "lacks header, .*, and has observations, rewards" + made
    )
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("header.npy", b"x")
    says((tmp_path / "b.npz").read_bytes(), "lacks observation, ")

    (tmp_path / "rows.csv").write_text(ROWS.to_csv(index=False))
    episodes = [
        {"observation": of[["x"]], "action": of["action"][:-1], "reward": of["reward"][:-1],
         "terminated": True}
        for _, of in pd.read_csv(tmp_path / "rows.csv").groupby("episode")
    ]  # fmt: skip
    dataset = datasets.from_episodes(episodes, {"environment": "mine", "num_actions": 2})
    datasets.save(dataset, tmp_path / "rows.npz")
    assert datasets.load(tmp_path / "rows.npz").episode_returns.tolist() == [1.0, 2.0]


def test_a_home_folder_is_found(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    datasets.save(dataset, "~/data/a.npz")
    assert (tmp_path / "data/a.npz").is_file()
    assert datasets.load("~/data/a.npz").num_episodes == 6


def test_a_missing_file_names_the_folder_searched(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def says(path, message):
        with pytest.raises(FileNotFoundError, match=message):
            datasets.load(path)

    says("a.npz", rf"no dataset a\.npz in {tmp_path}; it has none$")
    says("none/a.npz", rf"no dataset none/a\.npz: there is no folder {tmp_path}/none$")
    datasets.save(dataset, "catch.npz")
    says("zzz", rf"no dataset zzz in {tmp_path}; it has catch\.npz$")
    says(tmp_path, "is a folder, not a dataset; name a file in it")


def test_dataset_of_another_environment(dataset):
    datasets.check_fits(dataset, (2, 2), Discrete(3))
    with pytest.raises(datasets.DatasetError, match=r"observations \(2, 2\)"):
        datasets.check_fits(dataset, (4,), Discrete(3))
    with pytest.raises(datasets.DatasetError, match="has 3 discrete actions, the environment 2"):
        datasets.check_fits(dataset, (2, 2), Discrete(2))


def test_nothing_half_written_when_saving_fails(dataset, tmp_path, monkeypatch):
    datasets.save(dataset, tmp_path / "toy.npz")
    before = (tmp_path / "toy.npz").read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        datasets.save(dataset, tmp_path / "toy.npz")
    assert (tmp_path / "toy.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_statistics_of_a_recording():
    episodes = [
        {"observation": np.zeros([3, 2]), "action": [0, 1], "reward": [0.0, float(i)],
         "terminated": True}
        for i in range(20)
    ]  # fmt: skip
    recording = datasets.from_episodes(episodes, {"environment": "made up", "num_actions": 2})
    row = datasets.statistics(recording, np.array([1.0, 2.0]), seed=3).iloc[0]
    assert (row["environment"], row["noise"], row["seed"]) == ("made up", 0.0, 3)
    assert (row["episodes"], row["transitions"]) == (20, 40)
    assert row["mean_return"] == 9.5
    assert row["online_return"] == 18.5  # the last two
    assert (row["random_return"], row["random_episodes"]) == (1.5, 2)
    assert row["checksum"] == datasets.checksum(recording)
    with pytest.raises(ValueError, match="random_returns must be finite numbers"):
        datasets.statistics(recording, np.array([np.nan]), seed=3)
    nameless = datasets.from_episodes(episodes, {"num_actions": 2})
    with pytest.raises(datasets.DatasetError, match="metadata lacks environment"):
        datasets.statistics(nameless, np.array([1.0]), seed=3)


CONTINUOUS = {"environment": "toy", "action_dims": 2}


def continuous_episode(terminated=False, **changes):
    action = np.array([[0.5, -1.0], [1.0, 0.25], [-0.125, 0.0]])
    return an_episode(**{"action": action, "terminated": terminated, **changes})


def test_continuous_actions_are_kept_as_float32(tmp_path):
    episodes = [continuous_episode(), continuous_episode(terminated=True)]
    dataset = datasets.from_episodes(episodes, CONTINUOUS)
    assert dataset.actions == Normal(2)
    assert (dataset.action.dtype, dataset.action.shape) == (np.float32, (8, 2))
    np.testing.assert_array_equal(dataset.action[:4], [[0.5, -1], [1, 0.25], [-0.125, 0], [0, 0]])
    np.testing.assert_array_equal(dataset.discount, [1, 1, 1, 1, 1, 1, 0, 0])
    datasets.save(dataset, tmp_path / "a.npz")
    again = datasets.load(tmp_path / "a.npz")
    assert datasets.checksum(again) == datasets.checksum(dataset)
    part = datasets.subsample(again, 0.5, 0)
    assert part.action.shape == (4, 2) and datasets.best(again, 1.0).num_episodes == 2
    whole = datasets.from_episodes([continuous_episode(action=[[0, 1]] * 3)], CONTINUOUS)
    assert whole.action.dtype == np.float32  # Whole numbers will do.
    windows = data_windows.at(data_windows.store(dataset), np.array([1]), 4)
    assert windows.action.shape == (4, 1, 2)
    np.testing.assert_array_equal(windows.real[:, 0], [True, True, False, False])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([[0, 0], [0, 1.5], [0, 0]], r"action is 1.5 at step 1, dimension 1, outside \[-1, 1\]"),
        ([[0, 0], [0, 0], [np.nan, 0]], "action is nan at step 2, dimension 0"),
        ([0.0, 0.0, 0.0], r"action must have shape \[L, 2\], as action_dims says, has \(3,\)"),
        ([[0.0]] * 3, r"action must have shape \[L, 2\], as action_dims says, has \(3, 1\)"),
        ([["a", "b"]] * 3, "action must be a list of numbers, got values of type <U1"),
    ],
)
def test_continuous_actions_are_checked_where_they_enter(action, message):
    with pytest.raises(datasets.DatasetError, match=f"episode 0: {message}"):
        datasets.from_episodes([continuous_episode(action=action)], CONTINUOUS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"num_actions": 2}, "metadata have num_actions and action_dims"),
        ({"action_dims": 0}, "action_dims must lie in"),
        ({"action_dims": 2.5}, "action_dims must be an integer, got 2.5"),
        ({"action_low": [-2.0]}, r"action_low must be a list of action_dims numbers, got \[-2.0\]"),
        ({"action_high": [1.0, "2"]}, "a number of action_high must be a number, got '2'"),
    ],
)
def test_facts_about_continuous_actions(metadata, message):
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.from_episodes([continuous_episode()], {**CONTINUOUS, **metadata})


def test_continuous_actions_of_a_dataset(dataset, tmp_path):
    good = datasets.from_episodes([continuous_episode()], CONTINUOUS)
    for where, value, message in (
        ((1, 0), -1.5, r"action is -1.5 at step 1, dimension 0, outside"),
        ((2, 1), np.nan, "action is not finite .* at step 2"),
        ((3, 1), 1.0, "action must be 0 at the last step .*; it is .* at step 3"),
    ):
        action = good.action.copy()
        action[where] = value
        with pytest.raises(datasets.DatasetError, match=message):
            datasets.validate(dataclasses.replace(good, action=action))
    for other, message in (
        (good.action[:, :1], r"action must have shape \[N, 2\], as action_dims says, has \[4, 1\]"),
        (good.action.astype(np.float64), "action must be float32, is float64"),
    ):
        path = written(tmp_path / "a.npz", good, action=other)
        with pytest.raises(datasets.DatasetError, match=message):
            datasets.load(path)
    floats = dataclasses.replace(dataset, action=dataset.action.astype(np.float32))
    with pytest.raises(datasets.DatasetError, match="action must be int32, is float32"):
        datasets.validate(floats)
    with pytest.raises(datasets.DatasetError, match="of 2 dimensions, the environment 3 discrete"):
        datasets.check_fits(good, (2,), Discrete(3))
