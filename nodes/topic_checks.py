"""Finds out from the ROS graph why no messages of a sensor arrive, and logs each reason once, with what to set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import IMAGE_MODALITIES, IMU
from sensebind.fusion.io import messages
from sensebind.fusion.io.sensor_messages.sample_decoder import MESSAGE_TYPES, data_topic, select_message_type
from sensebind.fusion.io.sensor_options import COMPRESSED_TRANSPORT, RAW_TRANSPORT, SensorOptions

SILENT_CHECKS = 8  # checks after which the log names the sensors of which no message has arrived
MAX_PROPOSED = 4  # topics that it names for a modality
CONFIRMATIONS = 2  # checks in a row that find the same problem before it is logged: drivers start step by step


def topic_problem(options: SensorOptions, name: str, published: Callable[[str], Sequence[str]]) -> str:
    """A problem of the publishers of a sensor's topic, and what to set; empty if no problem is known.

    `name`: the resolved topic, with the suffix of its transport. `published(topic)`: the type of each publisher.
    """
    types = sorted(set(published(name)))
    if not types:
        return _other_transport(options, name, published)
    expected = options.message_type or select_message_type(options.modality, types)
    if expected not in types:
        return (
            f"topic '{name}' is published as {' and '.join(types)}, and this node subscribes to {expected}: "
            f"{_remedy(options, name, types, expected)}"
        )
    if others := [found for found in types if found != expected]:
        return (
            f"topic '{name}' has publishers of several types: {expected} is read, {' and '.join(others)} is not. "
            f"Set {options.sensor}.topic to another topic, or stop one of the publishers"
        )
    return ""


def _other_transport(options: SensorOptions, name: str, published: Callable[[str], Sequence[str]]) -> str:
    """The text for a topic without a publisher whose images are published with the other transport."""
    modality = options.modality
    if modality not in IMAGE_MODALITIES:
        return ""
    if options.transport != RAW_TRANSPORT:
        other, wanted, transport = name.rpartition("/")[0], messages.IMAGE_TYPE, RAW_TRANSPORT
    else:
        other = data_topic(replace(options, transport=COMPRESSED_TRANSPORT), name)
        wanted, transport = messages.COMPRESSED_IMAGE_TYPE, COMPRESSED_TRANSPORT
    if not other or wanted not in published(other):
        return ""
    return f"topic '{name}' has no publisher, and '{other}' has: set {options.sensor}.transport: {transport}"


def _remedy(options: SensorOptions, name: str, types: Sequence[str], expected: str) -> str:
    """The parameter that makes the node subscribe to one of the published types."""
    modality, sensor = options.modality, options.sensor
    if expected == messages.IMAGE_TYPE and messages.COMPRESSED_IMAGE_TYPE in types:
        resolved = data_topic(replace(options, transport=COMPRESSED_TRANSPORT), name)
        remap = "" if resolved == name else f", and remap {resolved} to {name}"
        return f"set {sensor}.transport: compressed{remap}"
    if expected == messages.COMPRESSED_IMAGE_TYPE and messages.IMAGE_TYPE in types:
        return f"set {sensor}.transport: raw, and {sensor}.topic: {name}"
    readable = [found for found in types if found in MESSAGE_TYPES.get(modality, types)]
    if readable and modality not in (*IMAGE_MODALITIES, IMU):
        return f"set {sensor}.type: {readable[0]}, or leave it empty"
    return f"set {sensor}.topic to a topic of type {expected}"


def missing_text(missing: Mapping[str, tuple[str, str]], topics: Mapping[str, Sequence[str]], used: set[str]) -> str:
    """What to set for sensors of which no message arrives.

    `missing`: sensor → (its modality, its resolved topic). `topics`: each topic with a publisher → its types. `used`:
    the topics of all sensors of the node.
    """
    from sensebind.fusion.io.topic_selection import modality_of_topic  # imports what reads recordings: seldom needed

    parts = []
    for sensor, (modality, topic) in missing.items():
        others = [
            f"'{name}'" + (f" (with {sensor}.transport: compressed)" if messages.COMPRESSED_IMAGE_TYPE in types else "")
            for name, types in sorted(topics.items())
            if name not in used and any(modality_of_topic(name, type_name) == modality for type_name in types)
        ][:MAX_PROPOSED]
        hint = f", but {' and '.join(others)} could be: set {sensor}.topic" if others else ""
        parts.append(f"{sensor}: '{topic}' is not published{hint}" if topic not in topics else f"{sensor}: '{topic}'")
    return (
        f"no message has arrived yet of {'; '.join(parts)}. If the robot has no such sensor, remove its modality from "
        "the parameter 'modalities'"
    )


def check_topic_names(node: Node, options: Iterable[SensorOptions]) -> None:
    """Raises `ConfigError` for a parameter that names a topic which ROS does not accept."""
    for own in options:
        for parameter in ("topic", "camera_info_topic", "info_topic", "acceleration_topic"):
            topic = own.topic_name if parameter == "topic" else getattr(own, parameter)
            try:
                if topic:
                    validate_full_topic_name(node.resolve_topic_name(topic))
            except (RuntimeError, InvalidTopicNameException) as error:  # rclpy's RCLError is a RuntimeError
                reason = str(error).strip().splitlines()[0].split(", at ")[0]
                raise ConfigError(
                    f"parameter '{own.sensor}.{parameter}': '{topic}' cannot be the name of a topic ({reason})"
                ) from error


class TopicChecks:
    """Checks the topics of a node's sensors. Use it in one thread, about once a second."""

    def __init__(self, node: Node, sensors: Iterable[SensorOptions]) -> None:
        self._node = node
        self._sensors = {options.sensor: options for options in sensors}
        self._found: dict[str, tuple[str, int]] = {}  # sensor → problem, and the number of checks that found it
        self._logged: set[str] = set()
        self._all_arrived = False
        self._checks = 0

    @property
    def problems(self) -> Mapping[str, str]:
        """Sensor → its problem, for those that have one."""
        return {name: text for name, (text, checks) in self._found.items() if text and checks >= CONFIRMATIONS}

    def check(self, arrived: Mapping[str, int]) -> None:
        """Look for problems, and log new ones. `arrived`: sensor → number of messages so far."""
        for sensor, options in self._sensors.items():
            text = topic_problem(options, self._topic(options), self._published)
            before, checks = self._found.get(sensor, ("", 0))
            self._found[sensor] = text, checks + 1 if text == before else 1
        for sensor, text in self.problems.items():
            if text not in self._logged:
                self._logged.add(text)
                self._node.get_logger().warning(f"{sensor}: {text}")
        if not self._all_arrived and all(arrived.get(sensor) for sensor in self._sensors):
            self._all_arrived = True
            self._node.get_logger().info(f"all sensors arrive: {', '.join(self._sensors)}")
        self._checks += 1
        if self._checks == SILENT_CHECKS:
            self._log_missing([s for s in self._sensors if not arrived.get(s) and s not in self.problems])

    def _log_missing(self, sensors: Sequence[str]) -> None:
        if not sensors:
            return
        used = {self._topic(options) for options in self._sensors.values()}
        own = f"{self._node.get_namespace().rstrip('/')}/"  # not those of other robots
        published = {
            name: types
            for name, types in self._node.get_topic_names_and_types()
            if name.startswith(own) and self._node.count_publishers(name)
        }
        missing = {s: (self._sensors[s].modality, self._topic(self._sensors[s])) for s in sensors}
        self._node.get_logger().warning(missing_text(missing, published, used))

    def _topic(self, options: SensorOptions) -> str:
        name = self._node.resolve_topic_name(options.topic_name)
        return self._node.resolve_topic_name(data_topic(options, name))

    def _published(self, topic: str) -> list[str]:
        return [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
