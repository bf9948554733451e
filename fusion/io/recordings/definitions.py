"""Parses definitions of messages, which a recording contains, with limits on the work that they cause.

rosbags parses IDL by trying: its time grows 40 times with each level of parentheses. It calculates constants (`1 <<
9999999999`), and it generates code of one line for each element of an array of messages or texts. The definitions of
ROS have no calculations, and few such arrays.
"""

from __future__ import annotations

import re
from typing import Any

from rosbags.interfaces import MessageDefinitionFormat, Nodetype
from rosbags.typesys import get_types_from_idl, get_types_from_msg

# Characters. rosbags takes up to 10 s for so many of IDL; the definition of an image has 3,000.
MAX_LENGTHS = {MessageDefinitionFormat.MSG: 2**18, MessageDefinitionFormat.IDL: 2**16}
MAX_FIELDS = 2000  # of all types of a definition, where an array of messages or texts counts with all its elements
RULE = "=" * 80 + "\n"  # before each of several IDL files, with a line of its name
_TEXTS_AND_COMMENTS = re.compile(r'"(?:\\.|[^"\\])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)
_ANNOTATION = re.compile(r"@\s*\w+\s*\(")  # its parameters have the only parentheses that ROS writes
_CALCULATION = re.compile(r"\(|<<|>>\s*\d|\*")


def parse_definition(kind: MessageDefinitionFormat, text: str, type_name: str) -> dict[str, Any]:
    """The types of a definition: name → (constants, fields), as rosbags registers them.

    Raises `ValueError` for one that is longer or has more fields than a definition of ROS, and what rosbags raises.
    """
    text = text.replace("\r\n", "\n")
    if len(text) > MAX_LENGTHS[kind]:
        raise ValueError(f"it has {len(text):,} characters, and the limit is {MAX_LENGTHS[kind]:,}")
    found: dict[str, Any] = {}
    if kind is MessageDefinitionFormat.MSG:
        found.update(get_types_from_msg(text, type_name))
    else:
        if _CALCULATION.search(_ANNOTATION.sub("", _TEXTS_AND_COMMENTS.sub("", text))):
            raise ValueError("it has calculations, which definitions of ROS do not have")
        for part in [part.split("\n", 1)[1] for part in text.split(RULE)[1:]] if text.startswith(RULE) else [text]:
            found.update(get_types_from_idl(part))
    if (fields := sum(_elements(kind) for _, own in found.values() for _, kind in own)) > MAX_FIELDS:
        raise ValueError(f"it has {fields:,} fields, with the elements of arrays, and the limit is {MAX_FIELDS}")
    return found


def _elements(kind: Any) -> int:
    """The fields that one of this type stands for. Raises `ValueError` for an array without elements."""
    if kind[0] != Nodetype.ARRAY:
        return 1
    (inner, name), size = kind[1]
    if size < 1:
        raise ValueError(f"it has an array of {size} elements")
    return int(size) if inner == Nodetype.NAME or name[0] == "string" else 1
