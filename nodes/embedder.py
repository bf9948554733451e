"""The executable `embedder`: sensor topics in, embeddings out. A lifecycle node."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher

from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import embedder_parameters, modalities_of, sensor_options
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import TEXT, Sample
from sensebind.fusion.core.space import SpaceError, limited_competences, nearest_recognisable
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io import messages
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.nodes.diagnostics import Diagnostics
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_array
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import EMBEDDING_QOS, LATCHED_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS
from sensebind.nodes.support.ros_parameters import (
    NODE_ARGUMENTS,
    EmptyListParametersMixin,
    accept_old_names,
    declare,
    parameter_values,
)
from sensebind.nodes.support.run import ACKNOWLEDGEMENT_TIMEOUT, StopFlag, run_node, spin, wait_for_acknowledgements
from sensebind.nodes.topic_checks import TopicChecks

MESSAGE_FACTORY = RosMessageFactory()


class EmbedderNode(EmptyListParametersMixin, LifecycleNode):
    """Subscriptions pass samples to the pipeline; the scheduler's threads embed them and publish the embeddings.

    All callbacks, lifecycle transitions, timers and `embed_text` run in the executor's thread. Only `_publish`, and
    `_report_error` when `_publish` calls it, run in a thread of the scheduler. The attributes that `_publish` uses are
    set before that thread starts, and are unset or destroyed after it has ended: `close` waits for it.
    """

    def __init__(self) -> None:
        super().__init__("embedder", **NODE_ARGUMENTS)
        accept_old_names(self, "embedder")
        self._pipeline: Pipeline | None = None
        self._sensor_subscriptions: SensorSubscriptions | None = None
        self._scheduler: Scheduler | None = None
        self._last_arrival: dict[str, float] = {}
        self._last_published = -math.inf  # `time.monotonic()` of the last embedding; set by the scheduler's thread
        self._unacknowledged_publishers: list[Publisher] = []  # published shortly before the last deactivation
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, event_callbacks=NO_EVENT_CALLBACKS
        )

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure()
        except (ConfigError, SpaceError, ModuleNotFoundError) as error:
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        modalities = modalities_of(parameter_values(self, unset=[]))
        self._values: dict[str, Any] = declare(self, "embedder", embedder_parameters(modalities))
        values = self._values
        started = time.monotonic()
        space = build.load_space_from(values)
        self._space = space
        self._pipeline = build.make_pipeline(values, space, live=True)
        self._diagnostics = Diagnostics(values, self._pipeline, self.get_fully_qualified_name())
        self._embedding_publishers = {
            name: self.create_publisher(
                message_type(messages.EMBEDDING_TYPE),
                f"embeddings/{name}",
                EMBEDDING_QOS,
                event_callbacks=NO_EVENT_CALLBACKS,
            )
            for name in [*(m for m in modalities if m in space.modalities), "fused"]
        }
        # Modality → sequence numbers of its messages; used by the scheduler's thread.
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

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._pipeline is not None
        self._pipeline.restart()
        self._sensor_subscriptions = SensorSubscriptions(
            self,
            self._values,
            modalities_of(self._values),
            self._on_sample,
            self._pipeline.set_calibration,
            self._report_error,
        )
        self._topic_checks = TopicChecks(self, [sensor_options(self._values, m) for m in modalities_of(self._values)])
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
        for modality, topic in self._sensor_subscriptions.topics.items():
            self.get_logger().info(f"{modality}: subscribed to {topic}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        wait_for_acknowledgements(self.close())
        self._unacknowledged_publishers = []
        if self._pipeline is not None:
            for publisher in [*self._embedding_publishers.values(), self._space_publisher]:
                self.destroy_publisher(publisher)
            self.destroy_service(self._embed_text_service)
            # These hold the model. Without it, the next configuration does not need memory for two models.
            del self._space, self._diagnostics
        self._pipeline = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.on_cleanup(state)

    def close(self) -> list[Publisher]:
        """Unsubscribe, embed the remaining windows and end the scheduler. Does nothing if the node is not active.

        Returns the publishers whose last messages may still be in transit.
        """
        if self._scheduler is None or self._sensor_subscriptions is None:
            return self._unacknowledged_publishers
        for timer in self._active_timers:
            self.destroy_timer(timer)
        self._jump_handle.unregister()
        self._sensor_subscriptions.close()
        self._scheduler.close()
        self._scheduler = self._sensor_subscriptions = None
        is_recent = time.monotonic() - self._last_published < ACKNOWLEDGEMENT_TIMEOUT
        self._unacknowledged_publishers = list(self._embedding_publishers.values()) if is_recent else []
        return self._unacknowledged_publishers

    # --- input: samples

    def _on_sample(self, sample: Sample) -> None:
        if self._pipeline is None or self._scheduler is None:
            return  # deactivated since this message arrived
        self._last_arrival[sample.modality] = time.monotonic()
        self._diagnostics.sample_arrived(sample, self.get_clock().now().nanoseconds)
        if self._pipeline.accept(sample):
            self._scheduler.notify()

    def _flush_idle_topics(self) -> None:
        """Close complete windows of modalities without messages for `idle_timeout`. Also subscribe to new topics."""
        if self._pipeline is None or self._sensor_subscriptions is None or self._scheduler is None:
            return  # deactivated since this timer fired
        self._sensor_subscriptions.discover_topics()
        now = time.monotonic()
        for modality, last in list(self._last_arrival.items()):
            if now - last > self._values["idle_timeout"]:
                del self._last_arrival[modality]
                if self._pipeline.flush(modality):
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
                sequence = next(self._sequences[output.modality])
                self._embedding_publishers[output.modality].publish(
                    messages.embedding_message(MESSAGE_FACTORY, output, sequence)
                )
                self._last_published = time.monotonic()
            elif isinstance(output, Failure):
                topic = self._sensor_subscriptions.topics.get(output.modality, "") if self._sensor_subscriptions else ""
                self._report_error(output.modality, f"topic '{topic}': {output.message}")

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

    def _report_error(self, modality: str, message: str) -> None:
        """Log each message once; diagnostics repeat it while the error persists. Called from both threads."""
        if self._diagnostics.report_error(modality, message):
            self.get_logger().error(message)

    def _publish_diagnostics(self) -> None:
        if self._sensor_subscriptions is None:
            return  # deactivated since this timer fired
        sensors, checks = self._sensor_subscriptions, self._topic_checks
        checks.check({m: sensors.message_counts(m)["arrived"] for m in modalities_of(self._values)})
        statuses = self._diagnostics.statuses(sensors, problems=checks.problems)
        self._diagnostics_publisher.publish(diagnostic_array(self, *statuses))


def serve(node: EmbedderNode, stop: StopFlag) -> None:
    """Configure and activate the node unless `autostart` is false, and serve it until `stop` is set."""
    autostart = node.get_parameter_or("autostart", Parameter("autostart", value=True)).value
    if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()
    spin(node, stop)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status 0."""
    # Seconds after which a waiting thread gets the interpreter lock (Python's default: 5 ms). The encoders release and
    # acquire it a hundred times for each window, while messages keep the other thread busy.
    sys.setswitchinterval(0.001)
    return run_node("embedder", EmbedderNode, args, serve=serve, finish=EmbedderNode.close)


if __name__ == "__main__":
    sys.exit(main())
