"""Shows the progress of long work and the time left: a bar in a terminal; elsewhere a line every `LINE_INTERVAL`.

Everything is written to stderr, so stdout can be parsed. The bar is drawn by tqdm: small, maintained, MPL-2.0 and MIT,
and a package of Debian and of rosdep. It is imported when a bar is first drawn. Without it there are lines.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, TypeVar

from sensebind.fusion.core.errors import printable

FIRST_LINE = 10.0  # s until the first line: quick work writes none
LINE_INTERVAL = 30.0  # s between lines
FALLBACK_SIZE: dict[str, Any] = {"ncols": 80, "nrows": 24}  # of a terminal that does not say its size

T = TypeVar("T")


class Progress(Protocol):
    """The progress of some work, in the unit that `progress` was given."""

    def advance(self, amount: float = 1) -> None:
        """Add `amount` to the finished amount."""

    def reach(self, done: float) -> None:
        """Set the finished amount. A smaller value than before is ignored."""

    def note(self, text: str) -> None:
        """Show `text` beside the progress, for example the name of the current file."""

    def write(self, text: str) -> None:
        """Write a line to stderr, above the bar."""


@contextmanager
def progress(what: str, total: float | None, unit: str = "s") -> Iterator[Progress]:
    """A context manager that shows the progress of `what`. `total` is its whole amount; None: not known.

    `unit` is "s" for seconds of data, "B" for bytes, or the name of what is counted.
    """
    bar = _bar(what, total, unit) if sys.stderr.isatty() else None
    shown = bar or Lines(what, total, unit)
    try:
        yield shown
    finally:
        shown.close()


def track(items: Iterable[T], what: str, unit: str, total: int | None = None) -> Iterator[T]:
    """The items, with the progress through them. `total` is needed only if they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(what, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()


def duration_text(seconds: float) -> str:
    """A duration for people: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Lines:
    """Progress as lines: the first after `FIRST_LINE`, then one every `LINE_INTERVAL`."""

    def __init__(self, what: str, total: float | None, unit: str, stream: TextIO | None = None) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._stream = sys.stderr if stream is None else stream
        self._done, self._note = 0.0, ""
        self._began = time.monotonic()
        self._next = self._began + FIRST_LINE

    def advance(self, amount: float = 1) -> None:
        self.reach(self._done + amount)

    def reach(self, done: float) -> None:
        self._done = max(self._done, done)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_INTERVAL
            self.write(self._line(now - self._began))

    def note(self, text: str) -> None:
        self._note = text

    def write(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: a line needs no end."""

    def _line(self, elapsed: float) -> str:
        factor, unit = (1e-6, "MB") if self._unit == "B" else (1.0, self._unit)
        text = f"{self._what}: {self._done * factor:.0f}"
        if self._total:
            fraction = min(self._done / self._total, 1.0)
            text += f" of {self._total * factor:.0f} {unit} ({100 * fraction:.0f} %)"
            if fraction > 0:
                text += f", about {duration_text(elapsed * (1 - fraction) / fraction)} left"
        else:
            text += f" {unit} after {duration_text(elapsed)}"
        return f"{text}; {self._note}" if self._note else text


def line_bar_class() -> type[Any] | None:
    """A subclass of tqdm's bar that writes lines as `Lines` does, for libraries that show progress with tqdm. None in a
    terminal, where their own bars are right, and without tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    if sys.stderr.isatty():
        return None

    class LineBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            options |= {"mininterval": LINE_INTERVAL, "delay": FIRST_LINE, "leave": False, "disable": False}
            options |= {"bar_format": "{desc}: {n_fmt} of {total_fmt}, {remaining} left"}
            super().__init__(*args, **options)

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if msg is None:  # otherwise it clears the line of the bar
                print(str(self), file=sys.stderr, flush=True)

    return LineBar


class _TqdmBar:
    """Progress as a bar of tqdm."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, amount: float = 1) -> None:
        self._bar.update(amount)

    def reach(self, done: float) -> None:
        if done > self._bar.n:
            self._bar.update(done - self._bar.n)

    def note(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)

    def write(self, text: str) -> None:
        self._bar.write(printable(text), file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def _bar(what: str, total: float | None, unit: str) -> _TqdmBar | None:
    """A bar; None if tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    known = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # otherwise tqdm would draw nothing
    size = {} if known else FALLBACK_SIZE
    if unit == "B":
        return _TqdmBar(tqdm(desc=what, total=total, unit="B", unit_scale=True, leave=False, **size))
    left = "{remaining} left" if total else "{elapsed}"
    counted = "{n:.0f}" + (f" of {total:.0f}" if total else "") + f" {unit}"
    form = ("{desc} {percentage:3.0f}%|{bar}| " if total else "{desc} ") + f"{counted}, {left}" + "{postfix}"
    return _TqdmBar(tqdm(desc=what, total=total, bar_format=form, leave=False, **size))
