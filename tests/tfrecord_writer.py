"""TFRecord files of tf.train.Example for tests, by protobuf's own messages."""

import gzip
import struct

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from unplugged import tfrecord

_SCHEMA = {
    "BytesList": [("value", 1, "repeated", "bytes")],
    "FloatList": [("value", 1, "repeated", "float")],
    "Int64List": [("value", 1, "repeated", "int64")],
    "Feature": [
        ("bytes_list", 1, "optional", "BytesList"), ("float_list", 2, "optional", "FloatList"),
        ("int64_list", 3, "optional", "Int64List"),
    ],
    # A map is a repeated entry on the wire.
    "Entry": [("key", 1, "optional", "string"), ("value", 2, "optional", "Feature")],
    "Features": [("feature", 1, "repeated", "Entry")],
    "Example": [("features", 1, "optional", "Features")],
}  # fmt: skip


def _messages(packed):
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{packed}.proto", package=f"packed_{packed}", syntax="proto3"
    )
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            added = message.field.add(
                name=field, number=number, label=getattr(kinds, f"LABEL_{label.upper()}")
            )
            if kind in _SCHEMA:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".packed_{packed}.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if kind in ("float", "int64"):
                added.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {
        name: message_factory.GetMessageClass(find(f"packed_{packed}.{name}")) for name in _SCHEMA
    }


_OF = {packed: _messages(packed) for packed in (False, True)}


def _fill(feature, values):
    if isinstance(values, list):
        feature.bytes_list.value.extend(values)
    elif np.asarray(values).dtype.kind == "f":
        feature.float_list.value.extend(np.ravel(values).tolist())
    else:
        feature.int64_list.value.extend(np.ravel(values).tolist())


def example(features, packed=True):
    """An Example of floats, whole numbers and lists of bytes, serialised."""
    message = _OF[packed]["Example"]()
    for name, values in features.items():
        _fill(message.features.feature.add(key=name).value, values)
    return message.SerializeToString()


def write(path, records, compressed=True):
    """A TFRecord file."""
    content = b"".join(
        (length := struct.pack("<Q", len(record)))
        + tfrecord.masked(length)
        + record
        + tfrecord.masked(record)
        for record in records
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if compressed else content)
    return path
