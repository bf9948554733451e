"""What a search for the messages of a file without a usable index finds: its blocks and its damage.

`mcap_file` and `ros1_file` read the records of their formats in the order of the file, and add here what they find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sensebind.fusion.io.recordings.bag_file import RUN_BYTES, Block, message_counts, readable_text


class BlockSearch:
    """The blocks of a file that a search has found so far, and the damage. `name`: of the file, for texts."""

    def __init__(self, name: str) -> None:
        self.blocks: list[Block] = []
        self.damage: list[str] = []
        self._name = name
        # Messages outside of chunks since the last block: channel → how many, where they begin, and their log times.
        self._run: Counter[int] = Counter()
        self._run_start = self._first = self._last = 0

    def counts(self) -> Counter[int]:
        """Id of a channel → its messages in all blocks."""
        return message_counts(self.blocks)

    def add_message(self, channel: int, stamp: int, at: int, end: int) -> None:
        """Add a message outside of chunks, whose record is from byte `at` to `end`. Those in a row become blocks of
        about `RUN_BYTES`."""
        if self._run and end - self._run_start > RUN_BYTES:
            self.end_run(at)
        if not self._run:
            self._run_start, self._first, self._last = at, stamp, stamp
        self._run[channel] += 1
        self._first, self._last = min(self._first, stamp), max(self._last, stamp)

    def end_run(self, end: int) -> None:
        """Make a block of the messages outside of chunks since the last block, which end at or before byte `end`."""
        if self._run:
            length = end - self._run_start
            self.blocks.append(Block(self._first, self._last, self._run_start, length, dict(self._run), is_chunk=False))
            self._run = Counter()

    def add_chunk(
        self, at: int, end: int, messages: Sequence[tuple[int, int]], problem: str, *, is_cut: bool = False
    ) -> None:
        """Add the chunk from byte `at` to `end`, with the channel and the log time of its messages up to the first
        damage. `problem`: the damage, empty if there is none. `is_cut`: the file ends within it, which is described as
        the end of the file."""
        self.end_run(at)
        if messages:
            stamps = [stamp for _, stamp in messages]
            counts = Counter(channel for channel, _ in messages)
            self.blocks.append(Block(min(stamps), max(stamps), at, end - at, counts, is_cut=bool(problem)))
        if problem and not is_cut:
            self.damage.append(
                f"'{self._name}' is damaged at byte {at}: of a chunk of {end - at} bytes, {len(messages)} messages can "
                f"be read ({problem})"
            )

    def finish(self, end: int, problem: str = "", remedy: str = "") -> None:
        """End the search at byte `end`. `problem`: why it ended there, if that is not the end of the file. `remedy`:
        what else the user can do."""
        self.end_run(end)
        if problem:
            first, last = min((b.start for b in self.blocks), default=0), max((b.end for b in self.blocks), default=0)
            self.damage.append(f"'{self._name}' {problem}; {readable_text(self.counts().total(), first, last)}{remedy}")
