"""The text of `sensebind topics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import Topic
from sensebind.fusion.io.topic_selection import Candidate, TopicChoice, TopicSelection

NO_SENSOR = "-"


def listing(
    start: int,
    topics: Sequence[Topic],
    selection: TopicSelection,
    sensors: Mapping[str, Mapping[str, TopicChoice]],
) -> str:
    """Two lines for each candidate: what it was taken for, its name and its figures; and the reason. The sensors are
    first. The last line counts the other topics. `start`: log time (ns) of the first message of the recording.
    `topics`: all topics that are shown. `sensors`: as `selection.sensors` returned them."""
    names = {choice.topic: name for found in sensors.values() for name, choice in found.items()}
    reasons = {choice.topic: choice.reason for found in sensors.values() for choice in found.values()}
    shown = sorted(selection.candidates, key=lambda candidate: candidate.facts.name not in names)
    width = max((len(name) for name in names.values()), default=len(NO_SENSOR))
    name_width = max((len(candidate.facts.name) for candidate in shown), default=0)
    lines = []
    for candidate in shown:
        topic = candidate.facts.name
        figures = _figures(candidate, selection.time_span(topic), start)
        lines.append(f"{names.get(topic, NO_SENSOR):{width}}  {topic:{name_width}}  {figures}")
        reason = reasons.get(topic) or selection.reason_against(candidate, sensors)
        if len(candidate.facts.frame_ids) > 1:
            reason += "; it has several frames: if several devices publish on it, give each a topic of its own"
        if candidate.facts.stamps and not any(candidate.facts.stamps):
            reason += "; its first stamps are 0"
        lines.append(f"{'':{width}}  {reason}")
    return "\n".join(map(printable, [*lines, _others(topics, {candidate.facts.name for candidate in shown})]))


def _figures(candidate: Candidate, span: tuple[int, int], start: int) -> str:
    """Type, encoding and size; messages, rate and time covered; frames."""
    facts = candidate.facts
    kind = facts.topic.type.rpartition("/")[2]
    size = f" {facts.width}×{facts.height}" if facts.width else ""
    encoding = f" {facts.encoding_text}{size}" if facts.encoding else ""
    count = facts.topic.message_count
    first, last = ((stamp - start) / SECOND for stamp in span)
    rate = f", {(count - 1) / (last - first):.1f} Hz" if last > first else ""
    time = f"{first:.1f} to {last:.1f} s" if any(span) else "none can be read"
    frames = ", ".join(f"'{frame}'" for frame in facts.frame_ids) or "none"
    word = "message" if count == 1 else "messages"
    return f"{kind}{encoding}; {count} {word}{rate}, {time}; frame_id {frames}"


def _others(topics: Sequence[Topic], shown: set[str]) -> str:
    """The number of topics of other types, with these types."""
    types = Counter(topic.type for topic in topics if topic.name not in shown)
    if not types:
        return "no other topics"
    kinds = ", ".join(f"{count} × {kind}" if count > 1 else kind for kind, count in sorted(types.items()))
    total = sum(types.values())
    return f"{total} {'topic' if total == 1 else 'topics'} of other types: {kinds}"
