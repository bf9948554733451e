"""Selects the topics of the sensors in a recording, by their types and then by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, THERMAL, VISION
from sensebind.fusion.io.messages import VIDEO_TYPES
from sensebind.fusion.io.recordings import Recording, Topic

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
AUDIO_TYPES = (
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioStamped",
    "foxglove_msgs/msg/RawAudio",
    "audio_common_msgs/msg/AudioData",
)
IMU_TYPES = ("sensor_msgs/msg/Imu",)
TOPIC_NAME_PATTERNS = {  # modality → pattern in the lower-case names of its image topics
    DEPTH: re.compile("depth|disparity"),
    THERMAL: re.compile("thermal|lwir|infra|flir|(?<![a-z])ir(?![a-z])"),
}
# Parts of topic names. If there are several cameras, the one with the earliest part in this list is selected.
PREFERRED_CAMERA_NAMES = ("color", "colour", "rgb", "left", "cam0", "front", "image")
# Last parts of topic names that name the data and not the device: topics that differ in these alone are of one device.
DATA_NAME = re.compile(
    r"(image|img|color|colour|mono|rgb|raw|rect|rectified|data|imu|audio|stamped|filtered|compressed|compresseddepth"
    r"|theora|ffmpeg|foxglove|accel|gyro|sample|_)+"
)
# Parts of a depth topic's name that say what its images are, and not of which device.
DEPTH_DATA = re.compile(
    r"(aligned_)?depth_to_[a-z0-9]+|(depth|disparity|hw|sw|registered|image|rect|raw|unrectified|_)+"
)
MAX_NAME = 50  # characters of a sensor's name, before a suffix that makes it unique
# Words in the names of image topics that other programs made from a camera's images. They are no further cameras.
DERIVED_IMAGE = re.compile(
    r"(?<![a-z])(debug|annotated|annotations?|overlay|detections?|viz|visuali[sz]ation|masks?|segmentation|results?"
    r"|markers?|features?|tracks?|tracked|preview|thumbnail|resized|map|trajectory)(?![a-z])"
)


@dataclass(frozen=True, slots=True)
class TopicChoice:
    """A topic that was selected for a sensor, and the reason."""

    topic: str
    reason: str


def select_sensor_topics(recording: Recording) -> dict[str, TopicChoice]:
    """Modality → the topic that is selected if the modality has one sensor. A modality without a topic is left out."""
    return {modality: _select_topic(modality, found) for modality, found in _topics_by_modality(recording).items()}


def select_sensors(recording: Recording, reserved_names: Collection[str] = ()) -> dict[str, dict[str, TopicChoice]]:
    """Modality → name of each of its sensors → its topic. A modality without a topic is left out.

    Topics of one device, such as raw and compressed images, are one sensor. The only sensor of a modality is named as
    the modality. Each of several is named by the parts of its topic that not all their topics have, in lower-case
    letters, digits and _. No name is in `reserved_names`.
    """
    result: dict[str, dict[str, TopicChoice]] = {}
    taken = Counter(reserved_names)
    for modality, found in _topics_by_modality(recording).items():
        devices: dict[tuple[str, ...], list[Topic]] = defaultdict(list)
        for topic in found:
            devices[_device_of(modality, topic.name)].append(topic)
        devices = {key: own for key, own in devices.items() if not all(map(_is_derived, own))} or devices
        if len(devices) == 1:
            (only,) = devices.values()
            result[modality] = {modality: _select_topic(modality, only)}
            continue
        result[modality] = {}
        for device, name in _sensor_names(modality, devices).items():
            if name in taken and name not in result[modality] and modality not in name:
                name = f"{name}_{modality}"  # of a device that has sensors of several modalities
            while name in taken:
                name += "_2"
            taken[name] += 1
            choice = _select_topic(modality, devices[device])
            reason = f"one of {len(devices)} sensors for {modality}; set {modality}.topic to use one alone"
            result[modality][name] = TopicChoice(choice.topic, reason)
    return result


def _topics_by_modality(recording: Recording) -> dict[str, list[Topic]]:
    """Modality → the topics that may carry its data."""
    topics = recording.topics
    kinds: dict[str, list[Topic]] = {VISION: [], DEPTH: [], THERMAL: []}
    for topic in topics:
        if topic.type in IMAGE_TYPES or topic.type in VIDEO_TYPES:
            lower = topic.name.lower()
            kinds[next((m for m, name in TOPIC_NAME_PATTERNS.items() if name.search(lower)), VISION)].append(topic)
    kinds[AUDIO] = [t for t in topics if t.type in AUDIO_TYPES]
    kinds[IMU] = [t for t in topics if t.type in IMU_TYPES]
    return {modality: found for modality, found in kinds.items() if found}


def _device_of(modality: str, topic: str) -> tuple[str, ...]:
    """The parts of a topic's name that name its device. A depth image may be aligned to another camera of its device:
    then it is still the same sensor."""
    parts = topic.strip("/").split("/")
    while parts and DATA_NAME.fullmatch(parts[-1].lower()):
        parts.pop()
    if modality == DEPTH:
        parts = [part for part in parts if not DEPTH_DATA.fullmatch(part.lower())]
    return tuple(parts)


def _is_derived(topic: Topic) -> bool:
    """Whether the name of an image topic says that another program made the images."""
    return DERIVED_IMAGE.search(topic.name.lower()) is not None


def _sensor_names(modality: str, devices: Mapping[tuple[str, ...], Sequence[Topic]]) -> dict[tuple[str, ...], str]:
    """Device → a name: those of its parts that not all devices have; if it has none, the name of its first topic."""
    shared = set.intersection(*(set(device) for device in devices))
    names = {}
    for device in sorted(devices):
        parts = [part for part in device if part not in shared] or devices[device][0].name.strip("/").split("/")
        name = re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")
        name = name if name[:1].isalpha() else f"{modality}_{name}"
        names[device] = name[:MAX_NAME].rstrip("_")
    return names


def _select_topic(modality: str, topics: Sequence[Topic]) -> TopicChoice:
    if len(topics) == 1:
        return TopicChoice(topics[0].name, f"the only {topics[0].type} for {modality}")

    def rank(topic: Topic) -> tuple[int, int, int, str]:
        lower = topic.name.lower()
        if modality == VISION:
            order = next(
                (i for i, part in enumerate(PREFERRED_CAMERA_NAMES) if part in lower), len(PREFERRED_CAMERA_NAMES)
            )
        else:
            order = AUDIO_TYPES.index(topic.type) if modality == AUDIO else 0  # types with a stamp first
        return (
            order,
            int(topic.type == IMAGE_TYPES[1]) + 2 * int(topic.type in VIDEO_TYPES),
            -topic.message_count,
            topic.name,
        )

    best = min(topics, key=rank)
    # The reason is the first property in which the best topic differs from the second best.
    ours, theirs = rank(best), min(rank(t) for t in topics if t is not best)
    if ours[0] != theirs[0]:
        why = (
            f"its name contains '{PREFERRED_CAMERA_NAMES[ours[0]]}'"
            if modality == VISION
            else f"its type is {best.type}"
        )
    elif ours[1] != theirs[1]:
        why = "it is not compressed"
    elif ours[2] != theirs[2]:
        why = "it has the most messages"
    else:
        why = "its name is the first in alphabetical order"
    return TopicChoice(
        best.name, f"selected of {len(topics)} for {modality} because {why}; set {modality}.topic to choose another"
    )
