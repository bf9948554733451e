"""Values, texts and bytes as a broken or hostile sender makes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

INTEGERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**k + d for k in (7, 8, 15, 16, 24, 31, 32, 53, 62, 63, 64, 200) for d in (-1, 0, 1)]),
    st.integers(-(2**70), 2**70),
)
UINT32 = INTEGERS.map(lambda value: value % 2**32)
UINT8 = INTEGERS.map(lambda value: value % 2**8)
INT32 = INTEGERS.map(lambda value: (value + 2**31) % 2**32 - 2**31)
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, math.inf, -math.inf, math.nan, 9.81, 1.0, -1.0]),
)
NAMES = [
    "",
    "a",
    "../x",
    "/",
    "~",
    "\n[ERROR] forged",
    "\x1b[31mred",
    "<script>",
    "a" * 300,
    "a" * 3000,
    "/**",
    "\u2028\u2029\u0085",
    "\ufeff",
    "NaN",
    "1e999",
    "-0",
    "0x7fffffffffffffff",
    "é\u202e\u0000",
    "%s%n{0}",
]
TEXTS = st.one_of(st.sampled_from(NAMES), st.text(max_size=20))
EDITS = ("flip", "set", "cut", "remove", "repeat", "insert", "number", "swap", "length", "splice")
# The number of edits: mostly one or two, because an input with many is refused at the first check. None: a valid one.
FEW = st.sampled_from([0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 8])


@st.composite
def mutated(draw: st.DrawFn, valid: Sequence[bytes], first: int = 0) -> bytes:
    """One of the `valid` inputs after a few edits: bits, bytes, numbers, lengths and pieces that are changed, removed,
    repeated, exchanged, cut off, or from another input. `first`: bytes at the start that are never changed."""
    head = draw(st.sampled_from(valid))
    data, head = bytearray(head[first:]), head[:first]
    edits = st.tuples(st.sampled_from(EDITS), st.integers(0, 2**24), st.integers(0, 64), INTEGERS)
    for _ in range(draw(FEW)):
        kind, place, size, value = draw(edits)
        # A third of the places are in the first bytes, where headers are, and a third in the last ones: indexes.
        at = place // 3 % max(1, len(data) if place % 3 == 0 else min(len(data), 128))
        at = max(0, len(data) - 1 - at) if place % 3 == 2 else at
        if kind == "flip" and data:
            data[at] ^= 1 << size % 8
        elif kind == "set":
            data[at : at + size] = bytes([value % 256]) * len(data[at : at + size])
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * (1 + value % 50)
        elif kind == "insert":
            data[at:at] = (value % 2**64).to_bytes(8, "little")[: 1 + size % 8] * (1 + size)
        elif kind == "number":
            width = (1, 2, 4, 8)[size % 4]
            order = "big" if size // 4 % 2 else "little"
            data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == "length":  # a number that may be a length is a little wrong, or the data end after what it counts
            _change_length(data, at, size, value)
        elif kind == "splice":
            other_input = valid[value % len(valid)]
            start = place % max(1, len(other_input))
            data[at : at + size * 4] = other_input[start : start + size * 4]
        else:
            other = value % max(1, len(data))
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
    return head + bytes(data)


def _change_length(data: bytearray, at: int, size: int, value: int) -> None:
    """Change the first number of 4 bytes from `at` on that could be the length of something in the data."""
    for start in range(at, min(at + 400, len(data) - 4)):
        for order in ("little", "big"):
            length = int.from_bytes(data[start : start + 4], order)  # type: ignore[arg-type]
            if 0 < length <= len(data):
                if size % 4 == 0:
                    del data[start + 4 + length :]
                    return
                changed = (length + 1, length - 1, length * 2, 0, value)[size % 5] % 2**32
                data[start : start + 4] = changed.to_bytes(4, order)  # type: ignore[arg-type]
                return


def framed(parts: Sequence[bytes]) -> bytes:
    """Several messages in one input: each after its length, 4 bytes."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unframed(data: bytes) -> list[bytes]:
    """The messages of `framed`."""
    parts = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "little")
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    return parts
