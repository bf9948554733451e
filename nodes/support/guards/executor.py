"""Guards the executor of a node: an error of rclpy's own callbacks does not end the process."""

from __future__ import annotations

import time
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from sensebind.fusion.core.errors import error_text
from sensebind.fusion.io.received.refusals import Refusals

MAX_ERRORS_IN_A_ROW = 10_000  # of callbacks; more are no longer caused by messages


class GuardedExecutor(SingleThreadedExecutor):
    """An executor that goes on after an error of a callback, so that no request or message ends the process.

    The callbacks of nodes handle their errors themselves. rclpy's own callbacks raise some: that of `/clock` for a
    negative time, those of the parameter services for a value of no type. Such an error is logged, once for its kind.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._log, self._refusals, self._errors_in_a_row = logger, Refusals(), 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """See rclpy. Raises the error of a callback only if nothing but errors came for a long time."""
        try:
            super().spin_once(timeout_sec)
            self._errors_in_a_row = 0
        except ExternalShutdownException:
            raise
        except Exception as error:  # of any kind: the other callbacks must continue
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
                raise
            text, now = error_text(error), time.monotonic()
            place = text.rpartition(" (")[2]
            if line := self._refusals.add(place, f"a message or a request was refused: {text}", now):
                self._log.warning(line)
