"""Guards the callbacks of a node: no message ends it, each is counted, and what cannot be used is logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from sensebind.fusion.core.errors import error_text
from sensebind.fusion.io.received.newest import put_newest
from sensebind.fusion.io.received.refusals import Refusals
from sensebind.fusion.io.received.sequences import TopicLosses
from sensebind.fusion.io.received.values import RefusedMessage
from sensebind.fusion.stream.accounting.topics import MAX_TOPICS, REFUSED, USED, TopicCounts
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.rclpy_compat import numbered_subscription

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
    in the same way, with the cause `error`: no message ends the process. `counts`: what became of the messages of each
    topic. Each message has one end: it is used, refused, or dropped. All methods run in the executor's thread.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._refusals, self.counts = node, Refusals(), TopicCounts()
        self._losses: dict[str, TopicLosses] = {}  # of the newest topics, also after a subscription has ended

    def subscribe(
        self, kind: str, type_name: str, topic: str, use: Callable[[Any], None], qos: QoSProfile, end: str = ""
    ) -> Any:
        """Subscribe to a topic with small messages: their bytes are checked before they are read. It costs about
        0.04 ms for each message; for a large image it would cost milliseconds. Returns the subscription. If its queue
        holds one message, only the newest matters, and none counts as lost.

        `kind`: of the messages, such as ``embedding``. `end`: what a message is used for if `use` returns; empty: `use`
        counts what became of it, once, in `counts`, and then raises nothing.
        """
        counts, name = self.counts.of(topic), self._node.resolve_topic_name(topic)
        known = ("arrived", "lost", "earlier")
        losses = self._losses.get(name) or TopicLosses(lambda: self._node.count_publishers(name))
        put_newest(self._losses, name, losses, MAX_TOPICS)
        losses.resume(lambda: sum(counts[part] for part in known))

        def on_message(data: bytes, number: int | None, publisher: bytes | None) -> None:
            earlier, lost = losses.missing_before(number, publisher) if qos.depth > 1 else (0, 0)
            counts.update(arrived=1, earlier=earlier, lost=lost)
            cause = self._use(kind, name, lambda: use(read_message(type_name, data)))
            if cause or end:
                counts[REFUSED + cause if cause else USED + end] += 1

        def on_lost(count: int) -> None:
            counts["lost"] += losses.missing_as_reported(count) if qos.depth > 1 else 0

        return numbered_subscription(self._node, message_type(type_name), topic, on_message, on_lost, qos, raw=True)

    def _use(self, kind: str, topic: str, use: Callable[[], None]) -> str:
        """Read and use a message. Returns the cause for which it was refused; empty if it was not."""
        try:
            use()
        except RefusedMessage as error:
            self.refuse(f"{kind}.{error.cause}", f"{topic}: a message was refused: {error}")
            return error.cause
        except Exception as error:  # no error of a message may end the node
            self.refuse(f"{kind}.error", f"{topic}: a message could not be used: {error_text(error)}")
            return "error"
        return ""

    def attempt(self, kind: str, work: Callable[[], object]) -> bool:
        """Go on with accepted messages. Returns whether there was no error; one is counted and logged. `kind`: that of
        no message, such as ``tracker``."""
        try:
            work()
        except Exception as error:  # caused by a message: no error of one may end the node
            self.refuse(f"{kind}.error", f"{kind}: messages could not be used: {error_text(error)}")
            return False
        return True

    def timed(self, kind: str, work: Callable[[], None]) -> Callable[[], None]:
        """The callback of a timer that goes on with accepted messages. See `attempt`."""

        def on_timer() -> None:
            self.attempt(kind, work)

        return on_timer

    def refuse(self, kind: str, text: str) -> None:
        """Count a refused message, and log it if it is the first of its kind, or the first for a time."""
        if line := self._refusals.add(kind, text, time.monotonic()):
            self._node.get_logger().warning(line)

    @property
    def warning(self) -> str:
        """What was refused lately, for the status of the node; empty if nothing."""
        return self._refusals.warning(time.monotonic())

    def values(self, waiting: Mapping[str, int] = MappingProxyType({})) -> dict[str, int]:
        """The counts for the diagnostics. `waiting`: topic → how many of its messages are not used or dropped yet."""
        return {
            **self._refusals.values(),
            "lost": self.counts.total("lost"),
            **self.counts.values(waiting),
        }
