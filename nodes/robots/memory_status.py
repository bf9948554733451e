"""The status of the memory in `/diagnostics`: one for each robot of a process."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.fusion.stream.memory.budget import MemoryBudget
from sensebind.fusion.stream.memory.sizes import MEGABYTE, resident_bytes
from sensebind.fusion.stream.window_queue import HeldMemory
from sensebind.nodes.support.diagnostic_status import diagnostic_status


def memory_status(node: str, budget: MemoryBudget, held: Mapping[str, HeldMemory]) -> DiagnosticStatus:
    """The status ``<node>: memory`` of a robot. `budget`: of this process; that of a worker is its part of the limit.
    `held`: sensor → the bytes that are held."""
    resident = resident_bytes()
    values: dict[str, Any] = {
        "memory_limit_mb": budget.limit // MEGABYTE,
        "memory_mb": _megabytes(resident),
        "buffered_mb": _megabytes(sum(own.samples + own.windows for own in held.values())),
        "process": os.getpid(),
    }
    warnings = []
    if budget.limit and resident > budget.limit:
        limit = "memory_limit_mb" if budget.part is None else "the part of this worker"
        warnings.append(f"{values['memory_mb']} MB are resident, more than {limit}: raise it, or use fewer sensors")
    for sensor, own in held.items():
        values[f"{sensor}.buffered_mb"] = _megabytes(own.samples + own.windows)
        values[f"{sensor}.share_mb"] = _megabytes(2 * own.share)
        if own.largest_refused:
            warnings.append(_size_warning(budget, sensor, own.largest_refused))
    level, text = (DiagnosticStatus.WARN, ", ".join(warnings)) if warnings else (DiagnosticStatus.OK, "OK")
    return diagnostic_status(node, "memory", level, text, values)


def _size_warning(budget: MemoryBudget, sensor: str, size: int) -> str:
    text = f"messages of {sensor} with {_megabytes(size)} MB do not fit its share, and are dropped (overflow)"
    if not budget.limit:
        return f"{text}: without memory_limit_mb, a message may have {_megabytes(budget.share(sensor)) / 3:.0f} MB"
    return f"{text}: set memory_limit_mb to at least {math.ceil(budget.limit_for(sensor, size) / MEGABYTE)}"


def _megabytes(size: int) -> float:
    return round(size / MEGABYTE, 1)
