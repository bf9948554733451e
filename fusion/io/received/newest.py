"""Dictionaries that the messages of other programs fill, and that keep only their newest entries."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_newest(entries: dict[K, V], key: K, value: V, most: int) -> None:
    """Set an entry, as the newest one, and forget those that were not set for longest, if there are more than `most`.

    Others may send ever new topics, spaces or publishers.
    """
    entries.pop(key, None)
    entries[key] = value
    while len(entries) > most:
        del entries[next(iter(entries))]
