"""A control beside a measurement: a process that does the same short work again and again, and how long each took.

Where the control's longest times are far above its median, the machine itself was slow at times (a virtual machine that
others share, for example), and so was whatever was measured then.
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

PERIOD = 0.01  # s from one piece of work to the next
WORK = range(60_000)  # one piece: the sum of these, about 2 ms
CHILD = f"from {__name__} import child; child()"
GRACE = 10.0  # s for the control to print its times


@contextmanager
def control() -> Iterator[dict[str, Any]]:
    """Run the control while the block runs. Afterwards the dictionary holds `control_ms`: quantiles of its times in ms.

    It holds `control_failed` instead, with the reason, where the control gave no times.
    """
    # Imported here, so that the child imports nothing heavy.
    from sensebind.benchmarks.harness.figures import quantiles
    from sensebind.benchmarks.harness.processes import child_environment

    found: dict[str, Any] = {}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    try:
        yield found
    finally:
        try:
            printed, errors = process.communicate(timeout=GRACE)  # closes its standard input: it ends
            found["control_ms"] = quantiles([1e3 * took for took in json.loads(printed)])
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            found["control_failed"] = f"it did not end within {GRACE:g} s"
        except ValueError:
            found["control_failed"] = errors.strip()[-300:] or f"exit status {process.returncode}"


def child() -> None:
    """Work until standard input is closed; then print the times in s as JSON. Runs in the control's process."""
    times: list[float] = []
    while not select([sys.stdin], [], [], PERIOD)[0]:
        began = time.perf_counter()
        sum(WORK)
        times.append(time.perf_counter() - began)
    print(json.dumps(times))
