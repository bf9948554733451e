"""The detector with an embedder that this test plays: a lost answer, a paused simulated clock, another space."""

from __future__ import annotations

import sys
import time
from typing import Any

from helpers.diagnostic_statuses import DIAGNOSTICS, OK, STALE, Status, newest
from helpers.ros_processes import Executable, peer, ros_environment, running
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Embedding, fuse
from sensebind.fusion.core.events import Event, EventPhase
from sensebind.fusion.core.samples import AUDIO, SECOND, TEXT, VISION, to_ns
from sensebind.fusion.core.windows import WindowSpec

STOPPED = "fault:embeddings:stopped"
START = 1_700_000_000 * SECOND
HOP = 0.5  # s
VALUES: dict[str, Any] = {
    "use_sim_time": True,
    "prompts.anything": ["a photo"],
    "prompt.calibration": "none",
    "prompt.threshold": 0.05,  # a similarity that every embedding here has
    "prompt.onset_threshold": 0.01,
    "prompt.offset_threshold": 0.01,
    "prompt.min_duration": 0.0,
    "detectors": ["prompt", "fault"],
}

DYING_SERVICE = """
import os, rclpy
from sensebind_msgs.srv import EmbedText

def die(request, response):
    print("dies", flush=True)
    os._exit(1)

rclpy.init()
node = rclpy.create_node("embedder")
node.create_service(EmbedText, "embed_text", die)
rclpy.spin(node)
"""


def test_a_lost_answer_is_requested_again_a_paused_clock_is_no_fault_and_another_space_is_accepted() -> None:
    from rosgraph_msgs.msg import Clock

    from sensebind.fusion.io import messages
    from sensebind.nodes.support.message_types import RosMessageFactory, message_type
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS, LATCHED_QOS

    environment = ros_environment("sensebind_msgs")
    make, space = RosMessageFactory(), ToySpace([VISION, AUDIO])
    vector = space.embed_text(["a photo"]).numpy()[0]
    # --- an embedder that dies while it answers
    dying = Executable([sys.executable, "-c", DYING_SERVICE], environment)
    with peer(environment) as me, running("detector", environment=environment, values=VALUES) as detector:
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics")
        received = me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS)
        space_publisher = me.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS)
        specs = {m: WindowSpec(m, SECOND, to_ns(HOP)) for m in (VISION, AUDIO)}
        space_publisher.publish(messages.space_message(make, space, specs, START))

        def status() -> Status:
            return newest(diagnostics, "detector: events")

        def events() -> list[Event]:
            return [messages.event_from_message(message) for _, message in received]

        me.wait_until(lambda: "dies" in dying.output, 60, "the request")
        dying.wait(10)
        me.wait_until(lambda: "waiting" in status().message, 10, "diagnostics")

        def embed_text(request: Any, response: Any) -> Any:
            response.success = True
            response.embeddings = [
                messages.embedding_message(make, Embedding(TEXT, START, START, space.id, 1.0, vector))
                for _ in request.texts
            ]
            return response

        me.node.create_service(message_type("sensebind_msgs/srv/EmbedText"), "embed_text", embed_text)
        me.wait_until(lambda: status().message.startswith("1 prompts"), 30, "the answer")

        # --- embeddings on a simulated clock, which stops
        clock_publisher = me.publisher("rosgraph_msgs/msg/Clock", "/clock", 10)
        publishers = {
            m: me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{m}", EMBEDDING_QOS) for m in (VISION, AUDIO, FUSED)
        }
        for publisher in [clock_publisher, *publishers.values()]:
            me.wait_for_subscribers(publisher)
        number, clock = 0, START

        def play(seconds: float, *, embeddings: bool = True) -> None:
            nonlocal number, clock
            for _ in range(round(seconds / 0.1)):
                me.spin(0.1)
                clock += SECOND // 10
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(clock, SECOND)
                clock_publisher.publish(message)
                if embeddings and clock % to_ns(HOP) == 0:
                    found = [Embedding(m, clock - SECOND, clock, space.id, 1.0, vector) for m in (VISION, AUDIO)]
                    for item in [*found, fuse(found)]:
                        publishers[item.modality].publish(messages.embedding_message(make, item, number))
                    number += 1

        play(2.0)
        assert [e.phase for e in events() if e.phase is not EventPhase.UPDATE] == [EventPhase.ONSET], detector.output
        me.spin(3.5)  # the clock stands still
        assert {e.label for e in events()} == {"anything"} and all(e.phase is not EventPhase.OFFSET for e in events())
        assert "/clock stands still" in status().message and status().level == OK
        play(1.0)
        assert len({e.id for e in events()}) == 1 and all(e.phase is not EventPhase.OFFSET for e in events())
        began = time.monotonic()
        play(3.5, embeddings=False)
        labels = [(e.label, e.phase) for e in events()]
        assert labels[-2:] == [("anything", EventPhase.OFFSET), (STOPPED, EventPhase.ONSET)]
        assert next(at for at, m in received if m.label == STOPPED) - began < 3.5
        me.wait_until(lambda: status().level == STALE, 5, "STALE")

        # --- an embedder with another space
        space.id, seen = "toy@1", len(events())
        space_publisher.publish(messages.space_message(make, space, specs, START))
        play(3.0)
        found = [(e.label, e.phase, e.space) for e in events()[seen:] if e.phase is not EventPhase.UPDATE]
        assert found == [(STOPPED, EventPhase.OFFSET, "toy@0"), ("anything", EventPhase.ONSET, "toy@1")]
