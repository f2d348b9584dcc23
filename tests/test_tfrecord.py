"""TFRecord: checksums against known ones, messages against protobuf's, and what is damaged."""

import gzip
import struct

import numpy as np
import pytest

import tfrecord_writer as writer
from unplugged import tfrecord
from unplugged.datasets import DatasetError


# RFC 3720, B.4, and the check value of the catalogue of CRCs.
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_known_checksums(content, expected):
    assert tfrecord.crc32c(content) == expected


@pytest.mark.parametrize("size", [1023, 1024, 1025, 1280, 4096, 4097, 70_001])
def test_the_checksum_of_many_bytes_is_that_of_one_after_the_other(size):
    content = np.random.default_rng(size).bytes(size)
    total = 0xFFFFFFFF
    for byte in content:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
    assert tfrecord.crc32c(content) == total ^ 0xFFFFFFFF


def test_a_checksum_is_rotated_and_offset():
    length = struct.pack("<Q", 3)
    crc = tfrecord.crc32c(length)
    rotated = ((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF
    assert tfrecord.masked(length) == struct.pack("<I", rotated)


FEATURES = {
    "observation/a": np.array([0.5, -1.5, 3e38], np.float32),
    "count": np.array([0, 1, 127, 128, 300, 2**40, -1, -(2**63)], np.int64),
    "image": [b"", b"\x00\x01\xff", b"x" * 300],
    "none": np.zeros(0, np.float32),
}


@pytest.mark.parametrize("packed", [True, False])
def test_messages_are_protobufs(packed):
    found = tfrecord.example(writer.example(FEATURES, packed))
    assert sorted(found) == sorted(FEATURES)
    assert found["image"] == FEATURES["image"] and len(found["none"]) == 0
    for name in ("observation/a", "count"):
        np.testing.assert_array_equal(found[name], FEATURES[name])
        assert found[name].dtype == FEATURES[name].dtype


@pytest.mark.parametrize(
    "record", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\xff" * 40, b"\x0a\x01\x0a"]
)
def test_what_is_no_message_is_said(record):
    with pytest.raises(DatasetError, match=r"a record is no tf\.train\.Example"):
        tfrecord.example(record)


RECORDS = [b"first", b"", b"third" * 100]


@pytest.mark.parametrize("compressed", [True, False])
def test_round_trip(tmp_path, compressed):
    path = writer.write(tmp_path / "a", RECORDS, compressed)
    assert list(tfrecord.records(path)) == RECORDS
    assert list(tfrecord.records(writer.write(tmp_path / "b", [], compressed))) == []


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_short_or_changed_is_refused(tmp_path, compressed):
    path = writer.write(tmp_path / "a", RECORDS, compressed)
    whole = path.read_bytes()
    boundaries = {0, 21, 37} if not compressed else {0}  # Nothing tells that more should follow.
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        if size not in boundaries:
            with pytest.raises(DatasetError, match=rf"{path}: record \d: .*; get the file again"):
                list(tfrecord.records(path))
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            assert list(tfrecord.records(path)) == RECORDS  # gzip's header has bytes of no meaning.
        except DatasetError as error:
            assert f"{path}: record " in str(error)
            refused += 1
    assert refused >= len(whole) - 10 * compressed


def test_the_record_is_named(tmp_path):
    path = writer.write(tmp_path / "a", RECORDS, False)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DatasetError, match=r"a: record 2: it is damaged \(its checksum does not"):
        list(tfrecord.records(path))


def test_shards_are_whole(tmp_path):
    for number in (0, 1, 3):
        writer.write(tmp_path / f"train-{number:05d}-of-00004", [])
    with pytest.raises(
        tfrecord.MissingError, match="lacks 1 of 4 files, the first train-00002-of-00004"
    ):
        tfrecord.shards(tmp_path)
    with pytest.raises(tfrecord.MissingError, match="lacks 1 of 3 files, the first train-00002-of"):
        tfrecord.shards(tmp_path, count=3)
    with pytest.raises(DatasetError, match="has 4 files train-NNNNN-of-00004, not 2: say 4, or"):
        tfrecord.shards(tmp_path, count=2)
    (tmp_path / "train-00003-of-00004").unlink()
    assert [path.name[6:11] for path in tfrecord.shards(tmp_path, count=2)] == ["00000", "00001"]
    writer.write(tmp_path / "train-00003-of-00004", [])
    writer.write(tmp_path / "train-00002-of-00004", [])
    (tmp_path / "README").write_text("")
    assert [path.name[6:11] for path in tfrecord.shards(tmp_path)] == [f"{i:05d}" for i in range(4)]
    with pytest.raises(FileNotFoundError, match="no files test-00000-of-NNNNN in"):
        tfrecord.shards(tmp_path, "test")
    writer.write(tmp_path / "run_1-00000-of-00001", [])
    with pytest.raises(
        DatasetError, match=r"of several kinds, run_1-.*, train-.*: move others away"
    ):
        tfrecord.shards(tmp_path)
    assert len(tfrecord.shards(tmp_path, "train")) == 4
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        tfrecord.shards(tmp_path / "none")
