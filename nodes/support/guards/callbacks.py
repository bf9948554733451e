"""Guards the callbacks of a node: no message ends it, and what cannot be used is counted and logged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from sensebind.fusion.core.errors import error_text
from sensebind.fusion.io.received.refusals import Refusals
from sensebind.fusion.io.received.values import RefusedMessage


class CallbackGuard:
    """Passes the messages of a node to callbacks that raise `RefusedMessage` for those that they cannot use.

    A refused message is counted and logged (`Refusals`), and the node goes on. Any other error of a callback is treated
    in the same way, with the cause `error`: no message ends the process. All methods run in the executor's thread.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._refusals = node, Refusals()

    def guarded(self, kind: str, source: str, use: Callable[[Any], None]) -> Callable[[Any], None]:
        """The callback of a subscription. `kind`: of its messages, such as ``embedding``. `source`: its topic."""

        def on_message(message: Any) -> None:
            try:
                use(message)
            except RefusedMessage as error:
                self.refuse(f"{kind}.{error.cause}", f"{source}: a message was refused: {error}")
            except Exception as error:  # no error of a message may end the node
                self.refuse(f"{kind}.error", f"{source}: a message could not be used: {error_text(error)}")

        return on_message

    def timed(self, kind: str, work: Callable[[], None]) -> Callable[[], None]:
        """The callback of a timer that goes on with accepted messages. Errors are counted as in `guarded`."""

        def on_timer() -> None:
            try:
                work()
            except Exception as error:  # caused by a message: no error of one may end the node
                self.refuse(f"{kind}.error", f"{kind}: messages could not be used: {error_text(error)}")

        return on_timer

    def refuse(self, kind: str, text: str) -> None:
        """Count a refused message, and log it if it is the first of its kind, or the first for a time."""
        if line := self._refusals.add(kind, text, time.monotonic()):
            self._node.get_logger().warning(line)

    @property
    def warning(self) -> str:
        """What was refused lately, for the status of the node; empty if nothing."""
        return self._refusals.warning(time.monotonic())

    def values(self) -> dict[str, int]:
        """The counts for the diagnostics."""
        return self._refusals.values()
