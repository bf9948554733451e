"""The executable `detector`: embeddings in, events out."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher

from sensebind.fusion.config.detectors import detectors, phrases_of, prompts_of
from sensebind.fusion.core.embeddings import FUSED, Embedding, Vector
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.events import Event, Kind, Phase
from sensebind.fusion.core.samples import to_ns
from sensebind.fusion.events.calibration import NONE, calibration_for
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.io import messages
from sensebind.nodes.support.parameters import OPTIONS, KeepsEmptyLists, accept_old_names, changed, declare
from sensebind.nodes.support.qos import EVENTS, LATCHED, VECTORS
from sensebind.nodes.support.run import DELIVERY, run
from sensebind.nodes.support.status import array_of, status_of
from sensebind.nodes.support.types import RosTypes, message_type
from sensebind.nodes.tick_assembler import Ticks

TYPES = RosTypes()
WAITING = 240  # ticks that wait for the first prompts to be embedded


class Detector(KeepsEmptyLists, Node):
    """Steps the event line once a tick, when the fused embedding and all its sources are there.

    Phrases are embedded by the embedder's `embed_text`, so words and senses meet in one space. All callbacks run in the
    executor's thread, and so does `finish`.
    """

    def __init__(self) -> None:
        super().__init__("detector", **OPTIONS)
        self._values: dict[str, Any] = declare(self, "detector")
        self._phrases: dict[str, Vector] = {}  # of this space
        self._asked: Any = None  # the call to embed_text that is under way
        self._stale = False  # parameters, prompts or space have changed since the line was configured
        self._space = ""
        self._configured: tuple[str, ...] = ()  # modalities that the embedder is configured for and has encoders for
        self._line: EventLine | None = None
        self._waiting: deque[tuple[int, dict[str, Embedding]]] = deque(maxlen=WAITING)  # for the line
        self._ticks = Ticks(to_ns(self._values["tick_timeout"]))
        self._counts: Counter[str] = Counter()
        self._sequences: Counter[str] = Counter()  # topic → number of its next message
        self._published_at = -math.inf  # `time.monotonic()` of the last event
        self._modalities: dict[str, Any] = {}
        self._wanted = self._check(self._values)  # phrases that the detectors need vectors of
        self._events = self.create_publisher(message_type(messages.EVENT), "events", EVENTS)
        self._scores = self.create_publisher(message_type(messages.PROMPT_SCORES), "prompt_scores", VECTORS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._client = self.create_client(message_type("sensebind_msgs/srv/EmbedText"), "embed_text")
        self.create_subscription(message_type(messages.EMBEDDING_SPACE), "embedding_space", self._take_space, LATCHED)
        self._subscribe(FUSED)
        self.add_on_set_parameters_callback(self._parameters_change)
        accept_old_names(self, "detector")
        self.create_timer(0.2, self._configure, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def finish(self) -> list[Publisher]:
        """Publish the end of what is still open. Returns the publisher, if it published lately."""
        self._step(self._ticks.rest())
        if self._line is not None:
            self._publish(self._line.finish())
        return [self._events] if time.monotonic() - self._published_at < DELIVERY else []

    # --- the space, prompts and parameters

    def _take_space(self, message: Any) -> None:
        self._configured = tuple(s.modality for s in message.sensors if s.modality in message.modalities)
        for modality in message.modalities:
            self._subscribe(modality)
        if message.id != self._space:
            if self._space:
                self.get_logger().warning(f"the space changed from {self._space} to {message.id}: events start afresh")
            self.finish()
            self._space, self._phrases, self._line, self._stale = message.id, {}, None, True
            try:
                calibration_for(self._values["prompt.calibration"], self._space)
            except SensebindError as error:
                self.get_logger().error(f"{error}; going on without")
                self._values = {**self._values, "prompt.calibration": NONE}
            self._configure()

    def _subscribe(self, modality: str) -> None:
        if modality not in self._modalities and modality != "text":
            self._modalities[modality] = self.create_subscription(
                message_type(messages.EMBEDDING), f"embeddings/{modality}", self._take, VECTORS
            )

    def _check(self, values: dict[str, Any]) -> list[str]:
        """The phrases that the detectors of these values need. Raises `SensebindError` where they would make none."""
        wanted = phrases_of(values)
        calibration_for(values["prompt.calibration"], self._space)
        return wanted

    def _parameters_change(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            values = changed(self, "detector", changes)
            wanted = self._check(values)
        except SensebindError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values, self._wanted, self._stale = values, wanted, True
        self._ticks.timeout = to_ns(values["tick_timeout"])
        self._configure()
        return SetParametersResult(successful=True)

    def _configure(self) -> None:
        """Give the line its detectors, once all phrases have vectors; ask for those that have none."""
        if not self._stale or not self._space or self._asked is not None:
            return
        missing = sorted(set(self._wanted) - set(self._phrases))
        if missing:
            if self._client.service_is_ready():
                request = message_type("sensebind_msgs/srv/EmbedText").Request(texts=missing)
                self._asked = self._client.call_async(request)
                self._asked.add_done_callback(lambda future: self._take_phrases(missing, future))
            return
        self._phrases = {phrase: self._phrases[phrase] for phrase in self._wanted}
        found = detectors(
            self._values, lambda wanted: np.stack([self._phrases[phrase] for phrase in wanted]), self._configured
        )
        if self._line is None:
            self._line = EventLine(found, self._space)
            self.get_logger().info(f"events from {', '.join(d.kind.name.lower() for d in found)} in {self._space}")
            self._step([])
        else:
            self._line.configure(found)
        self._stale = False

    def _take_phrases(self, phrases: list[str], future: Any) -> None:
        self._asked = None
        answer = future.result()
        if not answer.success:
            self.get_logger().error(f"phrases were not embedded: {answer.message}")
            return
        if any(embedding.space != self._space for embedding in answer.embeddings):
            return  # the embedder has changed its space under way: it will say so, and be asked again
        for phrase, embedding in zip(phrases, answer.embeddings, strict=True):
            self._phrases[phrase] = messages.embedding_of(embedding).vector
        self._configure()

    # --- embeddings in, events out

    def _take(self, message: Any) -> None:
        embedding = messages.embedding_of(message)
        self._counts[embedding.modality] += 1
        if self._ticks.jumped_back(embedding.tick):
            self.get_logger().info("time jumped back: events start afresh")
            self._step(self._ticks.rest())
            self._ticks.restart()
            if self._line is not None:
                self._publish(self._line.restart())
        if self._ticks.is_late(embedding):
            self._counts["late"] += 1
            if self._line is not None and embedding.space == self._space:
                self._publish(self._line.amend(embedding.tick, {embedding.modality: embedding}))
            return
        self._step(self._ticks.add(embedding))

    def _step(self, ticks: list[tuple[int, dict[str, Embedding]]]) -> None:
        self._counts["lost_ticks"] += max(0, len(self._waiting) + len(ticks) - WAITING)
        self._waiting.extend(ticks)
        while self._line is not None and self._waiting:
            tick, present = self._waiting.popleft()
            known = {m: e for m, e in present.items() if e.space == self._space}
            if known:
                self._publish(self._line.step(tick, known))
                self._publish_scores(tick, self._line)
                self._counts["ticks"] += 1

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._counts["events"] += event.phase is Phase.ONSET
            self._events.publish(messages.event_message(TYPES, event, self._sequences["events"]))
            self._sequences["events"] += 1
            self._published_at = time.monotonic()
            if event.phase is not Phase.UPDATE:
                senses = ", ".join(e.modality for e in event.evidence if e.supports)
                self.get_logger().info(
                    f"{event.phase.name} {event.kind.name} {event.label} {event.score:.2f} ({senses})"
                )

    def _publish_scores(self, tick: int, line: EventLine) -> None:
        """The scores of all prompts at this tick. The message has a row for each, so only if there is a subscriber."""
        if Kind.PROMPT in line.scores and self._scores.get_subscription_count():
            message = messages.scores_message(
                TYPES, tick, self._space, line.scores[Kind.PROMPT], self._sequences["prompt_scores"]
            )
            self._scores.publish(message)
            self._sequences["prompt_scores"] += 1

    def _diagnose(self) -> None:
        level, message = DiagnosticStatus.OK, f"{len(prompts_of(self._values))} prompts"
        if not self._space:
            level, message = DiagnosticStatus.STALE, "no embedder has told its space yet"
        elif self._stale:
            level, message = DiagnosticStatus.WARN, "waits for the embedder's embed_text"
        elif self._ticks.incomplete:
            message += f"; {self._ticks.incomplete} ticks lacked a vector"
        status = status_of("detector", level, message, dict(sorted(self._counts.items())))
        self._diagnostics.publish(array_of(self, status))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0, or 1 if a parameter is wrong or a message type missing."""
    return run("detector", Detector, args, finish=Detector.finish)


if __name__ == "__main__":
    sys.exit(main())
