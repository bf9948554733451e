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
    "é\u202e\u0000",
    "%s%n{0}",
]
TEXTS = st.one_of(st.sampled_from(NAMES), st.text(max_size=20))
EDITS = ("flip", "set", "cut", "remove", "repeat", "insert", "number", "swap")


@st.composite
def mutated(draw: st.DrawFn, valid: Sequence[bytes], most: int = 6) -> bytes:
    """One of the `valid` inputs after up to `most` edits: bits, bytes, numbers and pieces that are changed, removed,
    repeated, exchanged or cut off."""
    data = bytearray(draw(st.sampled_from(valid)))
    edits = st.tuples(st.sampled_from(EDITS), st.integers(0, 2**24), st.integers(0, 64), INTEGERS)
    for kind, place, size, value in draw(st.lists(edits, max_size=most)):
        # Half of the places are in the first bytes, where headers are.
        at = place // 2 % max(1, len(data) if place % 2 else min(len(data), 128))
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
        else:
            other = value % max(1, len(data))
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
    return bytes(data)


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
