"""The executable `event_recorder`: requests a snapshot of the last seconds from rosbag2 when an event begins."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("event_recorder", __name__)  # before the imports below, which take seconds

import math
import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidServiceNameException
from rclpy.publisher import Publisher

from sensebind.fusion.config.parameters import EventRecorderOptions
from sensebind.fusion.core.errors import ConfigError, error_text
from sensebind.fusion.core.events import Event, EventPhase
from sensebind.fusion.core.parameters import options_with_values
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.events import received_event
from sensebind.nodes.support.diagnostic_status import diagnostic_array, diagnostic_status
from sensebind.nodes.support.guards.callbacks import CallbackGuard
from sensebind.nodes.support.managed_node import ManagedNode, serve
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.qos import NEW_EVENTS_QOS
from sensebind.nodes.support.run import run_node

SNAPSHOT_TYPE = "rosbag2_interfaces/srv/Snapshot"
CALL_TIMEOUT = 60.0  # s after which a call without an answer is dropped: the recorder writes its memory to disk
OUTCOMES = ("onsets", "snapshots", "too_soon", "unavailable", "refused", "unanswered")  # counts in the diagnostics


class EventRecorderNode(ManagedNode):
    """Calls the snapshot service of a rosbag2 recorder at the onset of chosen events, without blocking.

    Each chosen onset is counted, and its outcome (`OUTCOMES`). All callbacks run in the executor's thread.
    """

    def __init__(self) -> None:
        super().__init__("event_recorder")
        self._options = EventRecorderOptions()
        self._client: Any = None
        self._call: Any = None  # the call to the service in progress
        self._call_started = 0.0  # time.monotonic()
        self._due: tuple[float, Event] | None = None  # time.monotonic() of the next snapshot, and its event
        self._last_snapshot = -math.inf  # time.monotonic() of the last request
        self._problem = ""  # why the last snapshot was not taken; empty if it was
        self._counts: Counter[str] = Counter()
        self._diagnostics_publisher: Publisher | None = None
        self._subscription: Any = None
        self._timers_active: list[Any] = []

    # --- lifecycle

    def configure(self, values: dict[str, Any]) -> None:
        self._options = options_with_values(EventRecorderOptions(), values)
        self._counts, self._problem = Counter(), ""
        self._callback_guard = CallbackGuard(self)
        message_type(messages.EVENT_TYPE)  # fails here if it is not installed
        try:
            service = message_type(SNAPSHOT_TYPE)
        except ModuleNotFoundError as error:
            self._report_problem(f"no snapshot can be requested: {error}")
        else:
            name = self._options.snapshot_service
            try:
                self._client = self.create_client(service, name)
            except InvalidServiceNameException as error:
                raise ConfigError(f"parameter 'snapshot_service': '{name}' cannot be the name of a service") from error
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def activate(self) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._subscription = self._callback_guard.subscribe(
            "event", messages.EVENT_TYPE, "events", self._on_event, NEW_EVENTS_QOS
        )
        self._timers_active = [
            self.create_timer(0.05, self._request_if_due, clock=steady),
            self.create_timer(1.0, self._publish_diagnostics, clock=steady),
        ]

    def deactivate(self) -> list[Publisher]:
        """A snapshot that waits for `snapshot_delay` is requested now."""
        self.destroy_subscription(self._subscription)
        for timer in self._timers_active:
            self.destroy_timer(timer)
        if self._due is not None:
            self._request(self._due[1])
        return []

    def release(self) -> None:
        if self._client is not None:
            self.destroy_client(self._client)
        if self._diagnostics_publisher is not None:
            self.destroy_publisher(self._diagnostics_publisher)
        self._client = self._call = self._diagnostics_publisher = None

    def apply_values(self, values: dict[str, Any]) -> None:
        self._options = options_with_values(EventRecorderOptions(), values)

    # --- events in, requests out

    def _on_event(self, message: Any) -> None:
        event = received_event(message)
        options = self._options
        if event.phase is not EventPhase.ONSET or (
            (options.event_kinds and event.kind.name.lower() not in options.event_kinds)
            or (options.event_labels and event.label not in options.event_labels)
        ):
            self._count_end("dropped.not_chosen")
            return
        self._counts["onsets"] += 1
        now = time.monotonic()
        if self._due is not None or self._call is not None or now - self._last_snapshot < options.snapshot_interval:
            self._count("too_soon")
            return
        self._due = (now + options.snapshot_delay, event)
        self._request_if_due()

    def _request_if_due(self) -> None:
        now = time.monotonic()
        if self._call is not None:
            is_gone = not self._client.service_is_ready()  # the recorder has ended: another one may be started at once
            if is_gone or now - self._call_started > CALL_TIMEOUT:
                self._client.remove_pending_request(self._call)
                self._call = None
                why = "ended before it answered" if is_gone else f"did not answer in {CALL_TIMEOUT:.0f} s"
                self._fail("unanswered", f"'{self._options.snapshot_service}' {why}")
        if self._due is not None and now >= self._due[0]:
            self._request(self._due[1])

    def _request(self, event: Event) -> None:
        self._due = None
        if self._client is None:
            self._count("unavailable")  # reported when the node was configured
        elif not self._client.service_is_ready():
            self._fail(
                "unavailable",
                f"the service '{self._options.snapshot_service}' is not there: start `ros2 bag record "
                "--snapshot-mode --max-cache-size BYTES TOPICS`, or set 'snapshot_service'",
            )
        else:
            self._last_snapshot = self._call_started = time.monotonic()
            try:
                self._call = call = self._client.call_async(message_type(SNAPSHOT_TYPE).Request())
            except Exception as error:  # of the middleware
                self._fail("unavailable", f"'{self._options.snapshot_service}' cannot be called: {error_text(error)}")
                return
            call.add_done_callback(lambda future: self._on_answer(event, future))

    def _on_answer(self, event: Event, future: Any) -> None:
        if future is not self._call:
            return  # dropped, or cleaned up meanwhile
        self._call = None
        if future.exception() is not None:
            self._fail("unanswered", f"the call to '{self._options.snapshot_service}' failed: {future.exception()}")
        elif future.result().success:
            self._count("snapshots")
            self._problem = ""
            self.get_logger().info(f"snapshot for {event.kind.name} {event.label} ({event.id})")
        else:
            service = self._options.snapshot_service
            self._fail("refused", f"'{service}' could not take the snapshot: start the recorder with --snapshot-mode")

    def _fail(self, outcome: str, problem: str) -> None:
        self._count(outcome)
        self._report_problem(problem)

    def _count(self, outcome: str) -> None:
        """Count the outcome of an onset, which is the end of its message."""
        self._counts[outcome] += 1
        ends = {"snapshots": "used.snapshots", "refused": "dropped.recorder_refused"}
        self._count_end(ends.get(outcome, f"dropped.{outcome}"))

    def _count_end(self, end: str) -> None:
        self._callback_guard.counts.of("events")[end] += 1

    def _report_problem(self, problem: str) -> None:
        """Log a problem once, until a snapshot was taken; diagnostics repeat it."""
        if problem != self._problem:
            self.get_logger().warning(problem)
        self._problem = problem

    def _publish_diagnostics(self) -> None:
        if self._diagnostics_publisher is None:
            return  # cleaned up since this timer fired
        level, message = DiagnosticStatus.OK, f"{self._counts['snapshots']} snapshots"
        if self._problem:
            level, message = DiagnosticStatus.WARN, self._problem
        if refused := self._callback_guard.warning:
            level, message = DiagnosticStatus.WARN, f"{message}; {refused}"
        values: dict[str, Any] = {name: self._counts[name] for name in OUTCOMES}
        waiting = {"events": (self._due is not None) + (self._call is not None)}
        values |= {**self._callback_guard.values(waiting), "service": self._options.snapshot_service}
        status = diagnostic_status(self.get_fully_qualified_name(), "snapshots", level, message, values)
        self._diagnostics_publisher.publish(diagnostic_array(self, status))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0; 1 if a parameter is wrong or a message type is missing."""
    return run_node("event_recorder", EventRecorderNode, args, serve=serve, finish=EventRecorderNode.finish)


if __name__ == "__main__":
    sys.exit(main())
