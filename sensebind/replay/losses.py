"""What a replay did not use: messages, samples and windows, counted by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sensebind.fusion.io.recordings import ForeignTopic, Recording, RecordingLoss, Topic
from sensebind.fusion.stream.accounting.identity import Account, accounts, final_counts, sensor_counts
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.statistics import SAMPLE_DROPS
from sensebind.replay.reader import SampleReader

UNDECODABLE = "undecodable"  # messages that are no samples of their modality
UNFUSED = "unfused"  # windows that were embedded, but too late for the fused vector of their tick
# Of the causes for windows: those that are a fault, and not in every recording.
FAULTY_WINDOWS = ("encoding", "failure", "no_encoder", "abandoned", UNFUSED)
MAX_NAMED_TOPICS = 5  # topics that a line of text names


@dataclass(frozen=True, slots=True)
class SensorLosses:
    """What was not used of one sensor: cause → count. `messages`: those read from its topic, of which those of
    `messages_lost` became no samples; `samples` and `windows` likewise. `gaps`: ticks without a sample.
    `accounts`: the lines of the accounting identity."""

    messages: int
    messages_lost: Mapping[str, int]
    samples: int
    samples_lost: Mapping[str, int]
    windows: int
    windows_lost: Mapping[str, int]
    gaps: int
    accounts: Sequence[Account] = ()

    def text(self) -> str:
        """The counts in words: `2 of 50 windows (coverage 2), 3 of 500 samples (late 3)`; empty if all was used."""
        parts = [
            f"{sum(lost.values())} of {total} {noun} ({', '.join(f'{cause} {n}' for cause, n in lost.items())})"
            for noun, total, lost in (
                ("messages", self.messages, self.messages_lost),
                ("samples", self.samples, self.samples_lost),
                ("windows", self.windows, self.windows_lost),
            )
            if lost
        ]
        return ", ".join(parts + ([f"{self.gaps} ticks without a sample"] if self.gaps else []))

    def faults(self) -> dict[str, int]:
        """Cause → count of what was lost because something is wrong. Samples between windows, and windows that data
        cover too little, as the first ones of a recording, are in every recording."""
        found = dict(self.messages_lost)
        found |= {cause: count for cause, count in self.samples_lost.items() if cause in SAMPLE_DROPS}
        return found | {cause: count for cause, count in self.windows_lost.items() if cause in FAULTY_WINDOWS}

    def as_json(self) -> dict[str, Any]:
        """The entry of `summary.json`. The totals of samples and windows are in its section `modalities`."""
        return {
            "messages": self.messages,
            "messages_lost": dict(self.messages_lost),
            "samples_lost": dict(self.samples_lost),
            "windows_lost": dict(self.windows_lost),
            "gaps": self.gaps,
            "accounts": {account.name: account.as_json() for account in self.accounts},
        }


@dataclass(frozen=True, slots=True)
class ReplayLosses:
    """What a replay did not use. `recording`: messages that could not be read. `notes`: facts about the recording.
    `foreign_topics`: topics that are not of ROS. `unused_topics`: topics of no sensor. `sensors`: sensor → its
    losses."""

    recording: tuple[RecordingLoss, ...] = ()
    notes: tuple[str, ...] = ()
    foreign_topics: tuple[ForeignTopic, ...] = ()
    unused_topics: tuple[Topic, ...] = ()
    sensors: Mapping[str, SensorLosses] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What was not used, in sentences."""
        result = [*(loss.text for loss in self.recording), *self.notes]
        result += [
            f"{sensor}: {count} samples are between two windows, because {sensor}.window is shorter than {sensor}.hop: "
            "this is as configured, and no fault"
            for sensor, own in self.sensors.items()
            if (count := own.samples_lost.get("between"))
        ]
        if self.unused_topics:
            named = ", ".join(topic.name for topic in self.unused_topics[:MAX_NAMED_TOPICS])
            more = len(self.unused_topics) - MAX_NAMED_TOPICS
            total = sum(topic.message_count for topic in self.unused_topics)
            result.append(
                f"topics of no sensor: {named}{f' and {more} more' if more > 0 else ''} ({total} messages); "
                "all are in summary.json"
            )
        return result

    def faults(self) -> list[str]:
        """What was lost because something is wrong, by sensor. `recording` is reported apart."""
        return [
            f"{sensor} ({', '.join(f'{cause} {count}' for cause, count in own.faults().items())})"
            for sensor, own in self.sensors.items()
            if own.faults()
        ]

    def as_json(self) -> dict[str, Any]:
        """The section `losses` of `summary.json`."""
        return {
            "recording": [
                {"cause": loss.cause, "topic": loss.topic or None, "messages": loss.messages, "text": loss.text}
                for loss in self.recording
            ],
            "notes": list(self.notes),
            "not_ros": {
                topic.name: {"type": topic.type, "encoding": topic.encoding, "messages": topic.message_count}
                for topic in self.foreign_topics
            },
            "topics_of_no_sensor": {
                topic.name: {"type": topic.type, "messages": topic.message_count} for topic in self.unused_topics
            },
            "sensors": {sensor: own.as_json() for sensor, own in self.sensors.items()},
        }


def losses_of(recording: Recording, reader: SampleReader, pipeline: Pipeline) -> ReplayLosses:
    """What was not used of a recording that was read to its end by `reader` and embedded by `pipeline`."""
    sensors = {}
    for sensor, statistics in pipeline.statistics().items():
        if sensor not in reader.topics:
            continue
        counts = statistics.counts
        windows = statistics.dropped()
        if unfused := counts["unfused"]:
            windows[UNFUSED] = unfused
        undecodable = reader.undecodable_counts[sensor]
        sensors[sensor] = SensorLosses(
            messages=reader.message_counts[sensor],
            messages_lost={UNDECODABLE: undecodable} if undecodable else {},
            samples=counts["samples"],
            samples_lost=statistics.dropped(SAMPLE_DROPS) | statistics.without_window(),
            windows=counts["windows"],
            windows_lost=windows,
            gaps=counts["gaps"],
            accounts=accounts(final_counts(sensor_counts(statistics, reader.accounted_messages(sensor)))),
        )
    unused = tuple(topic for topic in recording.topics if topic.name not in reader.read_topics)
    return ReplayLosses(
        tuple(recording.losses), tuple(recording.notes), tuple(recording.foreign_topics), unused, sensors
    )
