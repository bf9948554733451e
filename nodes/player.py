"""The executable `player`: publishes a recording on its topics, with the recorded timing, and `/clock`."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("player", __name__)  # before the imports below, which take seconds

import argparse
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from sensebind.fusion.config.parameters import PlayerNodeOptions
from sensebind.fusion.core.errors import ConfigError, printable
from sensebind.fusion.core.parameters import options_with_values, parameters_of
from sensebind.fusion.core.samples import SECOND, to_ns
from sensebind.fusion.io.recordings import Recording, Selection, Topic
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.parameter_files import warn_of_unused_sections
from sensebind.nodes.support.ros_parameters import (
    NODE_ARGUMENTS,
    EmptyListParametersMixin,
    GuardedParameterServicesMixin,
    ParameterGuard,
    declare,
)
from sensebind.nodes.support.run import StopFlag, run_node, spin
from sensebind.nodes.support.transport import fastdds_environment

CLOCK_TOPIC = "/clock"
CLOCK_PERIOD = 0.01  # s
MAX_CLOCK_AGE = 0.001  # s; no clock is published before a message if the last one is newer than this
LATE_THRESHOLD = 0.05  # s; a message that is published later than this after it is due counts as late
SUBSCRIBER_TIMEOUT = 8.0  # s for subscriptions to match at the start, and for messages to be acknowledged at the end
DISCOVERY_SETTLE_TIME = 0.4  # s without a change of subscribers after which discovery counts as complete
WAITING_LOG_PERIOD = 5.0  # s from one log line of topics in `wait_for` without a subscriber to the next
LOOP_LOG_PERIOD = 10.0  # s from one line of the log on a start from the beginning to the next one
LINGER = 0.2  # s at the end, in which best-effort subscribers fetch the last messages from shared memory
MAX_READ_AHEAD_BYTES = 64 * 2**20  # bytes of messages that are read before they are due
QUEUE_DEPTH = 100  # messages that a slow reliable subscriber may lag behind
LATCHED_QUEUE_DEPTH = 1000  # messages of a latched topic that a late subscriber receives


class ReadAhead:
    """Iterates over (topic, log time in ns, CDR bytes) of a recording, in order of time.

    A separate thread reads them, so that a slow disk does not delay messages. At most `MAX_READ_AHEAD_BYTES` bytes and
    one message are held. Iterate in one thread; iteration raises the errors of reading. Call `close` if you do not
    iterate to the end.
    """

    def __init__(self, path: str, topics: list[str]) -> None:
        self._path, self._topics = path, topics
        # Guards the attributes below except the thread; notified when any of them changes.
        self._condition = threading.Condition()
        self._buffer: deque[tuple[str, int, bytes]] = deque()
        self._buffered_bytes = 0  # of the messages in `_buffer`
        self._closed = self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[str, int, bytes]]:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._buffer or self._ended or self._closed)
                if not self._buffer or self._closed:
                    if self._error is not None:
                        raise self._error
                    return
                message = self._buffer.popleft()
                self._buffered_bytes -= len(message[2])
                self._condition.notify_all()
            yield message

    def _run(self) -> None:
        try:
            # Opened in this thread: the database of a .db3 bag must not be shared between threads.
            with Recording(self._path, warn=False) as recording:
                for topic, _, stamp, data in recording.cdr_messages(self._topics):
                    with self._condition:
                        self._condition.wait_for(lambda: self._buffered_bytes < MAX_READ_AHEAD_BYTES or self._closed)
                        if self._closed:
                            return
                        self._buffer.append((topic, stamp, bytes(data)))
                        self._buffered_bytes += len(data)
                        self._condition.notify_all()
        except Exception as error:  # raised in the thread that iterates
            with self._condition:
                self._error = error
        finally:
            with self._condition:
                self._ended = True
                self._condition.notify_all()


class PlayerNode(EmptyListParametersMixin, GuardedParameterServicesMixin, Node):
    """Publishes the messages of a recording as they are, without decoding them.

    `play` runs in one thread and the executor in another. They share no mutable state: the parameters are
    read-only.
    """

    def __init__(self, overrides: list[Parameter]) -> None:
        super().__init__("player", parameter_overrides=overrides, **NODE_ARGUMENTS)
        warn_of_unused_sections(self)
        self._options = options_with_values(PlayerNodeOptions(), declare(self, "player"))
        ParameterGuard(
            self,
            "player",
            parameters=lambda values: parameters_of(PlayerNodeOptions()),
            is_configured=lambda: True,
            apply=lambda values: None,
        )
        if not self._options.recording:
            raise ConfigError("parameter 'recording' is empty: name a bag, as in `player PATH`")
        self._topics: dict[str, Any] = {}  # name in the recording → publisher
        own_clock = self._options.clock
        self._clock_publisher = self.create_publisher(Clock, CLOCK_TOPIC, _qos(1, latched=False)) if own_clock else None
        self._clock_published_at = 0.0  # time.monotonic() of the last clock message
        self._sent = self._late_count = 0
        self._max_lateness = 0.0  # s, the largest delay of a message
        with Recording(self._options.recording, Selection(topics=tuple(self._options.topics))) as recording:
            self._advertise(recording)
        self._check_wait_for()

    def play(self, stop: StopFlag) -> None:
        """Play until the end, or until `stop` is set. Raises `RecordingError` if the recording is damaged."""
        self._wait_for_subscribers(stop)
        rate = self._options.rate
        self.get_logger().info(f"playing {len(self._topics)} topics of '{self._options.recording}' at rate {rate:g}")
        began = time.monotonic()
        while not stop.is_set():
            self._play_once(rate, stop)
            if not self._options.loop:
                break
            self.get_logger().info("end of the recording: starting again", throttle_duration_sec=LOOP_LOG_PERIOD)
        message = f"published {self._sent} messages in {time.monotonic() - began:.1f} s"
        if self._late_count:
            self.get_logger().warning(
                f"{message}; {self._late_count} were published more than {1000 * LATE_THRESHOLD:.0f} ms late, "
                f"at most {self._max_lateness:.2f} s: "
                "this machine is too slow for the rate, so set a lower rate"
            )
        else:
            self.get_logger().info(message)
        self._wait_for_acknowledgement(stop)

    # --- before playing

    def _advertise(self, recording: Recording) -> None:
        absent: dict[str, list[str]] = {}
        for topic in recording.topics:
            if topic.name == CLOCK_TOPIC and self._clock_publisher is not None:
                continue
            try:
                kind = message_type(topic.type)
            except ModuleNotFoundError:
                absent.setdefault(topic.type, []).append(topic.name)
                continue
            try:
                self._topics[topic.name] = self.create_publisher(kind, topic.name, _qos_of(topic))
            except InvalidTopicNameException as error:
                text = f"topic '{topic.name}' is skipped: ROS 2 allows no such name, so rename it in the bag: {error}"
                self.get_logger().warning(printable(text))
        for type_name, names in absent.items():
            text = (
                f"skipping {', '.join(names)}: message type '{type_name}' is not installed: install or build the ROS "
                f"package '{type_name.split('/', 1)[0]}'"
            )
            self.get_logger().warning(printable(text))
        if not self._topics:
            raise ConfigError(
                f"'{self._options.recording}' contains no message that can be played: see the warnings above. A "
                f"recorded {CLOCK_TOPIC} is played only with the parameter 'clock' false"
            )

    def _check_wait_for(self) -> None:
        """Raises `ConfigError` for a topic of `wait_for` that is not played: the wait would never end."""
        for name in self._options.wait_for:
            if name not in self._topics:
                raise ConfigError(
                    f"parameter 'wait_for' names '{printable(name)}', which is not played: "
                    f"choose from {', '.join(sorted(self._topics))}"
                )

    def _wait_for_subscribers(self, stop: StopFlag) -> None:
        stop.wait(self._options.delay)
        self._wait_for_named_subscribers(stop)
        deadline = time.monotonic() + SUBSCRIBER_TIMEOUT
        # A subscriber may be matched here before it has matched this publisher, and others may not be discovered yet.
        # So playing begins when the counts have not changed for `DISCOVERY_SETTLE_TIME`.
        known, since = self._subscriber_counts(), time.monotonic()
        while not stop.is_set() and (
            (unmatched := self._unmatched_topics()) or time.monotonic() < since + DISCOVERY_SETTLE_TIME
        ):
            if time.monotonic() > deadline:
                if unmatched:
                    self.get_logger().warning(
                        f"some subscribers of {', '.join(unmatched)} were not matched: their "
                        "quality of service requests more than the player offers (reliable; no deadline; "
                        "transient local for latched topics only)"
                    )
                return
            stop.wait(0.05)
            if (now := self._subscriber_counts()) != known:
                known, since = now, time.monotonic()

    def _wait_for_named_subscribers(self, stop: StopFlag) -> None:
        """Wait until each topic of `wait_for` has a subscriber. Logs the others every `WAITING_LOG_PERIOD`."""
        said = time.monotonic()
        while not stop.is_set() and (
            missing := [name for name in self._options.wait_for if not self._topics[name].get_subscription_count()]
        ):
            if time.monotonic() > said + WAITING_LOG_PERIOD:
                said = time.monotonic()
                self.get_logger().info(f"waiting for a subscriber of {', '.join(missing)}")
            stop.wait(0.05)

    def _subscriber_counts(self) -> list[int]:
        """For each topic, the number of matched subscribers plus the number in the ROS graph."""
        publishers = self._topics.values()
        return [p.get_subscription_count() + self.count_subscribers(p.topic_name) for p in publishers]

    def _unmatched_topics(self) -> list[str]:
        """Topics that have more subscribers in the ROS graph than matched ones."""
        names = [publisher.topic_name for publisher in self._topics.values()]
        counts = [publisher.get_subscription_count() for publisher in self._topics.values()]
        return [name for name, count in zip(names, counts, strict=True) if self.count_subscribers(name) > count]

    # --- while playing

    def _play_once(self, rate: float, stop: StopFlag) -> None:
        ahead = ReadAhead(self._options.recording, list(self._topics))
        first: int | None = None
        began = stamp = 0
        try:
            for topic, stamp, data in ahead:
                if first is None:
                    first, began = stamp, time.monotonic_ns()
                    self._publish_clock(stamp)
                self._wait(stamp, began + round((stamp - first) / rate), rate, stop)
                if stop.is_set():
                    return
                if time.monotonic() - self._clock_published_at > MAX_CLOCK_AGE:
                    self._publish_clock(stamp)
                self._topics[topic].publish(data)
                self._sent += 1
        finally:
            ahead.close()
        self._publish_clock(stamp)

    def _wait(self, stamp: int, due: int, rate: float, stop: StopFlag) -> None:
        """Wait until `due` (ns of time.monotonic_ns), the time of `stamp`. Publishes the clock meanwhile."""
        while (left := (due - time.monotonic_ns()) / SECOND) > 0 and not stop.is_set():
            if time.monotonic() - self._clock_published_at >= CLOCK_PERIOD:
                self._publish_clock(stamp - to_ns(left * rate))
            stop.wait(min(left, CLOCK_PERIOD))
        if left < -LATE_THRESHOLD:
            self._late_count += 1
            self._max_lateness = max(self._max_lateness, -left)

    def _publish_clock(self, stamp: int) -> None:
        self._clock_published_at = time.monotonic()
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=Time(sec=stamp // SECOND, nanosec=stamp % SECOND)))

    # --- after playing

    def _wait_for_acknowledgement(self, stop: StopFlag) -> None:
        """Wait until reliable subscribers have acknowledged all messages. Fast DDS asks them every 3 s."""
        deadline = time.monotonic() + SUBSCRIBER_TIMEOUT
        unmatched = list(self._topics.values())
        while not stop.is_set() and unmatched and time.monotonic() < deadline:
            unmatched = [
                publisher for publisher in unmatched if not publisher.wait_for_all_acked(Duration(seconds=0.1))
            ]
        if unmatched and not stop.is_set():
            names = ", ".join(publisher.topic_name for publisher in unmatched)
            self.get_logger().warning(
                f"subscribers of {names} have not acknowledged all messages: they may miss the last ones"
            )
        stop.wait(LINGER)


def _qos_of(topic: Topic) -> QoSProfile:
    """The QoS to publish a topic with: reliable, which best-effort subscribers accept too; latched if the topic was.

    Converted bags do not record whether a topic was latched. So `/tf_static` and topics with one message are latched.
    """
    if topic.latched or topic.message_count == 1 or topic.name.endswith("/tf_static"):
        return _qos(min(topic.message_count, LATCHED_QUEUE_DEPTH), latched=True)
    return _qos(QUEUE_DEPTH, latched=False)


def _qos(depth: int, *, latched: bool) -> QoSProfile:
    return QoSProfile(
        history=QoSHistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=QoSReliabilityPolicy.RELIABLE,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def overrides_of(arguments: list[str]) -> list[Parameter]:
    """The parameters that a command line without ROS's arguments sets. Exits with 2 if it cannot be parsed."""
    parser = argparse.ArgumentParser(
        prog="player", description="Play a recording to topics and /clock.", argument_default=argparse.SUPPRESS
    )
    descriptions = {parameter.name: parameter.description for parameter in parameters_of(PlayerNodeOptions())}
    parser.add_argument("recording", nargs="?", metavar="PATH", help=descriptions["recording"])
    parser.add_argument("--rate", type=float, help=descriptions["rate"])
    parser.add_argument("--delay", type=float, help=descriptions["delay"])
    parser.add_argument("--loop", action="store_true", help=descriptions["loop"])
    parser.add_argument("--topics", nargs="+", help=descriptions["topics"])
    parser.add_argument("--wait-for", nargs="+", metavar="TOPIC", help=descriptions["wait_for"])
    return [Parameter(name, value=value) for name, value in vars(parser.parse_args(arguments)).items()]


def serve(node: PlayerNode, stop: StopFlag) -> None:
    """Play in this thread, and serve parameters and log levels in another, so that playing does not wait for them."""
    done = StopFlag()
    server = threading.Thread(target=spin, args=(node, done), name="services")
    server.start()
    try:
        node.play(stop)
    finally:
        done.set()
        server.join()


def main(args: list[str] | None = None) -> int:
    """Play a recording to its end. Exit status: 0, also after SIGINT or SIGTERM; 1 if there is nothing to play."""
    arguments = sys.argv[1:] if args is None else args
    os.environ.update(fastdds_environment(os.environ))  # images arrive if the sender alone has large buffers

    def make() -> PlayerNode:  # rclpy has checked the arguments then
        return PlayerNode(overrides_of(remove_ros_args(arguments)))

    return run_node("player", make, arguments, serve=serve)


if __name__ == "__main__":
    sys.exit(main())
