"""Changes of structured inputs: trees of mappings and lists, tables, and messages of ROS."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype

from fuzz.hostile_values import FEW, INTEGERS, NUMBERS, TEXTS
from sensebind.fusion.io.recordings.message_types import typestore

# Values of any kind that YAML and JSON can have.
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, NUMBERS, TEXTS, st.just([]), st.just({}))
TREE_EDITS = ("replace", "replace", "near", "near", "remove", "wrap", "deepen", "copy", "rename", "repeat", "swap")
FLOATS = ("float32", "float64")
MOST_ITEMS = 300  # of a list that an edit makes longer; so the input itself stays small
# Of a tree, and of a message, that edits make longer: each may multiply what another did.
MOST_VALUES, MOST_BYTES = 5000, 2**20


@st.composite
def changed_tree(draw: st.DrawFn, valid: Sequence[Any], leaves: st.SearchStrategy[Any] = LEAVES) -> Any:
    """One of the `valid` trees after a few edits: values that are replaced, removed, moved, repeated and nested."""
    tree = [copy.deepcopy(draw(st.sampled_from(valid)))]
    for _ in range(draw(FEW)):
        if not (places := list(_places(tree))):
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        _edit(draw, draw(st.sampled_from(TREE_EDITS)), holder, key, places, leaves)
    return tree[0] if tree else None


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _edit(
    draw: st.DrawFn, kind: str, holder: Any, key: Any, places: list[tuple[Any, Any]], leaves: st.SearchStrategy[Any]
) -> None:
    value = holder[key]
    if kind == "near":
        holder[key] = draw(near_value(value, leaves))
    elif kind == "remove":
        del holder[key]
    elif kind == "wrap":
        holder[key] = [value] if draw(st.booleans()) else {"a": value}
    elif kind == "deepen":
        for _ in range(draw(st.sampled_from([3, 30, 60, 300]))):
            value = [value]
        holder[key] = value
    elif kind == "copy":
        other, name = places[draw(st.integers(0, len(places) - 1))]
        if (isinstance(other, dict) or name < len(other)) and len(places) < MOST_VALUES:
            holder[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other[name])
    elif kind == "rename" and isinstance(holder, dict):
        holder[draw(TEXTS)] = holder.pop(key)
    elif kind == "repeat":
        most = MOST_VALUES // (1 + sum(1 for _ in _places(value)))
        holder[key] = [copy.deepcopy(value) for _ in range(min(draw(st.sampled_from([0, 2, 3, 20, 300])), most))]
    elif kind == "swap" and isinstance(holder, list):
        holder.reverse()
    else:
        holder[key] = draw(leaves)


@st.composite
def near_value(draw: st.DrawFn, value: Any, leaves: st.SearchStrategy[Any] = LEAVES) -> Any:
    """A value of the same type that is a little or very different, so that it passes the checks of types."""
    if isinstance(value, bool) or value is None:
        return draw(st.one_of(st.booleans(), leaves))
    if isinstance(value, (int, float)):
        factor = draw(st.sampled_from([0, -1, 0.5, 2, 10, 1000, 1e-3, 1e9, 1e-9, 1e18]))
        with np.errstate(all="ignore"):
            near = float(value) * factor if abs(value) < 1e200 else value
        return draw(st.one_of(st.just(type(value)(near) if np.isfinite(near) else near), NUMBERS, INTEGERS))
    if isinstance(value, str):
        return draw(
            st.one_of(
                st.just(value * 2),
                st.just(value[: len(value) // 2]),
                st.just(value.upper()),
                TEXTS,
                TEXTS.map(lambda text: value + text),
            )
        )
    return draw(leaves)


@st.composite
def changed_table(draw: st.DrawFn, valid: Sequence[bytes], separators: Sequence[str]) -> bytes:
    """One of the `valid` tables of text after a few edits of cells, rows and columns."""
    text = draw(st.sampled_from(valid)).decode()
    separator = next((s for s in separators if s in text), separators[0])
    rows = [line.split(separator) for line in text.split("\n")]
    for _ in range(draw(FEW)):
        row = draw(st.integers(0, len(rows) - 1)) if len(rows) > 1 else 0
        column = draw(st.integers(0, max(0, len(rows[row]) - 1)))
        kind = draw(st.sampled_from(("number", "number", "text", "remove", "insert", "repeat", "swap", "join", "back")))
        if kind == "number" and rows[row]:
            number = draw(st.one_of(NUMBERS, INTEGERS))
            rows[row][column] = str(number)
        elif kind == "text" and rows[row]:
            rows[row][column] = draw(
                st.one_of(TEXTS, st.sampled_from(['"', '"a""b"', "'", "1e400", "-", "x" * 200_000]))
            )
        elif kind == "remove" and rows[row]:
            del rows[row][column]
        elif kind == "insert":
            rows[row].insert(column, draw(TEXTS))
        elif kind == "repeat":
            rows[row:row] = [rows[row]] * draw(st.sampled_from([1, 2, 500]))
        elif kind == "swap":
            rows[row], rows[-1] = rows[-1], rows[row]
        elif kind == "back":
            rows.sort(key=str, reverse=True)
        else:
            rows[row] = [separator.join(rows[row])]
    ending = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-16", "utf-8-sig", "latin-1"]))
    return ending.join(separator.join(row) for row in rows).encode(encoding, "replace")


@st.composite
def changed_message(draw: st.DrawFn, message: Any) -> bytes:
    """The bytes of a message of ROS (made with rosbags) after a few of its fields have other values of their type."""
    changed = copy.deepcopy(message)
    for _ in range(draw(FEW)):
        fields = list(_fields(changed))
        holder, name, kind = fields[draw(st.integers(0, len(fields) - 1))]
        before = getattr(holder, name)
        setattr(holder, name, draw(_field_value(kind, before)))
        if _size(changed) > MOST_BYTES:
            setattr(holder, name, before)
    return bytes(typestore().serialize_cdr(changed, changed.__msgtype__))


def _fields(message: Any) -> Iterator[tuple[Any, str, Any]]:
    """(message, name, type) of every field, also of the messages inside."""
    for name, kind in typestore().get_msgdef(message.__msgtype__).fields:
        value = getattr(message, name)
        yield message, name, kind
        if kind[0] == Nodetype.NAME:
            yield from _fields(value)
        elif kind[1][0][0] == Nodetype.NAME if kind[0] in (Nodetype.SEQUENCE, Nodetype.ARRAY) else False:
            for item in value:
                yield from _fields(item)


def _size(value: Any) -> int:
    """About the bytes of a message."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple)):
        return 4 + sum(map(_size, value))
    return sum(map(_size, vars(value).values())) if hasattr(value, "__msgtype__") else 8


def _field_value(kind: Any, value: Any) -> st.SearchStrategy[Any]:
    if kind[0] == Nodetype.BASE:
        return _base_value(kind[1][0], value)
    if kind[0] == Nodetype.SEQUENCE and kind[1][0][0] == Nodetype.BASE:
        base = kind[1][0][1][0]
        if base == "string":
            return st.lists(_base_value(base, ""), max_size=4)
        return st.one_of(
            st.just(value[:0]),
            st.just(value[: len(value) // 2]),
            st.sampled_from([2, 3, 200]).map(lambda count: np.tile(value, count)[: 50 * MOST_ITEMS]),
            st.tuples(st.integers(0, 2**20), _base_value(base, 0)).map(lambda edit: _with_element(value, *edit)),
        )
    if kind[0] == Nodetype.SEQUENCE:
        return st.sampled_from([0, 0, 2, 3, 70, 300]).map(lambda count: ([*value] * count)[:MOST_ITEMS])
    return st.just(value)


def _with_element(values: Any, place: int, element: Any) -> Any:
    result = np.array(values)
    if result.size:
        with np.errstate(all="ignore"):
            result[place % result.size] = element
    return result


def _base_value(base: str, value: Any) -> st.SearchStrategy[Any]:
    """Values of a type of ROS, half of them near to `value`."""
    if base == "string":
        texts = st.one_of(TEXTS, st.sampled_from(["x" * 20_000, value * 2, value.upper()]))
        return texts.map(lambda text: text.replace("\0", ""))
    if base == "bool":
        return st.booleans()
    if base in FLOATS:
        near = st.sampled_from([0.0, -1.0, 0.5, 2.0, 1000.0]).map(lambda factor: float(value) * factor)
        largest = float(np.finfo(base).max)
        return st.one_of(near, NUMBERS).map(
            lambda number: number if abs(number) <= largest else np.sign(number) * np.inf
        )
    bits = int("".join(filter(str.isdigit, base)) or 8)
    low = 0 if base[0] in "ub" or base == "char" else -(2 ** (bits - 1))
    numbers = st.one_of(st.integers(-2, 2).map(lambda step: int(value) + step), INTEGERS)
    return numbers.map(lambda number: (number - low) % 2**bits + low)
