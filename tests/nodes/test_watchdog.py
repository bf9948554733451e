"""When the embedder dies, stops or restarts, and when the detector stands still: with real processes and signals."""

from __future__ import annotations

import os
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from helpers.diagnostic_statuses import DIAGNOSTICS, OK, STALE, Status, newest
from helpers.ros_processes import Executable, Peer, parameter_arguments, peer, ros_environment, running
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.io.messages import stamp_to_ns

MAX_DELAY = 3.0  # s from the last embedding to the end of the events
LATENCY = 1.5  # s from a decision to its message, on a loaded machine
STOPPED = "fault:embeddings:stopped"
MESSAGES = ("sensebind_msgs", "audio_common_msgs")
EMBEDDER: dict[str, Any] = {"modalities": ["vision"], "device": "cpu"}
# Any image gives this event: its threshold is the lowest possible one.
DETECTOR: dict[str, Any] = {
    "prompts.anything": ["a photo"],
    "prompt.onset_threshold": 0.01,
    "prompt.offset_threshold": 0.01,
    "prompt.min_duration": 0.0,
    "detectors": ["prompt", "fault"],
}


@dataclass
class Robot:
    """A camera and a listener in this process. The nodes run in processes of their own."""

    me: Peer
    events: list[tuple[float, Any]]
    embeddings: list[tuple[float, Any]]
    diagnostics: list[tuple[float, Any]]
    scores: list[tuple[float, Any]]  # one message for each tick that the detector processed
    camera: Any = None
    noise: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @classmethod
    def create(cls, me: Peer) -> Robot:
        from rclpy.qos import qos_profile_sensor_data

        from sensebind.fusion.io import messages
        from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

        robot = cls(
            me,
            me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS),
            me.subscribe(messages.EMBEDDING_TYPE, "embeddings/vision", EMBEDDING_QOS),
            me.subscribe(DIAGNOSTICS, "/diagnostics"),
            me.subscribe(messages.PROMPT_SCORES, "prompt_scores", EMBEDDING_QOS),
        )
        robot.camera = me.publisher(messages.IMAGE_TYPE, "camera/image", qos_profile_sensor_data)
        me.node.create_timer(0.1, robot._publish_image)
        return robot

    def _publish_image(self) -> None:
        from sensor_msgs.msg import Image

        pixels = self.noise.integers(0, 256, 48 * 64 * 3, dtype=np.uint8)
        image = Image(height=48, width=64, step=192, encoding="rgb8", data=array("B", pixels.tobytes()))
        image.header.stamp = self.me.node.get_clock().now().to_msg()
        self.camera.publish(image)

    def reports(self, label: str = "", since: float = 0.0) -> list[tuple[float, Event]]:
        from sensebind.fusion.io import messages

        found = [(at, messages.event_from_message(message)) for at, message in self.events if at >= since]
        return [(at, event) for at, event in found if not label or event.label == label]

    def phases(self, label: str, since: float) -> list[str]:
        """The phases of the reports on a label, without updates."""
        return [e.phase.name for _, e in self.reports(label, since) if e.phase is not EventPhase.UPDATE]

    def detector(self) -> Status:
        """The newest diagnostics of the detector."""
        return newest(self.diagnostics, "detector: events")

    def wait_for_open_event(self) -> None:
        """Wait until embeddings arrive and the prompt's event is open."""
        count = len(self.embeddings)
        self.me.wait_until(lambda: len(self.embeddings) > count + 3, 60, "embeddings")
        self.me.wait_until(lambda: self.phases("anything", 0.0)[-1:] == ["ONSET"], 20, "an open event")

    def wait_for_end(self, stop: Callable[[], None]) -> float:
        """Call `stop`, and check that the open event ends in time with a fault. Returns the time of the call."""
        before = time.monotonic()
        stop()
        self.me.wait_until(lambda: self.phases(STOPPED, before) == ["ONSET"], 20, "the fault")
        last = self.embeddings[-1][0]
        (ended, offset) = next((at, e) for at, e in self.reports("anything", before) if e.phase is EventPhase.OFFSET)
        (reported, fault) = self.reports(STOPPED, before)[0]
        assert ended - last <= MAX_DELAY + LATENCY and reported - last <= MAX_DELAY + LATENCY
        assert ended <= reported and offset.offset > 0
        assert fault.kind is EventKind.FAULT and [e.modality for e in fault.evidence] == ["vision"]
        self.me.wait_until(lambda: self.detector().level == STALE, 5, "STALE")
        assert "no embeddings arrive" in self.detector().message
        return before

    def wait_for_recovery(self, since: float) -> None:
        """Check that the fault ends and events begin again without any help."""
        self.me.wait_until(lambda: self.phases(STOPPED, since) == ["ONSET", "OFFSET"], 60, "the end of the fault")
        self.me.wait_until(lambda: self.phases("anything", since)[-1:] == ["ONSET"], 20, "an event")
        self.me.wait_until(lambda: self.detector().level == OK, 5, "OK")
        assert {e.label for _, e in self.reports(since=since)} == {STOPPED, "anything"}


@pytest.fixture(scope="module")
def robot() -> Iterator[tuple[Robot, Executable]]:
    environment = ros_environment(*MESSAGES)
    with peer(environment) as me, running("detector", environment=environment, values=DETECTOR) as detector:
        yield Robot.create(me), detector


@pytest.fixture(scope="module")
def embedder(robot: tuple[Robot, Executable]) -> Iterator[Executable]:
    process = start_embedder(robot[1])
    yield process
    process.kill()


def start_embedder(detector: Executable) -> Executable:
    command = [sys.executable, "-m", "sensebind.nodes.embedder", *parameter_arguments(EMBEDDER)]
    return Executable(command, detector.environment)


def test_events_end_when_the_embedder_is_deactivated_and_begin_when_it_is_activated(
    robot: tuple[Robot, Executable], embedder: Executable
) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    me = robot[0].me
    change = me.node.create_client(ChangeState, "/embedder/change_state")

    def request(transition: int) -> None:
        call = change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        me.wait_until(call.done, 30, "the transition")
        assert call.result().success, embedder.output

    robot[0].wait_for_open_event()
    me.wait_until(change.service_is_ready, 30, "the service")
    since = robot[0].wait_for_end(lambda: request(Transition.TRANSITION_DEACTIVATE))
    request(Transition.TRANSITION_ACTIVATE)
    robot[0].wait_for_recovery(since)


def test_events_end_when_the_embedder_is_stuck(robot: tuple[Robot, Executable], embedder: Executable) -> None:
    robot[0].wait_for_open_event()
    since = robot[0].wait_for_end(lambda: os.kill(embedder.pid, signal.SIGSTOP))
    robot[0].me.spin(1.0)
    os.kill(embedder.pid, signal.SIGCONT)
    robot[0].wait_for_recovery(since)


def test_a_detector_that_stands_still_reports_no_fault_and_counts_no_tick_twice(
    robot: tuple[Robot, Executable], embedder: Executable
) -> None:
    me, detector = robot[0].me, robot[1]
    robot[0].wait_for_open_event()
    since, stalls, first = time.monotonic(), robot[0].detector().count("stalls"), len(robot[0].scores)
    os.kill(detector.pid, signal.SIGSTOP)
    me.spin(8.0)
    os.kill(detector.pid, signal.SIGCONT)
    me.spin(2.5)
    assert {event.label for _, event in robot[0].reports(since=since)} == {"anything"}
    assert "OFFSET" not in robot[0].phases("anything", since)
    assert robot[0].detector().count("stalls") == stalls + 1
    processed = [stamp_to_ns(message.header.stamp) for _, message in robot[0].scores[first:]]
    assert len(processed) >= 10 + 2, "the middleware keeps the last 10 messages for a process that does not run"
    assert processed == sorted(set(processed)), "each tick once, in order"
    assert "jumped back" not in detector.output


def test_events_end_when_the_embedder_is_killed_and_begin_with_another_one(
    robot: tuple[Robot, Executable], embedder: Executable
) -> None:
    robot[0].wait_for_open_event()
    since = robot[0].wait_for_end(embedder.kill)
    another = start_embedder(robot[1])
    try:
        robot[0].wait_for_recovery(since)
    finally:
        another.kill()
