"""A control process beside a measurement: it repeats one short piece of work and records how long each piece took.

If the control's longest times are far above its median, the machine itself was slow at times (for example a shared
virtual machine). Then the measurement was slow at those times too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from typing import Any

PAUSE = 0.01  # s between two pieces of work
WORK_ITEMS = range(60_000)  # one piece of work is the sum of these: 1 to 2 ms
CHILD_COMMAND = f"from {__name__} import child_main; child_main()"
EXIT_TIMEOUT = 10.0  # s for the control to print its times


@contextmanager
def control() -> Iterator[dict[str, Any]]:
    """Run the control while the block runs. Afterwards the dictionary holds `control_ms`: quantiles of its times in ms.

    If the control failed, the dictionary holds `control_failed` instead: the reason.
    """
    # Imported here, so that the child imports nothing heavy.
    from sensebind.benchmarks.harness.processes import subprocess_environment
    from sensebind.benchmarks.harness.timing import quantiles

    found: dict[str, Any] = {}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD_COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=subprocess_environment(),
    )
    try:
        yield found
    finally:
        try:
            printed, errors = process.communicate(timeout=EXIT_TIMEOUT)  # closes its standard input, which ends it
            found["control_ms"] = quantiles([1e3 * took for took in json.loads(printed)])
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found["control_failed"] = f"it did not end within {EXIT_TIMEOUT:g} s"
        except ValueError:
            found["control_failed"] = errors.strip()[-300:] or f"exit status {process.returncode}"


def child_main() -> None:
    """Work until standard input is closed; then print the times in s as JSON. Runs in the control's process."""
    times: list[float] = []
    while not select([sys.stdin], [], [], PAUSE)[0]:
        began = time.perf_counter()
        sum(WORK_ITEMS)
        times.append(time.perf_counter() - began)
    print(json.dumps(times))
