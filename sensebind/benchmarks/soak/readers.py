"""Programs that read from a ZeroMQ publisher, each in its own process, and count what they received and lost.

`python -m sensebind.benchmarks.soak.readers ADDRESS PAUSE` reads one message, then waits PAUSE seconds, until it is
killed. It writes a line of JSON at the first message, and then at most twice a second: {time, received, lost, before}.
`lost`: gaps in the sequence numbers of each topic. `before`: messages of these topics before its first one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPORT_PERIOD = 0.5  # s
SLOW_PAUSE = 1.0  # s between two messages that the slow reader reads
DRAIN = 20.0  # s for the fast reader to read what waits for it


class Reader:
    """A reader process, which can be killed and started again. `folder`: for the lines that it writes. As a context
    manager it is killed at the end."""

    def __init__(self, name: str, address: str, pause: float, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = [sys.executable, "-m", __name__, address, str(pause)]
        self._folder, self._environment = folder, dict(environment)
        self.starts: list[float] = []  # s since the epoch
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is None:
            self.starts.append(time.time())
            with self._log(len(self.starts)).open("wb") as file:
                self._process = subprocess.Popen(self._command, stdout=file, env=self._environment)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def reports(self, number: int = 0) -> list[dict[str, Any]]:
        """The lines that the process has written since its start `number`, counted from 1; 0: the newest start."""
        lines = self._log(number or len(self.starts)).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def counts(self) -> dict[str, int]:
        """The newest counts of all starts together: received, lost, before."""
        newest = [reports[-1] for n in range(len(self.starts)) if (reports := self.reports(n + 1))]
        return {name: sum(counts[name] for counts in newest) for name in ("received", "lost", "before")}

    def first_messages(self) -> list[float | None]:
        """When each start received its first message, in s since the epoch; None: it received none."""
        every = [self.reports(n + 1) for n in range(len(self.starts))]
        return [float(reports[0]["time"]) if reports else None for reports in every]

    def _log(self, number: int) -> Path:
        return self._folder / f"{self.name.replace(' ', '_')}_{number}.jsonl"


def drained(reader: Reader, published: int, seconds: float) -> bool:
    """Wait until a reader has received or missed all messages, at most `seconds`. Returns whether it has."""
    deadline = time.monotonic() + seconds
    while sum(reader.counts().values()) != published:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def main(address: str, pause: float) -> None:
    """Read until the process is killed."""
    import msgpack
    import zmq

    socket = zmq.Context().socket(zmq.SUB)
    socket.connect(address)
    socket.subscribe("")
    expected: dict[bytes, int] = {}  # topic → sequence number of its next message
    counts = {"received": 0, "lost": 0, "before": 0}
    reported, last = -1, 0.0
    while True:
        if socket.poll(100):
            topic, payload = socket.recv_multipart()
            sequence = msgpack.unpackb(payload)["sequence"]
            counts["received"] += 1
            if topic in expected:
                counts["lost"] += sequence - expected[topic]
            else:
                counts["before"] += sequence
            expected[topic] = sequence + 1
        if counts["received"] > reported and (reported < 1 or time.monotonic() - last > REPORT_PERIOD):
            if counts["received"]:
                print(json.dumps({"time": time.time(), **counts}), flush=True)
            reported, last = counts["received"], time.monotonic()
        time.sleep(pause)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
