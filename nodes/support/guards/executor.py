"""Guards the executor of a node: an error of rclpy's own callbacks does not end the process."""

from __future__ import annotations

import time
from typing import Any

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from sensebind.fusion.core.errors import error_text
from sensebind.fusion.io.received.refusals import Refusals

MAX_FAILED_WAITS = 10_000  # in a row; the middleware does not work any more


class GuardedExecutor(SingleThreadedExecutor):
    """An executor that goes on after an error of a callback, so that no request or message ends the process.

    The callbacks of nodes handle their errors themselves. rclpy's own callbacks raise some: that of `/clock` for a
    negative time, those of the parameter services for a value of no type. Such an error is logged, once for its kind.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._log, self._refusals, self._failed_waits = logger, Refusals(), 0

    def wait_for_ready_callbacks(self, *arguments: Any, **options: Any) -> Any:
        """See rclpy."""
        found = super().wait_for_ready_callbacks(*arguments, **options)
        self._failed_waits = 0  # an error from here on is one of the callback, however many there are
        return found

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """See rclpy. Raises an error only if the wait for callbacks fails again and again: no callback can run then."""
        self._failed_waits += 1
        try:
            super().spin_once(timeout_sec)
            self._failed_waits = 0
        except ExternalShutdownException:
            raise
        except Exception as error:  # of any kind: the other callbacks must continue
            if self._failed_waits >= MAX_FAILED_WAITS:
                raise
            text, now = error_text(error), time.monotonic()
            place = text.rpartition(" (")[2]
            if line := self._refusals.add(place, f"a message or a request was refused: {text}", now):
                self._log.warning(line)
