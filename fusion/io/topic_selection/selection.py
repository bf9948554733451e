"""Selects the topics of the sensors in a recording, by what they contain and then by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION
from sensebind.fusion.io.messages import COMPRESSED_IMAGE_TYPE
from sensebind.fusion.io.sensor_messages.sample_decoder import MESSAGE_TYPES
from sensebind.fusion.io.topic_names import imu_half, other_imu_half
from sensebind.fusion.io.topic_selection.examination import IMAGE_TOPIC_TYPES, Pixels, Source, TopicFacts, examine
from sensebind.fusion.io.topic_selection.kinds import Use, Verdict, judge_images, modality_of_name

# Types of sound, the best first. AudioData has no stamp.
AUDIO_TYPES = sorted(MESSAGE_TYPES[AUDIO], key=lambda name: name == "audio_common_msgs/msg/AudioData")
# Parts of topic names. Of several topics of one camera, the one with the earliest part in this list is selected.
PREFERRED_CAMERA_NAMES = ("color", "colour", "rgb", "left", "cam0", "front", "image")
# Last parts of topic names that name the data and not the device: topics that differ in these alone are of one device.
DATA_NAME = re.compile(
    r"(image|img|color|colour|mono|rgb|raw|rect|rectified|data|imu|audio|stamped|filtered|compressed|compresseddepth"
    r"|theora|ffmpeg|foxglove|h26[45]|accel|accels|accelerometer|linear_acceleration|gyro|gyros|gyroscope"
    r"|angular_velocity|sample|_)+"
)
# Parts of a depth topic's name that say what its images are, and not of which device.
DEPTH_DATA = re.compile(
    r"(aligned_)?depth_to_[a-z0-9]+|(depth|disparity|hw|sw|registered|image|rect|raw|unrectified|_)+"
)
MAX_NAME = 50  # characters of a sensor's name, before a suffix that makes it unique
# Fractions of the time and of the number of messages that another topic of the device has: with less, a topic is not
# selected. `MIN_LACK`: seconds that it must lack at least.
MIN_TIME, MIN_COUNT, MIN_LACK = 0.9, 0.5, 1.0


@dataclass(frozen=True, slots=True)
class TopicChoice:
    """A topic that was selected for a sensor, and the reason."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A topic that may carry the data of a sensor: the modality that it is of, if any, and the reason."""

    facts: TopicFacts
    verdict: Verdict


class TopicSelection:
    """The topics that a recording has for sensors. Reads a few messages of each topic that may be one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        facts = examine(source)
        verdicts = judge_images([own for own in facts if own.topic.type in IMAGE_TOPIC_TYPES])
        self.candidates = [Candidate(own, verdicts.get(own.name) or _verdict_by_type(own)) for own in facts]
        found = {
            m: [c for c in self.candidates if c.verdict.modality == m] for m in (VISION, DEPTH, THERMAL, AUDIO, IMU)
        }
        # Colours of distances are no camera beside the distances themselves.
        found[VISION] = [
            c for c in found[VISION] if c.verdict.use is not Use.FALSE_COLOUR or not found.get(c.verdict.seemed or "")
        ]
        self._by_modality: dict[str, list[Candidate]] = {}
        for modality, own in found.items():
            if own:
                best = min(candidate.verdict.use for candidate in own)
                self._by_modality[modality] = [candidate for candidate in own if candidate.verdict.use == best]
        self._spans: dict[str, tuple[int, int]] = {}

    def single_topics(self) -> dict[str, TopicChoice]:
        """Modality → the topic of its sensor, if it has one sensor alone. A modality without a topic is left out."""
        return {modality: self._select_topic(modality, found) for modality, found in self._by_modality.items()}

    def sensors(self, reserved_names: Collection[str] = ()) -> dict[str, dict[str, TopicChoice]]:
        """Modality → name of each of its sensors → its topic. A modality without a topic is left out.

        Topics of one device, such as raw and compressed images, are one sensor. The only sensor of a modality is named
        as the modality. Each of several is named by the parts of its topic that not all their topics have, in
        lower-case letters, digits and _. No name is in `reserved_names`.
        """
        result: dict[str, dict[str, TopicChoice]] = {}
        taken = Counter(reserved_names)
        for modality, found in self._by_modality.items():
            devices = _by_device(modality, found)
            if len(devices) == 1:
                result[modality] = {modality: self._select_topic(modality, found)}
                continue
            result[modality] = {}
            for device, name in _sensor_names(modality, devices).items():
                if name in taken and name not in result[modality] and modality not in name:
                    name = f"{name}_{modality}"  # of a device that has sensors of several modalities
                while name in taken:
                    name += "_2"
                taken[name] += 1
                result[modality][name] = self._select_topic(modality, devices[device], len(devices))
        return result

    def time_span(self, topic: str) -> tuple[int, int]:
        """Log times in ns of the first and the last message of a topic."""
        if topic not in self._spans:
            self._spans[topic] = self._source.time_span(topic)
        return self._spans[topic]

    def reason_against(self, candidate: Candidate, sensors: Mapping[str, Mapping[str, TopicChoice]]) -> str:
        """Why a topic is none of `sensors`, as `sensors` returned them."""
        modality, reason = candidate.verdict.modality, candidate.verdict.reason
        if modality is None:
            return reason
        if modality not in self._by_modality:
            return reason
        if candidate not in self._by_modality[modality]:
            better = next(iter(sensors[modality].values())).topic
            return f"{reason}; {better} is better for {modality}"
        device = _device_of(modality, candidate.facts.name)
        own = next((s.topic for s in sensors[modality].values() if _device_of(modality, s.topic) == device), "another")
        if modality == IMU and other_imu_half(own) == candidate.facts.name:
            return f"one half of an IMU, which is united with the other half, {own}"
        return "; ".join(part for part in (reason, f"{own} is of the same device") if part)

    def reason_without_topic(self, modality: str) -> str:
        """Why a modality has no topic, if a topic has a name that suggests it; else empty."""
        seeming = [c for c in self.candidates if c.verdict.seemed == modality]
        return "; ".join(f"{c.facts.name}: {c.verdict.reason}" for c in seeming)

    def _select_topic(self, modality: str, found: Sequence[Candidate], device_count: int = 1) -> TopicChoice:
        """The best topic of one device. `device_count`: the number of devices of this modality."""
        devices = _by_device(modality, found)
        if len(devices) == 1:
            best, why = self._best(modality, found, self._stopped([candidate.facts for candidate in found]))
        else:  # a sensor that is slower than another has not stopped
            best_of_each = [
                self._best(modality, own, self._stopped([c.facts for c in own]))[0] for own in devices.values()
            ]
            best, why = self._best(modality, best_of_each, {})
        content = f": {best.verdict.reason}" if best.verdict.reason else ""
        if device_count > 1:
            of_device = f"; of its {len(found)} topics because {why}" if why else ""
            return TopicChoice(
                best.facts.name,
                f"one of {device_count} sensors for {modality}{content}{of_device}; set {modality}.topic to use one "
                "alone",
            )
        if not why:
            return TopicChoice(best.facts.name, f"the only {best.facts.topic.type} for {modality}{content}")
        return TopicChoice(
            best.facts.name,
            f"selected of {len(found)} for {modality} because {why}{content}; set {modality}.topic to choose another",
        )

    def _best(self, modality: str, found: Sequence[Candidate], stopped: Mapping[str, str]) -> tuple[Candidate, str]:
        """The best of several topics, and the first property in which it differs from the second best; empty for one
        topic alone. `stopped`: as `_stopped` returns it."""
        if len(found) == 1:
            return found[0], ""

        def rank(candidate: Candidate) -> tuple[int, int, int, int, int, str]:
            facts = candidate.facts
            lower, order, is_grey = facts.name.lower(), 0, False
            if modality == VISION:
                is_grey = facts.pixels in (Pixels.GREY, Pixels.GREY16)
                parts = (number for number, part in enumerate(PREFERRED_CAMERA_NAMES) if part in lower)
                order = next(parts, len(PREFERRED_CAMERA_NAMES))
            elif modality == AUDIO:
                order = AUDIO_TYPES.index(facts.topic.type)
            elif modality == IMU:  # both halves, or else the angular velocity: its decoder finds the acceleration
                order = ("", "gyro", "accel").index(imu_half(facts.name))
            has_stopped, count = facts.name in stopped, facts.topic.message_count
            return int(has_stopped), int(is_grey), order, _compression(facts), -count, facts.name

        best, second = sorted(found, key=rank)[:2]
        differs = [ours != theirs for ours, theirs in zip(rank(best), rank(second), strict=True)].index(True)
        order = rank(best)[2]
        reasons: list[Callable[[], str]] = [
            lambda: stopped[second.facts.name],
            lambda: "it has colours",
            lambda: (
                f"its name contains '{PREFERRED_CAMERA_NAMES[order]}'"
                if modality == VISION
                else f"its type is {best.facts.topic.type}"
                if modality == AUDIO
                else "others carry the acceleration alone, or the angular velocity alone"
            ),
            lambda: "it is not compressed" if _compression(best.facts) == 0 else "it is no video",
            lambda: "it has the most messages",
            lambda: "its name is the first in alphabetical order",
        ]
        return best, reasons[differs]()

    def _stopped(self, found: Sequence[TopicFacts]) -> dict[str, str]:
        """Name of each topic that lacks much of what another has, in time or in messages → why the other is better."""
        most = max(found, key=lambda facts: facts.topic.message_count)
        few = [f for f in found if f.topic.message_count < MIN_TIME * most.topic.message_count]
        if not few:  # all have about as many messages, so none stopped
            return {}
        seconds = {facts.name: self._seconds(facts.name) for facts in (most, *few)}
        longest = max(seconds.values())
        result = {}
        for facts in few:
            own, count = seconds[facts.name], facts.topic.message_count
            if own < min(MIN_TIME * longest, longest - MIN_LACK):
                result[facts.name] = f"it covers {longest:.1f} s, and {facts.name} only {own:.1f} s"
            elif count < MIN_COUNT * most.topic.message_count:
                result[facts.name] = f"it has {most.topic.message_count} messages, and {facts.name} only {count}"
        return result

    def _seconds(self, topic: str) -> float:
        first, last = self.time_span(topic)
        return (last - first) / SECOND


def modality_of_topic(name: str, type_name: str) -> str:
    """The modality whose data a topic of this name and type may carry, before any message is known; empty if none."""
    if type_name in MESSAGE_TYPES[VISION]:
        return modality_of_name(name)
    return next((modality for modality in (AUDIO, IMU) if type_name in MESSAGE_TYPES[modality]), "")


def _compression(facts: TopicFacts) -> int:
    """0 for raw images and other data, 1 for compressed images, 2 for video."""
    if facts.pixels is Pixels.VIDEO:
        return 2
    return int(facts.topic.type == COMPRESSED_IMAGE_TYPE)


def _verdict_by_type(facts: TopicFacts) -> Verdict:
    return Verdict(AUDIO if facts.topic.type in MESSAGE_TYPES[AUDIO] else IMU, "")


def _by_device(modality: str, found: Sequence[Candidate]) -> dict[tuple[str, ...], list[Candidate]]:
    """Device → its topics."""
    devices: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for candidate in found:
        devices[_device_of(modality, candidate.facts.name)].append(candidate)
    return devices


def _device_of(modality: str, topic: str) -> tuple[str, ...]:
    """The parts of a topic's name that name its device. A depth image may be aligned to another camera of its device:
    then it is still the same sensor."""
    parts = topic.strip("/").split("/")
    while parts and DATA_NAME.fullmatch(parts[-1].lower()):
        parts.pop()
    if modality == DEPTH:
        parts = [part for part in parts if not DEPTH_DATA.fullmatch(part.lower())]
    return tuple(parts)


def _sensor_names(modality: str, devices: Mapping[tuple[str, ...], Sequence[Candidate]]) -> dict[tuple[str, ...], str]:
    """Device → a name: those of its parts that not all devices have; if it has none, the name of its first topic."""
    shared = set.intersection(*(set(device) for device in devices))
    names = {}
    for device in sorted(devices):
        parts = [part for part in device if part not in shared] or devices[device][0].facts.name.strip("/").split("/")
        name = re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")
        name = name if name[:1].isalpha() else f"{modality}_{name}"
        names[device] = name[:MAX_NAME].rstrip("_")
    return names
