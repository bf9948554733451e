"""The executable `detector`: embeddings in, events out."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("detector", __name__)  # before the imports below, which take seconds

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher

from sensebind.fusion.config.detectors import make_detectors, phrases_of, prompts_of
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.errors import ConfigError, SensebindError, printable
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND, to_ns
from sensebind.fusion.core.space import suggested_phrases
from sensebind.fusion.events.prompt import PromptDetector, unrecognisable_text
from sensebind.fusion.events.prompt_calibration import NO_CALIBRATION, find_calibration
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.phrases import MAX_PHRASE_LENGTH, PhraseAnswer, received_phrases
from sensebind.fusion.io.received.spaces import KnownSpaces, ReceivedSpace, received_space
from sensebind.fusion.io.received.values import RefusedMessage
from sensebind.nodes.phrase_requests import PhraseRequests
from sensebind.nodes.support.diagnostic_status import diagnostic_array, diagnostic_status
from sensebind.nodes.support.guards.callbacks import CallbackGuard
from sensebind.nodes.support.managed_node import ManagedNode, serve
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.parameter_files import source_files
from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EMBEDDING_QOS, EVENT_QOS, LATCHED_QOS
from sensebind.nodes.support.run import ACKNOWLEDGEMENT_TIMEOUT, run_node
from sensebind.nodes.tick_assembler import MIN_JUMP_BACK, StampGate, TickAssembler, TimeJumps
from sensebind.nodes.watchdog import POLL_PERIOD, Backlog, EmbeddingWatchdog

MESSAGE_FACTORY = RosMessageFactory()
MIN_TICKS_OF_PRESENCE = 20  # ticks after which a modality without embeddings is missing
MAX_WAITING_TICKS = 240  # ticks that are held until the first prompts are embedded
MAX_PHRASES_OF_REQUEST = 64  # more are requested in several calls, each with its own time limit
MAX_REASON_LENGTH = 1000  # characters of the reason of a failed call in the log
CHANGE_LOG_PERIOD = 10.0  # s from one line of the log on another space, or on a jump of the clock, to the next one


class DetectorNode(ManagedNode):
    """Runs one step of the event tracker for each tick, when the fused embedding and all its sources have arrived.

    The embedder's service `embed_text` embeds the phrases, so their vectors are of the same space as those of the
    sensors. Once it is configured, it knows the space and requests the vectors; while it is active, it receives
    embeddings. Messages and answers that are not valid are refused (`CallbackGuard`). All callbacks and `finish` run
    in the executor's thread.
    """

    def __init__(self) -> None:
        super().__init__("detector")
        self._logged_labels: set[str] = set()  # those that were in the log
        self._logged_calibrations: set[str] = set()  # warnings about the calibration that were in the log
        self._last_published = -math.inf  # `time.monotonic()` of the last event
        self._is_made = False  # whether `configure` made publishers, subscriptions, …
        self._active_timers: list[Any] = []
        self._embedding_subscriptions: dict[str, Any] = {}

    def configure(self, values: dict[str, Any]) -> None:
        self._values = values
        self._callback_guard, self._gate = CallbackGuard(self), StampGate()
        self._phrases: dict[str, PhraseAnswer] = {}  # phrase → its vector in the current space, and what belongs to it
        self._needs_configuration = False  # parameters or space changed after the tracker was configured
        self._space: ReceivedSpace | None = None
        self._known_spaces = KnownSpaces()
        self._ignores_calibration = False  # it does not fit the current space
        self._present_modalities: set[str] = set()  # those that had an embedding
        self._tracker: EventTracker | None = None
        # Ticks that wait for the tracker.
        self._waiting_ticks: deque[tuple[int, dict[str, Embedding]]] = deque()
        self._assembler = TickAssembler(to_ns(values["tick_timeout"]), self._count_end)
        self._watchdog = EmbeddingWatchdog(values["fault.update_period"])
        self._backlog = Backlog(self._count_end)
        self._jumps = TimeJumps(MIN_JUMP_BACK + self._assembler.timeout, self._drop_wrong_time)
        self._counts: Counter[str] = Counter()
        self._received: Counter[str] = Counter()  # sensor of the space, or fused → embeddings that were accepted
        # Topic → sequence numbers of its messages.
        self._sequences: defaultdict[str, Iterator[int]] = defaultdict(count)
        self._prompt_detector: PromptDetector | None = None  # of the tracker
        self._unrecognisable = ""  # the warning for labels that no present modality can recognise
        self._required_phrases = self._validate(values)  # phrases that the detectors need vectors for
        self._warn_of_missing_prompts()
        self._event_publisher = self.create_publisher(message_type(messages.EVENT_TYPE), "events", EVENT_QOS)
        self._scores = self.create_publisher(message_type(messages.PROMPT_SCORES), "prompt_scores", EMBEDDING_QOS)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._phrase_requests = PhraseRequests(self, self._on_phrases_embedded)
        self._space_subscription = self._callback_guard.subscribe(
            "space", messages.EMBEDDING_SPACE_TYPE, "embedding_space", self._on_space, LATCHED_QOS, end="applied"
        )
        self._update_timer = self.create_timer(
            0.2,
            self._callback_guard.timed("detectors", self._update_detectors),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._is_made = True

    def activate(self) -> None:
        self._subscribe_to_sensors()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._active_timers = [
            self.create_timer(1.0, self._publish_diagnostics, clock=steady),
            self.create_timer(POLL_PERIOD, self._callback_guard.timed("watchdog", self._watch), clock=steady),
        ]

    def deactivate(self) -> list[Publisher]:
        """Process the held ticks and end all open events. The next activation begins without a past."""
        for timer in self._active_timers:
            self.destroy_timer(timer)
        self._active_timers = []
        for subscription in self._embedding_subscriptions.values():
            self.destroy_subscription(subscription)
        self._embedding_subscriptions = {}
        self._jumps.restart()
        self._process(self._backlog.flush())
        self._step(self._assembler.flush())
        self._restart_tracker()
        self._report_fault(self._watchdog.restart())
        self._gate = StampGate()
        self._backlog.restart()
        self._assembler.restart()
        self._drop_waiting_ticks(0)
        return [self._event_publisher] if time.monotonic() - self._last_published < ACKNOWLEDGEMENT_TIMEOUT else []

    def release(self) -> None:
        if not self._is_made:
            return
        self._is_made = False
        self.destroy_timer(self._update_timer)
        self.destroy_subscription(self._space_subscription)
        self._phrase_requests.close(self)
        for publisher in (self._event_publisher, self._scores, self._diagnostics_publisher):
            self.destroy_publisher(publisher)

    # --- the space, prompts and parameters

    @property
    def _space_id(self) -> str:
        return self._space.id if self._space is not None else ""

    @property
    def _encoders(self) -> Mapping[str, str]:
        return self._space.encoders if self._space is not None else {}

    @property
    def _sensors(self) -> Mapping[str, str]:
        return self._space.sensors if self._space is not None else {}

    def _on_space(self, message: Any) -> None:
        space = received_space(message)
        self._known_spaces.add(space)
        self._set_space(space)

    def _set_space(self, space: ReceivedSpace) -> None:
        before = self._space
        if before is None or not space.is_same(before):
            self._process(self._backlog.flush())
            self._end_events()
        elif before.sensors.keys() - space.sensors.keys() and self._tracker is not None:
            self.get_logger().info(
                "the embedder has other sensors: event tracking starts again", throttle_duration_sec=CHANGE_LOG_PERIOD
            )
            self._process(self._backlog.flush())
            self._step(self._assembler.flush())
            self._restart_tracker()  # else a sensor that was removed seems to be unplugged
        self._space = space
        self._forget_other_sensors(space)
        if self.is_active:
            self._subscribe_to_sensors()
        self._watchdog.longest_hop = self._jumps.longest_hop = space.longest_hop
        self._phrase_requests.restart()  # a new embedder may have started
        if before is None or not space.is_same(before):
            self._use_space(before)
        elif space.encoders != before.encoders or space.sensors != before.sensors:
            self._needs_configuration = True
            self._update_detectors()

    def _forget_other_sensors(self, space: ReceivedSpace) -> None:
        """Else a publisher of spaces with ever new sensors would fill the memory."""
        self._watchdog.keep(space.sensors)
        for source in self._received.keys() - space.sensors.keys() - {FUSED}:
            del self._received[source]

    def _use_space(self, before: ReceivedSpace | None) -> None:
        """Start anew with vectors of the space that was received. `before`: the space until now."""
        if before is not None:
            self._counts["spaces"] += 1
            self.get_logger().warning(
                f"the space changed from {before.id} to {self._space_id}: event tracking starts again",
                throttle_duration_sec=CHANGE_LOG_PERIOD,
            )
        self._tracker, self._needs_configuration, self._phrases = None, True, {}
        self._prompt_detector, self._present_modalities = None, set()
        self._ignores_calibration = False
        try:
            find_calibration(self._values["prompt.calibration"], self._space_id, self._encoders)
        except SensebindError as error:
            self._ignores_calibration = True
            self.get_logger().error(
                f"{error}; continuing without a calibration", throttle_duration_sec=CHANGE_LOG_PERIOD
            )
        self._update_detectors()

    def _subscribe_to_sensors(self) -> None:
        """Receive the embeddings of the sensors of the space, and of no others."""
        wanted = self._space.topics if self._space is not None else {FUSED}
        for sensor in self._embedding_subscriptions.keys() - wanted:
            self.destroy_subscription(self._embedding_subscriptions.pop(sensor))
        for sensor in sorted(wanted - self._embedding_subscriptions.keys()):
            self._embedding_subscriptions[sensor] = self._callback_guard.subscribe(
                "embedding",
                messages.EMBEDDING_TYPE,
                f"embeddings/{sensor}",
                partial(self._on_embedding, sensor),
                EMBEDDING_INPUT_QOS,
            )

    def _validate(self, values: dict[str, Any]) -> list[str]:
        """The phrases that detectors with these values need. Raises `SensebindError` if they are not valid."""
        phrases = phrases_of(values)
        for phrase in phrases:
            if len(phrase) > MAX_PHRASE_LENGTH:  # `embed_text` would refuse it, and those beside it
                raise ConfigError(
                    f"parameters 'prompts.*': the phrase '{printable(phrase, 40)}' has {len(phrase)} characters, more "
                    f"than {MAX_PHRASE_LENGTH}: shorten it"
                )
        find_calibration(values["prompt.calibration"], self._space_id, self._encoders)
        return phrases

    def apply_values(self, values: dict[str, Any]) -> None:
        phrases = self._validate(values)
        had_prompts = bool(prompts_of(self._values))
        self._values, self._required_phrases, self._needs_configuration = values, phrases, True
        self._assembler.timeout = to_ns(values["tick_timeout"])
        self._jumps.max_back = MIN_JUMP_BACK + self._assembler.timeout
        self._watchdog.update_period = values["fault.update_period"]
        if had_prompts:
            self._warn_of_missing_prompts()
        self._update_detectors()

    def _warn_of_missing_prompts(self) -> None:
        if "prompt" in self._values["detectors"] and not prompts_of(self._values):
            files = ", ".join(f"'{file}'" for file in source_files()) or "a parameter file"
            self.get_logger().warning(
                "no label has a phrase, so no event that you name is reported: set 'prompts.<label>' in the section "
                f"'/**' of {files}, for example prompts: {{person: [a person]}}; or remove prompt from 'detectors'"
            )

    def _update_detectors(self) -> None:
        """Set the tracker's detectors if all phrases have vectors; otherwise request the missing vectors."""
        if not self._needs_configuration or not self._space_id:
            return
        missing = sorted(set(self._required_phrases) - set(self._phrases))
        if missing:
            self._phrase_requests.request(missing[:MAX_PHRASES_OF_REQUEST], time.monotonic())
            return
        self._phrases = {phrase: self._phrases[phrase] for phrase in self._required_phrases}
        values = self._values
        found = make_detectors(
            {**values, "prompt.calibration": NO_CALIBRATION} if self._ignores_calibration else values,
            lambda phrases: np.stack([self._phrases[phrase].vector for phrase in phrases]),
            self._sensors,
            self._competences,
            lambda phrases: [self._phrases[phrase].object for phrase in phrases],
            self._encoders,
        )
        self._prompt_detector = next((d for d in found if isinstance(d, PromptDetector)), None)
        self._warn_of_lost_calibrations()
        if self._tracker is None:
            self._tracker = EventTracker(found, self._space_id)
            self.get_logger().info(
                f"events from {', '.join(d.kind.name.lower() for d in found)} in space {self._space_id}",
                throttle_duration_sec=CHANGE_LOG_PERIOD,
            )
            self._step([])
        else:
            self._tracker.replace_detectors(found)
        self._needs_configuration = False

    def _warn_of_lost_calibrations(self) -> None:
        """Log once each modality that loses its part of the calibration, because its encoder is another."""
        calibration = self._prompt_detector.calibration(self._space_id) if self._prompt_detector else None
        for text in calibration.warnings(sorted(set(self._sensors.values()))) if calibration else []:
            if text not in self._logged_calibrations:
                self._logged_calibrations.add(text)
                self.get_logger().warning(text)

    def _on_phrases_embedded(self, phrases: list[str], answer: Any) -> bool:
        """Store the answers for phrases. Returns whether they can be used and are of the current space."""
        service = self.resolve_service_name("embed_text")
        if not answer.success:
            reason = printable(answer.message, MAX_REASON_LENGTH)
            why = f"{service}: the phrases of the prompts could not be embedded: {reason}"
            self._callback_guard.refuse("answer.failed", why)
            return False
        try:
            if self._space is None:
                return False
            found = received_phrases(answer, len(phrases), self._space)
        except RefusedMessage as error:
            self._callback_guard.refuse(f"answer.{error.cause}", f"{service}: an answer was refused: {error}")
            return False
        if any(phrase.space != self._space_id for phrase in found):
            return False  # the embedder changed its space meanwhile: `_on_space` starts another request
        self._phrases.update(zip(phrases, found, strict=True))
        self._update_detectors()
        return True

    def _competences(self, phrases: Sequence[str]) -> dict[str, list[float]]:
        """Modality → its competence for each of N phrases."""
        of_phrases = [self._phrases[phrase].competences for phrase in phrases]
        return {m: [of.get(m, 1.0) for of in of_phrases] for m in {m for of in of_phrases for m in of}}

    # --- embeddings in, events out

    def _on_embedding(self, sensor: str, message: Any) -> None:
        now, embedding = time.monotonic(), received_embedding(message, self._space, sensor)
        if not self._gate.accept(embedding.tick, now):
            seconds = embedding.tick / SECOND
            raise RefusedMessage("time", f"the stamp {seconds:.0f} s is more than an hour from those of the others")
        # It is accepted: from here on, it has one end, also if there is an error.
        self._received[embedding.source] += 1
        if not self._jumps.hold(now, embedding, message.sequence):
            self._follow_space(now, embedding)
            self._use(now, embedding, message.sequence)
        self._release_jumps(now)

    def _follow_space(self, now: float, embedding: Embedding) -> None:
        """Use the space of the vectors that arrive, if they are no longer of the one that was received last."""
        found = self._known_spaces.replacement(embedding.space, embedding.vector.size, self._space_id, now)
        if found is not None:
            self._callback_guard.attempt("space", lambda: self._set_space(found))
        if embedding.space == self._space_id:
            self._present_modalities.add(embedding.modality)

    def _release_jumps(self, now: float) -> None:
        """Go on with embeddings whose stamps have jumped, if those of all sensors have."""
        found, is_back = self._jumps.release(now)
        if is_back:
            self._process(self._backlog.flush())
            self._jump_back(found[0][0].tick)
        for embedding, sequence in found:
            self._use(now, embedding, sequence)

    def _use(self, now: float, embedding: Embedding, sequence: int) -> None:
        """Go on with an embedding whose stamp is right, or hold it after a stall."""
        self._report_fault(self._watchdog.add(embedding))
        if not self._backlog.hold(now, embedding, sequence):
            self._process([embedding])

    def _watch(self) -> None:
        """Process the embeddings that were held after a stall. End all events if no embeddings arrive."""
        now = time.monotonic()
        self._release_jumps(now)
        self._process(self._backlog.release(now))
        clock = self.get_clock()
        reports = self._watchdog.poll(now, clock.now().nanoseconds if clock.ros_time_is_active else None)
        if any(report.phase is EventPhase.ONSET for report in reports):
            self.get_logger().warning(f"{self._missing_embeddings_text()}: open events end")
            self._process(self._backlog.flush())
            self._end_events()
        self._report_fault(reports)

    def _report_fault(self, reports: list[Event]) -> None:
        """Publish reports of the watchdog, if faults are detected."""
        if any(report.phase is EventPhase.OFFSET for report in reports):
            self.get_logger().info("embeddings arrive again")
        if reports and "fault" in self._values["detectors"]:
            self._callback_guard.attempt("watchdog", lambda: self._publish(reports))

    def _end_events(self) -> None:
        """Process the ticks that the assembler holds, and end all open events."""
        self._step(self._assembler.flush())
        if (tracker := self._tracker) is not None:
            self._callback_guard.attempt("tracker", lambda: self._publish(tracker.finish()))

    def _restart_tracker(self) -> None:
        """End all open events, and forget all ticks."""
        if (tracker := self._tracker) is not None:
            self._callback_guard.attempt("tracker", lambda: self._publish(tracker.restart()))

    def _process(self, embeddings: Sequence[Embedding]) -> None:
        """Go on with accepted embeddings. Raises nothing: an error with a tick is counted as `dropped.failed`."""
        for embedding in embeddings:
            if self._assembler.jumped_back(embedding):
                self._jump_back(embedding.tick)
                self._assembler.jumped_back(embedding)
            if self._assembler.is_late(embedding):
                self._count_end(embedding, self._revise(embedding))
            else:
                self._step(self._assembler.add(embedding))

    def _jump_back(self, tick: int) -> None:
        """The clock jumped back to `tick` (ns): end all events, and forget all ticks."""
        self.get_logger().info(
            "the clock jumped back: event tracking starts again", throttle_duration_sec=CHANGE_LOG_PERIOD
        )
        self._step(self._assembler.flush())
        self._assembler.restart()
        self._watchdog.jumped_back(tick)
        self._restart_tracker()

    def _revise(self, late: Embedding) -> str:
        """Process an embedding whose tick was processed. Returns its end."""
        self._counts["late"] += 1
        tracker = self._tracker
        if tracker is None or late.space != self._space_id or not tracker.accepts_late(late.tick):
            return "dropped.late"
        is_done = self._callback_guard.attempt(
            "tracker", lambda: self._publish(tracker.add_late_embeddings(late.tick, {late.source: late}))
        )
        return "used.late" if is_done else "dropped.failed"

    def _step(self, ticks: list[tuple[int, dict[str, Embedding]]]) -> None:
        self._waiting_ticks.extend(ticks)
        while self._tracker is not None and self._waiting_ticks:
            tick, present = self._waiting_ticks.popleft()
            known = {s: e for s, e in present.items() if e.space == self._space_id}
            self._counts["other_space"] += len(present) - len(known)
            is_done = bool(known) and self._callback_guard.attempt(
                "tracker", partial(self._track, self._tracker, tick, known)
            )
            self._counts["ticks"] += is_done
            for source, embedding in present.items():
                own_end = "used.in_tick" if is_done else "dropped.failed"
                self._count_end(embedding, own_end if source in known else "dropped.other_space")
        self._drop_waiting_ticks(MAX_WAITING_TICKS)

    def _track(self, tracker: EventTracker, tick: int, embeddings: dict[str, Embedding]) -> None:
        self._publish(tracker.step(tick, embeddings))
        self._publish_scores(tick, tracker)

    def _drop_waiting_ticks(self, limit: int) -> None:
        """Drop the oldest ticks that wait for the tracker, until at most `limit` wait."""
        while len(self._waiting_ticks) > limit:
            self._counts["lost_ticks"] += 1
            for embedding in self._waiting_ticks.popleft()[1].values():
                self._count_end(embedding, "dropped.not_ready")

    def _count_end(self, embedding: Embedding, end: str) -> None:
        """Count what became of an accepted embedding. Each has one end."""
        self._callback_guard.counts.of(f"embeddings/{embedding.source}")[end] += 1

    def _drop_wrong_time(self, embedding: Embedding, end: str) -> None:
        """The stamps of the others do not jump as that of this embedding does."""
        seconds = embedding.tick / SECOND
        text = f"embeddings/{embedding.source}: the stamp {seconds:.0f} s is far from those of the others: not used"
        self._callback_guard.refuse("embedding.time", text)
        self._count_end(embedding, end)

    def _waiting_embeddings(self) -> Counter[str]:
        """Topic → how many of its embeddings are neither used nor dropped yet."""
        waiting = self._jumps.waiting + self._backlog.waiting + self._assembler.waiting
        waiting.update(source for _, present in self._waiting_ticks for source in present)
        return Counter({f"embeddings/{source}": count for source, count in waiting.items()})

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._counts["events"] += event.phase is EventPhase.ONSET
            self._event_publisher.publish(
                messages.event_message(MESSAGE_FACTORY, event, next(self._sequences["events"]))
            )
            self._last_published = time.monotonic()
            if event.phase is not EventPhase.UPDATE:
                sensors = ", ".join(event.supporting_sensors)
                self.get_logger().info(
                    f"{event.phase.name} {event.kind.name} {event.label} {event.score:.2f} ({sensors})"
                )

    def _publish_scores(self, tick: int, tracker: EventTracker) -> None:
        """Publish the scores of all prompts at this tick. The message is large, so only if there is a subscriber."""
        if EventKind.PROMPT in tracker.scores and self._scores.get_subscription_count():
            message = messages.scores_message(
                MESSAGE_FACTORY,
                tick,
                self._space_id,
                tracker.scores[EventKind.PROMPT],
                next(self._sequences["prompt_scores"]),
            )
            self._scores.publish(message)

    def _find_unrecognisable_labels(self) -> None:
        """Find the labels that no modality with embeddings can recognise. Each is logged once.

        For the first ticks, the list is empty: a modality with long windows may still be missing.
        """
        self._unrecognisable = ""
        if self._prompt_detector is None or self._counts["ticks"] < MIN_TICKS_OF_PRESENCE:
            return
        present = sorted(self._present_modalities - {FUSED})
        found = self._prompt_detector.unrecognisable_labels(present, self._space_id)
        text = partial(self._unrecognisable_text, self._prompt_detector.prompts, present)
        if new := [label for label in found if label not in self._logged_labels]:
            self.get_logger().warning(text(new))
            self._logged_labels.update(new)
        self._unrecognisable = text(found) if found else ""

    def _unrecognisable_text(
        self, prompts: Mapping[str, Sequence[str]], modalities: Sequence[str], labels: Sequence[str]
    ) -> str:
        """The warning for labels that `modalities` cannot recognise, with the nearest phrases that they can."""
        near = {
            label: suggested_phrases(
                [
                    self._phrases[phrase].nearest.get(modality, []) if phrase in self._phrases else []
                    for phrase in prompts[label]
                    for modality in sorted(modalities)
                ]
            )
            for label in labels
        }
        return unrecognisable_text(labels, near)

    def _missing_embeddings_text(self) -> str:
        """The message that embeddings have stopped, with what to check."""
        topic = self.resolve_topic_name(f"embeddings/{FUSED}")
        text = f"no embeddings arrive since {self._watchdog.silence:.1f} s"
        if not self.count_publishers(topic):
            return f"{text}: no node publishes {topic}, so start the embedder"
        return f"{text}: the embedder does not run, is not active (`ros2 lifecycle get`), or receives no sensor data"

    def _publish_diagnostics(self) -> None:
        self._find_unrecognisable_labels()
        level, message = DiagnosticStatus.OK, f"{len(prompts_of(self._values))} prompts"
        if not self._space_id:
            level, message = DiagnosticStatus.STALE, "no embedder has published its space yet"
        elif self._watchdog.has_stopped:
            level, message = DiagnosticStatus.STALE, self._missing_embeddings_text()
        elif self._needs_configuration:
            level, message = DiagnosticStatus.WARN, "waiting for the embedder's embed_text"
        elif self._unrecognisable:
            level, message = DiagnosticStatus.WARN, f"{message}; {self._unrecognisable}"
        elif self._assembler.incomplete_ticks:
            message += f"; {self._assembler.incomplete_ticks} ticks without some of their vectors"
        if refused := self._callback_guard.warning:
            level, message = max(level, DiagnosticStatus.WARN), f"{message}; {refused}"
        if self._watchdog.clock_stands_still:
            message += "; /clock stands still"
        values = {
            "embeddings_age_s": round(self._watchdog.silence, 1),
            "stalls": self._backlog.stalls,
            "dropped_after_stalls": self._backlog.dropped,
            "requests_repeated": self._phrase_requests.repeated,
            "incomplete_ticks": self._assembler.incomplete_ticks,
            **self._callback_guard.values(self._waiting_embeddings()),
        }
        values = {**dict(sorted(self._received.items())), **values, **dict(sorted(self._counts.items()))}
        status = diagnostic_status(self.get_fully_qualified_name(), "events", level, message, values)
        self._diagnostics_publisher.publish(diagnostic_array(self, status))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0; 1 if a parameter is wrong or a message type is missing."""
    return run_node("detector", DetectorNode, args, serve=serve, finish=DetectorNode.finish)


if __name__ == "__main__":
    sys.exit(main())
