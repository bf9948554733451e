"""Subscriptions to the sensor topics, as samples: topics, message types, what the sensors say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription

from sensebind.fusion.config.parameters import TOPICS, calibration
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMAGE_MODALITIES,
    IMU,
    SENSOR_MODALITIES,
    VISION,
    Calibration,
    Sample,
)
from sensebind.fusion.io import audio_messages, messages, numeric_messages
from sensebind.nodes.support.distributions import TELLS_NUMBERS, SubscriptionEventCallbacks, UnsupportedEventTypeError
from sensebind.nodes.support.qos import LATCHED, SENSORS, sensor
from sensebind.nodes.support.types import message_type

# Messages that the middleware holds while this process is busy: about a second of a sensor. ROS's usual depth of 5
# loses images after 0.17 s without the processor, and IMU readings after 25 ms, which a loaded machine often has.
DEPTH_OF_IMAGES, DEPTH_OF_SERIES = 30, 500
UNKNOWN = 2**63  # sequence numbers from here on are none: this middleware does not tell them


class Sequence:
    """Counts what one publisher sent and never came, from the numbers that it gives its messages.

    The middleware's own event tells only what the transport lost, not what gave way to newer messages.
    """

    def __init__(self, publishers: Callable[[], int]) -> None:
        self._publishers, self._last = publishers, 0

    def missing(self, number: int) -> tuple[int, int]:
        """How many messages never came before this `number`: those before the first of all, and those since.

        Where a topic has several publishers their numbers mix, and nothing can be told.
        """
        before, self._last = self._last, number
        gap = number - before - 1
        if gap <= 0 or self._publishers() != 1:
            return 0, 0
        return (0, gap) if before else (gap, 0)


class Sensors:
    """The subscriptions of one node to its sensors.

    `on_sample` gets every sample, `on_calibration` what CameraInfo tells, `on_trouble(modality, message)`
    what is wrong with a topic. `lost` counts messages that were published and did not arrive since the first that
    did, by modality, where the middleware tells; `earlier` those before it; `arrived` those that did.
    """

    def __init__(
        self,
        node: Node,
        values: Mapping[str, Any],
        modalities: tuple[str, ...],
        on_sample: Callable[[Sample], None],
        on_calibration: Callable[[str, Calibration], None],
        on_trouble: Callable[[str, str], None],
    ) -> None:
        self._node, self._values = node, values
        self._on_sample, self._on_calibration, self._on_trouble = on_sample, on_calibration, on_trouble
        self._calibrations = {m: calibration(values, m) for m in modalities}
        self._subscriptions: list[Subscription[Any]] = []
        self.lost: Counter[str] = Counter()
        self.earlier: Counter[str] = Counter()
        self.arrived: Counter[str] = Counter()
        self.topics: dict[str, str] = {}
        self._microphone: audio_messages.Microphone | None = None
        for modality in modalities:
            self._on_calibration(modality, self._calibrations[modality])
            if modality == AUDIO:
                self._listen()
            elif modality in IMAGE_MODALITIES:
                self._watch(modality)
            elif modality == IMU:
                self._subscribe(modality, messages.IMU, self._topic(modality), self._sampler(modality, messages.IMU))
        self.look_for_types()

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def look_for_types(self) -> None:
        """Subscribe to topics whose message type was not known yet: call now and then, for publishers come late."""
        self._look_for_microphone()
        for modality in self._calibrations:
            if modality not in SENSOR_MODALITIES and modality not in self.topics:
                self._look_for_numbers(modality)

    def _look_for_numbers(self, modality: str) -> None:
        type_name, topic = str(self._values[f"{modality}.type"]), self._topic(modality)
        if not type_name:
            found = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
            if not found:
                return
            type_name = found[0].topic_type
        try:
            fields, fill = self._values[f"{modality}.fields"], self._values[f"{modality}.fill"]
            read = numeric_messages.reader(modality, fields, fill)
            message_type(type_name)
        except (ValueError, ModuleNotFoundError) as error:
            self.topics[modality] = topic  # looked at, and not to be tried again
            self._on_trouble(modality, f"topic '{topic}': {error}")
            return

        def take(message: Any) -> None:
            self.arrived[modality] += 1
            try:
                sample = read(message, self._node.get_clock().now().nanoseconds)
            except EncodingError as error:
                self._on_trouble(modality, f"topic '{self.topics[modality]}': {error}")
            else:
                self._on_sample(sample)

        self._subscribe(modality, type_name, topic, take)

    def _look_for_microphone(self) -> None:
        if AUDIO not in self._calibrations or AUDIO in self.topics:
            return
        topic = self._node.resolve_topic_name(self._topic(AUDIO))
        found = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
        if found:
            self._hear(next((t for t in found if t in audio_messages.ADAPTERS), found[0]))

    def _topic(self, modality: str) -> str:
        return str(self._values[f"{modality}.topic"] or TOPICS.get(modality, modality))

    def _subscribe(self, modality: str, type_name: str, topic: str, callback: Callable[[Any], None]) -> None:
        name = self._node.resolve_topic_name(topic)
        sequence = Sequence(lambda: self._node.count_publishers(name))
        numbered = False

        def take(message: Any, info: Any) -> None:
            nonlocal numbered
            number = info.get("publication_sequence_number")
            if number is not None and 0 < number < UNKNOWN:
                numbered = True
                earlier, since = sequence.missing(number)
                self.earlier[modality] += earlier
                self.lost[modality] += since
            callback(message)

        def lost(info: Any) -> None:
            self.lost[modality] += 0 if numbered else info.total_count_change

        qos = sensor(DEPTH_OF_IMAGES if modality in IMAGE_MODALITIES else DEPTH_OF_SERIES)
        arguments = (message_type(type_name), topic, take if TELLS_NUMBERS else callback, qos)
        try:
            subscription = self._node.create_subscription(
                *arguments, event_callbacks=SubscriptionEventCallbacks(message_lost=lost)
            )
        except UnsupportedEventTypeError:  # not every middleware counts what it loses
            subscription = self._node.create_subscription(*arguments)
        self._subscriptions.append(subscription)
        self.topics[modality] = subscription.topic_name

    def _sampler(self, modality: str, type_name: str) -> Callable[[Any], None]:
        convert = messages.SAMPLES[type_name]

        def take(message: Any) -> None:
            self.arrived[modality] += 1
            self._on_sample(convert(modality, message))

        return take

    def _watch(self, modality: str) -> None:
        topic, type_name = self._topic(modality), messages.IMAGE
        if self._values[f"{modality}.transport"] == "compressed":
            type_name = messages.COMPRESSED_IMAGE
            suffix = "compressedDepth" if modality == DEPTH else "compressed"
            # image_transport's convention; a topic that has its suffix already is taken as it is.
            if not topic.rstrip("/").rsplit("/", 1)[-1].startswith("compressed"):
                topic = f"{self._node.resolve_topic_name(topic)}/{suffix}"
        self._subscribe(modality, type_name, topic, self._sampler(modality, type_name))
        if modality in (VISION, DEPTH):
            info = self._values[f"{modality}.camera_info"] or messages.beside(self._topic(modality), "camera_info")
            self._describe(messages.CAMERA_INFO, info, SENSORS, lambda message: self._calibrate(modality, message))

    def _calibrate(self, modality: str, message: Any) -> None:
        told = messages.with_camera_info(self._calibrations[modality], message)
        if told != self._calibrations[modality]:
            self._calibrations[modality] = told
            self._on_calibration(modality, told)

    def _describe(self, type_name: str, topic: str, qos: Any, callback: Callable[[Any], None]) -> None:
        # That a QoS does not match is no news here: several are tried. And what is not watched costs nothing.
        unwatched = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._subscriptions.append(
            self._node.create_subscription(message_type(type_name), topic, callback, qos, event_callbacks=unwatched)
        )

    def _listen(self) -> None:
        if self._values["audio.type"]:
            self._hear(str(self._values["audio.type"]))
        else:
            self._look_for_microphone()

    def _hear(self, type_name: str) -> None:
        topic, values = self._topic(AUDIO), self._values
        given = audio_messages.Format(
            values["audio.sample_format"], float(values["audio.sample_rate"]), values["audio.channels"]
        )
        try:
            self._microphone = audio_messages.Microphone(type_name, given)
            message_type(type_name)
        except (EncodingError, ModuleNotFoundError) as error:
            self.topics[AUDIO] = topic  # looked at, and not to be tried again
            self._on_trouble(AUDIO, f"topic '{topic}': {error}")
            return
        self._subscribe(AUDIO, type_name, topic, self._take_sound)
        if not given.known and type_name.startswith("audio_common_msgs/msg/AudioData"):
            named = values["audio.info_topic"]
            for info in [named] if named else [messages.beside(topic, "info"), f"{topic}_info", f"{topic}/info"]:
                # Some publish it once and latched, some again and again: either reaches a volatile best-effort
                # subscription only while it lasts, so ask for both.
                for qos in (LATCHED, SENSORS):
                    self._describe(audio_messages.INFO, info, qos, self._take_info)

    def _take_info(self, message: Any) -> None:
        assert self._microphone is not None
        try:
            self._microphone.format = audio_messages.with_info(self._microphone.format, message)
        except EncodingError as error:
            self._on_trouble(AUDIO, f"topic '{self.topics[AUDIO]}': {error}")

    def _take_sound(self, message: Any) -> None:
        assert self._microphone is not None
        self.arrived[AUDIO] += 1
        try:
            sample = self._microphone.sample(message, self._node.get_clock().now().nanoseconds)
        except EncodingError as error:
            self._on_trouble(AUDIO, f"topic '{self.topics[AUDIO]}': {error}")
        else:
            self._on_sample(sample)
