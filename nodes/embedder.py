"""The executable `embedder`: sensor topics in, embeddings out. A lifecycle node."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("embedder", __name__)  # before the imports below, which take seconds

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.publisher import Publisher

from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import embedder_parameters, modalities_of, sensor_options, sensors_of
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.parameters import Parameter
from sensebind.fusion.core.samples import TEXT, Sample
from sensebind.fusion.core.space import SpaceError, limited_competences, nearest_recognisable
from sensebind.fusion.core.threads import set_switch_interval
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io import messages
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.nodes.diagnostics import Diagnostics
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_array
from sensebind.nodes.support.managed_node import ManagedNode
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import EMBEDDING_QOS, LATCHED_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS
from sensebind.nodes.support.run import ACKNOWLEDGEMENT_TIMEOUT, StopFlag, run_node, spin
from sensebind.nodes.topic_checks import TopicChecks, check_topic_names

MESSAGE_FACTORY = RosMessageFactory()


class EmbedderNode(ManagedNode):
    """Subscriptions pass samples to the pipeline; the scheduler's threads embed them and publish the embeddings.

    All callbacks, lifecycle transitions, timers and `embed_text` run in the executor's thread. Only `_publish`, and
    `_report_error` when `_publish` calls it, run in a thread of the scheduler. The attributes that `_publish` uses are
    set before that thread starts, and are unset or destroyed after it has ended: `deactivate` waits for it.
    """

    def __init__(self) -> None:
        super().__init__("embedder")
        self._pipeline: Pipeline | None = None
        self._sensor_subscriptions: SensorSubscriptions | None = None
        self._scheduler: Scheduler | None = None
        self._last_arrival: dict[str, float] = {}
        self._last_published = -math.inf  # `time.monotonic()` of the last embedding; set by the scheduler's thread
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, event_callbacks=NO_EVENT_CALLBACKS
        )

    # --- lifecycle

    def known_parameters(self, values: Mapping[str, Any]) -> list[Parameter]:
        modalities = values.get("modalities") or []  # checked when the node is configured
        return embedder_parameters([m for m in modalities if isinstance(m, str)], values)

    def configure(self, values: dict[str, Any]) -> None:
        modalities, sensors = modalities_of(values), sensors_of(values)
        for name in (messages.EMBEDDING_TYPE, messages.EMBEDDING_SPACE_TYPE, "sensebind_msgs/srv/EmbedText"):
            message_type(name)  # fails here if it is not installed
        check_topic_names(self, [sensor_options(values, m, s) for s, m in sensors.items()])
        started = time.monotonic()
        space = build.load_space_from(values)
        pipeline = build.make_pipeline(values, space, live=True)
        self._values, self._space, self._pipeline = values, space, pipeline
        self._diagnostics = Diagnostics(values, self._pipeline, self.get_fully_qualified_name())
        self._embedding_publishers = {
            name: self.create_publisher(
                message_type(messages.EMBEDDING_TYPE),
                f"embeddings/{name}",
                EMBEDDING_QOS,
                event_callbacks=NO_EVENT_CALLBACKS,
            )
            for name in [*(s for s, m in sensors.items() if m in space.modalities), FUSED]
        }
        # Sensor, or `fused` → sequence numbers of its messages; used by the scheduler's thread.
        self._sequences: defaultdict[str, Iterator[int]] = defaultdict(count)
        self._space_publisher = self.create_publisher(
            message_type(messages.EMBEDDING_SPACE_TYPE),
            "embedding_space",
            LATCHED_QOS,
            event_callbacks=NO_EVENT_CALLBACKS,
        )
        now = self.get_clock().now().nanoseconds
        self._space_publisher.publish(messages.space_message(MESSAGE_FACTORY, space, self._pipeline.specs, now))
        self._embed_text_service = self.create_service(
            message_type("sensebind_msgs/srv/EmbedText"), "embed_text", self._embed_text
        )
        seconds = time.monotonic() - started
        self.get_logger().info(f"space {space.id} ready in {seconds:.1f} s; licence of its weights: {space.licence}")
        for modality in modalities:
            if modality not in space.modalities:
                self.get_logger().warning(
                    f"space {space.id} has no encoder for '{modality}': its windows are counted, not embedded"
                )

    def apply_values(self, values: dict[str, Any]) -> None:
        self._values = values

    def activate(self) -> None:
        assert self._pipeline is not None
        self._pipeline.restart()
        self._last_arrival.clear()  # it may have sensors of an earlier configuration
        self._sensor_subscriptions = SensorSubscriptions(
            self,
            self._values,
            self._on_sample,
            self._pipeline.set_calibration,
            self._report_error,
        )
        sensors = sensors_of(self._values)
        self._topic_checks = TopicChecks(self, [sensor_options(self._values, m, s) for s, m in sensors.items()])
        self._scheduler = Scheduler(self._pipeline.engine)
        self._scheduler.add(self._pipeline, self._publish)
        self._active_timers = [
            self.create_timer(1.0, self._publish_diagnostics, clock=self._steady_clock),
            self.create_timer(0.1, self._flush_idle_topics, clock=self._steady_clock),
        ]
        # A looped bag sets the clock back. The open windows are then from before the jump.
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._restart(),
        )
        for sensor, topic in self._sensor_subscriptions.topics.items():
            self.get_logger().info(f"{sensor}: subscribed to {topic}")

    def deactivate(self) -> list[Publisher]:
        """Unsubscribe, embed the remaining windows and end the scheduler."""
        if self._scheduler is None or self._sensor_subscriptions is None:
            return []
        for timer in self._active_timers:
            self.destroy_timer(timer)
        self._jump_handle.unregister()
        self._sensor_subscriptions.close()
        self._scheduler.close()
        self._scheduler = self._sensor_subscriptions = None
        is_recent = time.monotonic() - self._last_published < ACKNOWLEDGEMENT_TIMEOUT
        return list(self._embedding_publishers.values()) if is_recent else []

    def release(self) -> None:
        if self._pipeline is not None:
            for publisher in [*self._embedding_publishers.values(), self._space_publisher]:
                self.destroy_publisher(publisher)
            self.destroy_service(self._embed_text_service)
            # These hold the model. Without it, the next configuration does not need memory for two models.
            del self._space, self._diagnostics
        self._pipeline = None

    # --- input: samples

    def _on_sample(self, sample: Sample) -> None:
        if self._pipeline is None or self._scheduler is None:
            return  # deactivated since this message arrived
        self._last_arrival[sample.sensor] = time.monotonic()
        self._diagnostics.sample_arrived(sample, self.get_clock().now().nanoseconds)
        if self._pipeline.accept(sample):
            self._scheduler.notify()

    def _flush_idle_topics(self) -> None:
        """Close complete windows of sensors without messages for `idle_timeout`. Also subscribe to new topics."""
        if self._pipeline is None or self._sensor_subscriptions is None or self._scheduler is None:
            return  # deactivated since this timer fired
        self._sensor_subscriptions.discover_topics()
        now = time.monotonic()
        for sensor, last in list(self._last_arrival.items()):
            if now - last > self._values["idle_timeout"]:
                del self._last_arrival[sensor]
                if self._pipeline.flush(sensor):
                    self._scheduler.notify()

    def _restart(self) -> None:
        if self._pipeline is None or self._scheduler is None:
            return
        self.get_logger().info("the clock jumped back: windowing starts again")
        self._pipeline.restart()
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
                topic = self._sensor_subscriptions.topics.get(output.sensor, "") if self._sensor_subscriptions else ""
                self._report_error(output.sensor, f"topic '{topic}': {output.message}")

    def _embed_text(self, request: Any, response: Any) -> Any:
        texts = list(request.texts)
        try:
            vectors: Any = self._space.embed_text(texts).numpy() if texts else []
            competences = limited_competences(self._space, texts)
            nearest = nearest_recognisable(self._space, texts, competences)
            objects = self._space.named_objects(texts)
        except (ValueError, RuntimeError, SpaceError) as error:
            response.message = f"embed_text: {error}"
            return response
        now = self.get_clock().now().nanoseconds
        response.success = True
        response.embeddings = [
            messages.embedding_message(MESSAGE_FACTORY, Embedding(TEXT, now, now, self._space.id, 1.0, vector))
            for vector in vectors
        ]
        response.objects = objects
        response.competences = messages.competence_messages(MESSAGE_FACTORY, competences, nearest)
        return response

    # --- errors and diagnostics

    def _report_error(self, sensor: str, message: str) -> None:
        """Log each message once; diagnostics repeat it while the error persists. Called from both threads."""
        if self._diagnostics.report_error(sensor, message):
            self.get_logger().error(message)

    def _publish_diagnostics(self) -> None:
        if self._sensor_subscriptions is None:
            return  # deactivated since this timer fired
        sensors, checks = self._sensor_subscriptions, self._topic_checks
        checks.check({name: sensors.message_counts(name)["arrived"] for name in sensors_of(self._values)})
        statuses = self._diagnostics.statuses(sensors, problems=checks.problems)
        self._diagnostics_publisher.publish(diagnostic_array(self, *statuses))


def serve(node: EmbedderNode, stop: StopFlag) -> None:
    """Start the node and serve it until `stop` is set. If it cannot be configured, it waits for a correction."""
    node.start(fail=False)
    spin(node, stop)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status 0."""
    set_switch_interval()
    return run_node("embedder", EmbedderNode, args, serve=serve, finish=EmbedderNode.finish)


if __name__ == "__main__":
    sys.exit(main())
