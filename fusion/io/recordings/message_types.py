"""Definitions of messages, and the conversion of messages of ROS 1 and of older definitions."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from sensebind.fusion.io.recordings.bag_file import ROS1, Channel
from sensebind.fusion.io.recordings.definitions import parse_definition

LOG = logging.getLogger("sensebind")
# Second byte of messages (DDS-XTypes, 7.6.2.1.2) → its name, of those that are not read.
ENCAPSULATIONS = {
    **dict.fromkeys((2, 3), "PL_CDR"),
    **dict.fromkeys((6, 7), "PLAIN_CDR2 (XCDR2)"),
    **dict.fromkeys((8, 9), "DELIMITED_CDR (XCDR2)"),
    **dict.fromkeys((10, 11), "PL_CDR2 (XCDR2)"),
}
HEADER_TYPE = "std_msgs/msg/Header"


@cache
def typestore() -> Typestore:
    """The message types of ROS 2, of this package, and of the supported microphones."""
    result = get_typestore(Stores.ROS2_JAZZY)
    interfaces = files("sensebind") / "interfaces"
    found: dict[str, Any] = {}
    for package in ("sensebind_msgs", "audio_common_msgs", "foxglove_msgs", "ffmpeg_image_transport_msgs"):
        for file in sorted((interfaces / package / "msg").iterdir(), key=lambda f: f.name):
            if file.name.endswith(".msg"):
                name = f"{package}/msg/{file.name.removesuffix('.msg')}"
                found.update(get_types_from_msg(file.read_text(encoding="utf-8"), name))
    result.register(found)
    return result


class RosbagsMessageFactory:
    """Makes messages of rosbags' classes: an implementation of `messages.Types`."""

    def make(self, name: str, /, **fields: Any) -> Any:
        return typestore().types[name](**fields)

    def float_array(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32)


def load_typestore(channel: Channel) -> Typestore | str:
    """The types that read the messages of a channel, or the reason why there are none.

    rosbags' parsers raise many kinds of errors for a wrong definition.
    """
    known = _ros1_types() if channel.encoding == ROS1 else typestore()
    is_known = channel.type in known.types
    if channel.definition.format is MessageDefinitionFormat.NONE:
        return known if is_known else "the bag has no definition of it: record it as MCAP, which stores definitions"
    try:
        types = _parsed_types(channel.definition.format, channel.definition.data, channel.type)
        types.get_msgdef(channel.type)  # raises if the definition lacks a type that it uses
    except Exception as error:
        if not is_known:
            raise
        reason = " ".join(str(error).split())[:100]
        LOG.warning(
            "%s: the definition of '%s' in the recording cannot be parsed (%s): that of ROS is used instead",
            channel.topic, channel.type, reason,
        )  # fmt: skip
        return known
    if different := _different_field(types, channel.type):
        return f"their field '{different}' has another type than in ROS: check which package defines '{channel.type}'"
    return types


def _different_field(types: Typestore, type_name: str) -> str:
    """The first field, by its name, whose kind in `types` is not the kind that this program reads; empty if there is
    none, or if it does not read the type. Fields that one of the two lacks are left out: definitions get new ones."""
    if type_name not in typestore().fielddefs:
        return ""
    usual = dict(typestore().fielddefs[type_name][1])
    for name, kind in types.fielddefs[type_name][1]:
        if name in usual and _kind(kind) != _kind(usual[name]):
            return name
        if name in usual and kind[0] == Nodetype.NAME and (inner := _different_field(types, kind[1])):
            return f"{name}.{inner}"
    return ""


def _kind(kind: Any) -> tuple[bool, str]:
    """Whether a field is a list, and of what: a text, a number with or without a fraction, or messages of a type."""
    is_list = kind[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE)
    inner, name = kind[1][0] if is_list else kind
    if inner == Nodetype.NAME:
        return is_list, str(name)
    return is_list, name[0] if name[0] == "string" else "float" if name[0].startswith("float") else "integer"


@lru_cache(maxsize=256)
def _parsed_types(kind: MessageDefinitionFormat, text: str, type_name: str) -> Typestore:
    """The types of a definition. They are kept, because a recording is often opened more than once."""
    result = get_typestore(Stores.EMPTY)
    result.register(parse_definition(kind, text, type_name))
    return result


def deserialize_cdr(types: Typestore, data: bytes, type_name: str) -> Any:
    """The message in CDR bytes. Bytes after its end are ignored, as ROS ignores them: some recorders and converters pad
    messages. Raises what rosbags raises, and `SerdeError` for an encapsulation that is not read."""
    if len(data) >= 4 and (name := ENCAPSULATIONS.get(data[1])) is not None and not data[0]:
        raise SerdeError(f"they are serialized as {name}, not as CDR (XCDR1), which ROS uses: record them with ROS")
    try:
        return types.deserialize_cdr(data, type_name)
    except SerdeError as error:
        if "size mismatch" not in str(error):
            raise
    definition = types.get_msgdef(type_name)
    read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
    return read(data[4:], 0, definition.cls, types)[0]


def to_current_cdr(types: Typestore, channel: Channel, data: bytes) -> bytes | memoryview:
    """A message as CDR bytes of the current definition of its type."""
    if channel.encoding == ROS1:
        return _ros1_to_cdr(types, channel.type, data)
    name = channel.type
    if name not in typestore().types or types is typestore() or is_same_wireformat(types, typestore(), name, name):
        return data
    return migrate_bytes(types, typestore(), name, name, {}, data, src_is2=True, dst_is2=True)


def _ros1_to_cdr(types: Typestore, type_name: str, data: bytes) -> memoryview:
    """A ROS 1 message as CDR bytes of ROS 2: headers without `seq`; fields that are new in ROS 2 are 0 or empty."""
    if type_name not in typestore().types:
        return _without_seq(types).ros1_to_cdr(data, type_name)
    if is_same_wireformat(types, typestore(), type_name, type_name):
        return typestore().ros1_to_cdr(data, type_name)
    return migrate_bytes(types, typestore(), type_name, type_name, {}, data, src_is2=False, dst_is2=True)


@cache
def _ros1_types() -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC)


@lru_cache(maxsize=256)
def _without_seq(types: Typestore) -> Typestore:
    own = {**types.fielddefs, HEADER_TYPE: typestore().fielddefs[HEADER_TYPE]}
    result = get_typestore(Stores.EMPTY)
    result.register({name: definition for name, definition in own.items() if name not in result.fielddefs})
    return result
