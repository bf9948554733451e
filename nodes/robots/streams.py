"""The topics of one robot: its sensors in, its embeddings and diagnostics out."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher

from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import sensor_options, sensors_of
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import Sample
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.io import messages
from sensebind.fusion.stream.memory.budget import MemoryBudget
from sensebind.fusion.stream.pipeline import Output
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.nodes.diagnostics import MAX_ERROR_LENGTH, Diagnostics
from sensebind.nodes.robots.memory_status import memory_status
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_array
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import EMBEDDING_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS
from sensebind.nodes.support.run import ACKNOWLEDGEMENT_TIMEOUT
from sensebind.nodes.topic_checks import TopicChecks

MESSAGE_FACTORY = RosMessageFactory()
CLOCK_LOG_PERIOD = 10.0  # s from one line of the log on a clock that jumped back to the next one


class RobotStreams:
    """Subscriptions pass samples to the pipeline; a scheduler's threads embed them and publish the embeddings.

    All methods, callbacks and timers run in the thread of the node's executor. Only `_publish`, and `_report_error`
    when `_publish` calls it, run in a thread of the scheduler. The attributes that `_publish` uses are set before that
    thread starts, and are unset or destroyed after it has ended.

    `values`: the embedder's parameters. Topics are in the namespace of `node`. Robots of one process share `engine`
    and `memory`.
    """

    def __init__(self, node: Node, values: dict[str, Any], engine: Engine, memory: MemoryBudget) -> None:
        self.pipeline = pipeline = build.make_pipeline(values, engine.space, engine=engine, live=True, memory=memory)
        self._memory = memory
        self._node, self._values = node, values
        self._subscriptions: SensorSubscriptions | None = None
        self._past: SensorSubscriptions | None = None  # the subscriptions when the node was active before
        self._scheduler: Scheduler | None = None
        self._last_arrival: dict[str, float] = {}
        self._last_published = -math.inf  # `time.monotonic()` of the last embedding; set by the scheduler's thread
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = Diagnostics(values, pipeline, node.get_fully_qualified_name())
        self._diagnostics_publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", 10, event_callbacks=NO_EVENT_CALLBACKS
        )
        sensors = sensors_of(values)
        embedded = [sensor for sensor, modality in sensors.items() if modality in engine.space.modalities]
        self._embedding_publishers = {
            name: node.create_publisher(
                message_type(messages.EMBEDDING_TYPE),
                f"embeddings/{name}",
                EMBEDDING_QOS,
                event_callbacks=NO_EVENT_CALLBACKS,
            )
            for name in [*embedded, FUSED]
        }
        # Sensor, or `fused` → sequence numbers of its messages; used by the scheduler's thread.
        self._sequences: defaultdict[str, Iterator[int]] = defaultdict(count)

    def apply_values(self, values: dict[str, Any]) -> None:
        """Use new values of the parameters that take effect at once."""
        self._values = values

    def activate(self, scheduler: Scheduler) -> None:
        """Subscribe to the sensors, and let `scheduler` embed their windows."""
        node = self._node
        self.pipeline.restart()
        self._last_arrival.clear()
        self._subscriptions = SensorSubscriptions(
            node,
            self._values,
            self._on_sample,
            self.pipeline.set_calibration,
            self._report_error,
            past=self._past,
            queue_bytes=self._memory.transport,
        )
        sensors = sensors_of(self._values)
        self._topic_checks = TopicChecks(node, [sensor_options(self._values, m, s) for s, m in sensors.items()])
        self._scheduler = scheduler
        scheduler.add(self.pipeline, self._publish)
        self._timers = [
            node.create_timer(1.0, self._publish_diagnostics, clock=self._steady_clock),
            node.create_timer(0.1, self._flush_idle_topics, clock=self._steady_clock),
        ]
        # A looped bag sets the clock back. The open windows are then from before the jump.
        self._jump_handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._restart(),
        )
        for sensor, topic in self._subscriptions.topics.items():
            node.get_logger().info(f"{sensor}: subscribed to {topic}")

    def deactivate(self) -> list[Publisher]:
        """Unsubscribe, and embed the remaining windows. Returns publishers whose last messages may not have arrived."""
        if self._scheduler is None or self._subscriptions is None:
            return []
        for timer in self._timers:
            self._node.destroy_timer(timer)
        self._jump_handle.unregister()
        self._subscriptions.close()
        self._past = self._subscriptions
        self._scheduler.remove(self.pipeline)
        self._scheduler = self._subscriptions = None
        is_recent = time.monotonic() - self._last_published < ACKNOWLEDGEMENT_TIMEOUT
        return list(self._embedding_publishers.values()) if is_recent else []

    def release(self) -> None:
        """Destroy the publishers."""
        for publisher in [*self._embedding_publishers.values(), self._diagnostics_publisher]:
            self._node.destroy_publisher(publisher)

    # --- input

    def _on_sample(self, sample: Sample) -> None:
        if self._scheduler is None:
            return  # deactivated since this message arrived
        self._last_arrival[sample.sensor] = time.monotonic()
        if self.pipeline.accept(sample):
            self._scheduler.notify()

    def _flush_idle_topics(self) -> None:
        """Close complete windows of sensors without messages for `idle_timeout`. Also subscribe to new topics."""
        if self._subscriptions is None or self._scheduler is None:
            return  # deactivated since this timer fired
        self._subscriptions.discover_topics()
        now = time.monotonic()
        for sensor, last in list(self._last_arrival.items()):
            if now - last > self._values["idle_timeout"]:
                del self._last_arrival[sensor]
                if self.pipeline.flush(sensor):
                    self._scheduler.notify()

    def _restart(self) -> None:
        if self._scheduler is None:
            return
        self._node.get_logger().info(
            "the clock jumped back: windowing starts again", throttle_duration_sec=CLOCK_LOG_PERIOD
        )
        self.pipeline.restart()
        self._scheduler.notify()

    # --- output: `_publish` runs in the scheduler's thread

    def _publish(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Embedding):
                sequence = next(self._sequences[output.source])
                self._embedding_publishers[output.source].publish(
                    messages.embedding_message(MESSAGE_FACTORY, output, sequence)
                )
                self._last_published = time.monotonic()
            elif isinstance(output, Failure):
                topics: Mapping[str, str] = self._subscriptions.topics if self._subscriptions else {}
                self._report_error(output.sensor, f"topic '{topics.get(output.sensor, '')}': {output.message}")

    # --- errors and diagnostics

    def _report_error(self, sensor: str, message: str) -> None:
        """Log each kind of error once; diagnostics repeat it while it persists. Called from both threads."""
        if self._diagnostics.report_error(sensor, message):
            self._node.get_logger().error(printable(message, MAX_ERROR_LENGTH))

    def _publish_diagnostics(self) -> None:
        if self._subscriptions is None:
            return  # deactivated since this timer fired
        sensors, checks, past = self._subscriptions, self._topic_checks, self._past
        sensors.follow_types()
        arrived = Counter({name: sensors.message_counts(name)["arrived"] for name in sensors_of(self._values)})
        arrived.subtract({name: past.message_counts(name)["arrived"] for name in arrived} if past is not None else {})
        checks.check(arrived)
        statuses = self._diagnostics.statuses(sensors, problems=checks.problems)
        statuses.append(memory_status(self._node.get_fully_qualified_name(), self._memory, self.pipeline.memory()))
        self._diagnostics_publisher.publish(diagnostic_array(self._node, *statuses))
