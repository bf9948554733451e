"""Checks of sensebind_msgs/CrossModalEvent."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.io.messages import event_from_message
from sensebind.fusion.io.received.values import (
    MAX_WINDOW,
    RefusedMessage,
    checked_bearing,
    checked_count,
    checked_name,
    checked_number,
    checked_share,
    checked_stamp,
    checked_text,
    checked_window,
)
from sensebind.fusion.io.topic_names import MAX_SENSORS

MAX_WEIGHT = 1e6


def received_event(message: Any) -> Event:
    """The event in a sensebind_msgs/CrossModalEvent of this version or an older one. Raises `RefusedMessage`."""
    _check_constant(message.kind, EventKind, "kind")
    _check_constant(message.phase, EventPhase, "phase")
    checked_text(message.id, "id")
    checked_text(message.label, "label")
    checked_text(message.space, "space", empty=True)
    checked_text(getattr(message, "predecessor", ""), "predecessor", empty=True)
    # What began in the first windows of a simulation may have begun before 0.
    earliest = min(0, checked_stamp(message.header.stamp, "the stamp") - MAX_WINDOW)
    onset = checked_stamp(message.onset, "onset", earliest)
    offset = checked_stamp(message.offset, "offset", earliest)
    if offset and offset < onset:
        raise RefusedMessage("time", f"offset {offset} ns is before onset {onset} ns")
    checked_share(message.score, "score")
    for evidence in checked_count(message.evidence, "evidence", MAX_SENSORS):
        _check_evidence(evidence)
    return event_from_message(message)


def _check_constant(value: int, constants: type[IntEnum], cause: str) -> None:
    if value not in list(constants):
        known = ", ".join(f"{constant.value} {constant.name}" for constant in constants)
        raise RefusedMessage(cause, f"{cause} is {int(value)}, and this version knows {known}")


def _check_evidence(evidence: Any) -> None:
    modality = checked_name(evidence.modality, "the modality of evidence")
    checked_share(evidence.score, f"the score of {modality}")
    checked_window(evidence.window_start, evidence.window_end, f"the window of {modality}")
    if hasattr(evidence, "competence"):  # not in a message of Sensebind 0.1.0
        if evidence.sensor:
            checked_name(evidence.sensor, "the sensor of evidence")
        checked_text(evidence.frame_id, "frame_id", empty=True)
        checked_share(evidence.competence, f"the competence of {modality}")
        checked_number(evidence.weight, f"the weight of {modality}", 0, MAX_WEIGHT)
        checked_bearing(evidence.bearing, f"the bearing of {modality}")
