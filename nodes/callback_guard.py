"""Guards the callbacks of a node: no message ends it, and what cannot be used is counted and logged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription

from sensebind.fusion.core.errors import error_text
from sensebind.fusion.io.received.refusals import Refusals
from sensebind.fusion.io.received.values import RefusedMessage
from sensebind.nodes.support.message_types import message_type

CDR_HEADER = 4  # bytes before the fields of a message. Its last two bits are the bytes of padding at the end


def read_message(type_name: str, data: bytes) -> Any:
    """The message in the bytes that a subscription with `raw=True` received. Raises `RefusedMessage`.

    Fast CDR 2.2.7 to 2.3.5 reads past the end of a header without fields that claims padding: what then happens
    depends on what is there, and may be SIGSEGV. So its length is checked first.
    """
    if len(data) <= CDR_HEADER:
        raise RefusedMessage("malformed", f"it has {len(data)} bytes: no field of {type_name} is in them")
    try:
        return deserialize_message(data, message_type(type_name))
    except Exception as error:  # of the middleware, which has a type of its own for it in each distribution
        raise RefusedMessage("malformed", f"its {len(data)} bytes are no {type_name}: {error_text(error)}") from error


class CallbackGuard:
    """Passes the messages of a node to callbacks that raise `RefusedMessage` for those that they cannot use.

    A refused message is counted and logged (`Refusals`), and the node goes on. Any other error of a callback is treated
    in the same way, with the cause `error`: no message ends the process. All methods run in the executor's thread.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._refusals = node, Refusals()

    def subscribe(
        self, kind: str, type_name: str, topic: str, use: Callable[[Any], None], qos: QoSProfile
    ) -> Subscription[Any]:
        """Subscribe to a topic with small messages: their bytes are checked before they are read. `kind`, `use`: as in
        `guarded`. It costs about 0.04 ms for each message; for a large image it would cost milliseconds."""
        use_message = self.guarded(
            kind, self._node.resolve_topic_name(topic), lambda data: use(read_message(type_name, data))
        )
        return self._node.create_subscription(message_type(type_name), topic, use_message, qos, raw=True)

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
