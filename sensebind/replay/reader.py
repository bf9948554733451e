"""Reads the samples of a recording: which topic is which sensor, its messages as samples, and its calibrations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from sensebind.fusion.config.parameters import sensor_options, sensors_of
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, Calibration, Sample, to_ns
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io.messages import IMU_TYPE, stamp_to_ns
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.sensor_messages.audio import AUDIO_INFO_TYPE, AUDIO_INFO_WAIT
from sensebind.fusion.io.sensor_messages.sample_decoder import MESSAGE_FIELD_ERRORS, SampleDecoder, data_topic
from sensebind.fusion.io.sensor_options import RECEIVED_STAMPS, SensorOptions
from sensebind.fusion.io.topic_names import bare_name, imu_half, other_imu_half, other_imu_halves
from sensebind.fusion.io.topic_selection import TopicSelection

MAX_LATENCY = 10 * SECOND  # ns from the stamp of a message to its log time; if it is longer, the clocks differ
CLOCK_SEARCH = 2 * SECOND  # ns of log time in which the first stamps of the sensors are looked for
CLOCK_NOT_SET = (
    "its stamp is of the time before the robot's clock was set, so it is not used: let the clock be set (NTP, PTP, a "
    "battery-backed clock) before recording"
)


class SampleReader:
    """The samples of a recording, and the calibrations of its sensors.

    `values` are the embedder's parameters. Topics that they name are used; `topic_selection` finds the others.
    `found_reasons`: sensor → why it has the topic in `values`, for sensors that the user did not name. `modalities`:
    those whose sensors are read. Raises `ConfigError` for a topic that the recording lacks.

    `topics`: sensor → topic. `topic_reasons`: sensor → why this topic. `missing_reasons`: sensor without a topic → why;
    empty if there is no reason to give.
    `message_counts` and `undecodable_counts`: sensor → messages that `samples` has read from its topic, and those of
    them that are no samples.
    """

    def __init__(
        self,
        recording: Recording,
        values: Mapping[str, Any],
        modalities: tuple[str, ...],
        topic_selection: TopicSelection | None = None,
        found_reasons: Mapping[str, str] = {},
    ) -> None:
        self._recording = recording
        self._topic_types = {topic.name: topic.type for topic in recording.topics}
        self._options: dict[str, SensorOptions] = {}
        self._decoders: dict[str, SampleDecoder] = {}
        self._side_topics: set[str] = set()
        self.topics: dict[str, str] = {}
        self.topic_reasons: dict[str, str] = {}
        self.missing_reasons: dict[str, str] = {}
        self.message_counts: Counter[str] = Counter()
        self.undecodable_counts: Counter[str] = Counter()
        # Sensor → stamp and log time (ns) of its first message; None: not read yet.
        self._first_stamps: dict[str, tuple[int, int]] | None = None
        self._topics_before_clock: set[str] = set()  # with messages from before the robot's clock was set
        all_options = {s: sensor_options(values, m, s) for s, m in sensors_of(values, modalities).items()}
        if topic_selection is None and not all(options.has_explicit_topic for options in all_options.values()):
            topic_selection = TopicSelection(recording)
        found = topic_selection.single_topics() if topic_selection else {}
        for sensor, options in all_options.items():
            if options.has_explicit_topic:
                wanted, reason = options.topic_name, found_reasons.get(sensor, "named by parameter")
            elif options.modality in found:
                wanted, reason = found[options.modality].topic, found[options.modality].reason
            else:
                if topic_selection:
                    self.missing_reasons[sensor] = topic_selection.reason_without_topic(options.modality)
                continue
            name = self._topic_named(data_topic(options, wanted)) or self._topic_named(wanted)
            if name is None:
                raise ConfigError(
                    f"sensor '{sensor}' is read from topic '{wanted}', but the recording has only: "
                    f"{', '.join(self._topic_types)}; set '{sensor}.topic' to one of them"
                )
            options, name = self._with_other_half(options, name)
            if bare_name(name) != bare_name(wanted) and options.modality != IMU:
                reason = f"compressed form of {wanted}, by {sensor}.transport"
            reason += self._how_it_is_read(options, name)
            self._options[sensor], self.topics[sensor], self.topic_reasons[sensor] = options, name, reason

    def _with_other_half(self, options: SensorOptions, topic: str) -> tuple[SensorOptions, str]:
        """The options and the topic of a sensor; of an IMU on two topics with the acceleration that the recording has,
        if its name has another word than that of the angular velocity, such as gyro and acc."""
        if options.modality != IMU or options.acceleration_topic or self._topic_named(other_imu_half(topic)):
            return options, topic
        halves = (self._topic_named(name) for name in other_imu_halves(topic))
        other = next((name for name in halves if name and self._topic_types[name] == IMU_TYPE), None)
        if other is None:
            return options, topic
        rotation, acceleration = (topic, other) if imu_half(topic) == "gyro" else (other, topic)
        return replace(options, acceleration_topic=acceleration), rotation

    def _how_it_is_read(self, options: SensorOptions, topic: str) -> str:
        """What a sensor uses besides its topic, for its reason: a second topic, other stamps."""
        text = ""
        other = (options.acceleration_topic or other_imu_half(topic)) if options.modality == IMU else ""
        if other and (found := self._topic_named(other)) is not None:
            if (kind := self._topic_types[found]) == IMU_TYPE:
                text += f"; united with {found}"
            else:
                text += f"; not united with {found}, because its type is {kind}: republish it as {IMU_TYPE}"
        elif options.acceleration_topic:
            raise ConfigError(
                f"'{options.sensor}.acceleration_topic' is '{other}', but the recording has only: "
                f"{', '.join(self._topic_types)}"
            )
        if options.stamps == RECEIVED_STAMPS:
            text += "; stamps: the times at which its messages were received"
        if options.time_offset:
            text += f"; {options.time_offset:+g} s added to its stamps"
        return text

    @property
    def read_topics(self) -> set[str]:
        """The topics that `samples` has read: those of the sensors, and those that describe them."""
        return {*self.topics.values(), *self._side_topics}

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """Sensor → calibration, from the parameters and from the messages that `samples` has read so far."""
        return {sensor: self.calibration(sensor) for sensor in self._options}

    def accounted_messages(self, sensor: str) -> dict[str, int]:
        """What became of the messages that `samples` has read: `SampleDecoder.message_counts`."""
        if sensor in self._decoders:
            return self._decoders[sensor].message_counts()
        return {"arrived": self.message_counts[sensor], "decoded": 0, "undecodable": self.undecodable_counts[sensor]}

    def calibration(self, sensor: str) -> Calibration:
        """The calibration of one sensor. Raises `KeyError` if the recording lacks it."""
        return (self._decoders.get(sensor) or self._options[sensor]).calibration

    @property
    def parameter_calibrations(self) -> dict[str, Calibration]:
        """Sensor → calibration from the parameters alone, as before the first message."""
        return {sensor: options.calibration for sensor, options in self._options.items()}

    def samples(
        self,
        on_progress: Callable[[int], None] = lambda stamp: None,
        on_calibration: Callable[[str, Calibration], None] = lambda sensor, calibration: None,
    ) -> Iterator[Sample | Failure]:
        """Every message as a sample, in the order recorded; a `Failure` for a message that cannot be read.

        `on_progress` is called with each message's log time (ns), `on_calibration` with each change of `calibrations`.
        Raises `RecordingError` if the recording is damaged.
        """
        self._decoders = {}
        self.message_counts.clear()
        self.undecodable_counts.clear()
        sensors: dict[str, list[SampleDecoder]] = defaultdict(list)  # topic → decoders of its messages
        info_decoders: dict[str, list[SampleDecoder]] = defaultdict(list)  # topic → decoders that need it
        for sensor, topic in self.topics.items():
            try:
                decoder = SampleDecoder(self._options[sensor], self._topic_types[topic], topic)
            except EncodingError as error:  # none of its messages is read
                found = next(own for own in self._recording.topics if own.name == topic)
                self.message_counts[sensor] = self.undecodable_counts[sensor] = found.message_count
                yield Failure(self._options[sensor].modality, "encoding", str(error), sensor)
                continue
            self._decoders[sensor] = decoder
            sensors[topic].append(decoder)
            for name in self._side_topics_of(decoder, self._options[sensor], topic):
                info_decoders[name].append(decoder)
        self._side_topics = set(info_decoders)
        yield from self._look_ahead(info_decoders)
        for topic, type_name, received, message in self._recording.messages([*sensors, *info_decoders]):
            on_progress(received)
            for decoder in info_decoders.get(topic, ()):
                try:
                    if decoder.apply_side_message(message, received):
                        on_calibration(decoder.sensor, decoder.calibration)
                except EncodingError as error:
                    yield Failure(decoder.modality, "encoding", str(error), decoder.sensor)
            for decoder in sensors.get(topic, ()):
                self.message_counts[decoder.sensor] += 1
                try:
                    if type_name != decoder.type_name:
                        decoder.count_undecodable()
                        raise EncodingError(
                            f"a message has type '{type_name}', but its topic has '{decoder.type_name}'"
                        )
                    for sample in decoder.decode(message, received):
                        if topic in self._topics_before_clock and received - sample.stamp > MAX_LATENCY:
                            self.undecodable_counts[decoder.sensor] += 1
                            decoder.count_undecodable(samples=1)
                            yield Failure(decoder.modality, "encoding", CLOCK_NOT_SET, decoder.sensor)
                        else:
                            yield sample
                except EncodingError as error:
                    self.undecodable_counts[decoder.sensor] += 1
                    yield Failure(decoder.modality, "encoding", str(error), decoder.sensor)
        for decoder in self._decoders.values():
            yield from decoder.finish()
            for text, count in decoder.unused.items():
                self.undecodable_counts[decoder.sensor] += count
                yield from repeat(Failure(decoder.modality, "encoding", text, decoder.sensor), count)

    def _side_topics_of(self, decoder: SampleDecoder, options: SensorOptions, topic: str) -> list[str]:
        """The topics of the recording that describe a sensor on `topic`. A microphone without AudioInfo beside it gets
        the only AudioInfo of the recording."""
        sides = decoder.side_topics(topic)
        names = [
            name for side in sides if (name := self._topic_named(side.name)) and self._topic_types[name] == side.type
        ]
        infos = [name for name, type_name in self._topic_types.items() if type_name == AUDIO_INFO_TYPE]
        if sides and not names and options.modality == AUDIO and not options.info_topic and len(infos) == 1:
            return infos
        return names

    def _look_ahead(self, info_decoders: Mapping[str, Sequence[SampleDecoder]]) -> Iterator[Failure]:
        """Read what must be known before the first message: the clocks, and an AudioInfo that is not read in time. It
        was recorded before the selected part of the recording, or long after the first sound that it describes."""
        self._read_clocks()
        infos = [topic for topic in info_decoders if self._topic_types[topic] == AUDIO_INFO_TYPE]
        found = [(*first, topic) for topic in infos if (first := self._recording.earliest_message(topic))]
        for stamp, message, topic in sorted(found, key=lambda one: one[0]):
            is_read = self._first_time(topic) == stamp
            for decoder in info_decoders[topic]:
                if is_read and stamp - self._first_time(self.topics[decoder.sensor]) < AUDIO_INFO_WAIT:
                    continue  # the sound waits for it, as on a robot
                try:
                    decoder.apply_side_message(message)
                except EncodingError as error:
                    yield Failure(decoder.modality, "encoding", str(error), decoder.sensor)

    def _first_time(self, topic: str) -> int:
        """Log time in ns of the first message of a topic that is read; 0 if none is."""
        return next((received for _, _, received, _ in self._recording.peek([topic])), 0)

    def first_stamps(self) -> dict[str, tuple[int, int]]:
        """Sensor → stamp and log time (ns) of its first message, for those with a stamp in the first seconds."""
        return self._read_clocks()

    def _read_clocks(self) -> dict[str, tuple[int, int]]:
        """Find the first stamp of each sensor, and the topics whose stamps are far behind the log times at first and
        agree with them later, because the robot's clock was set during the recording.

        Reads the messages of `CLOCK_SEARCH`, or all if the stamps are far behind. The second call reads nothing: the
        recording does not change. Returns `first_stamps`.
        """
        if self._first_stamps is not None:
            return self._first_stamps
        found: dict[str, tuple[int, int]] = {}
        sensors: dict[str, list[str]] = defaultdict(list)  # topic → sensors that use its stamps
        for sensor, topic in self.topics.items():
            if self._options[sensor].stamps != RECEIVED_STAMPS:
                sensors[topic].append(sensor)
        behind, missing, start = set[str](), set(sensors), None
        for topic, _, received, message in self._recording.peek(list(sensors)):
            start = received if start is None else start
            header = getattr(message, "header", None)
            try:
                stamp = 0 if header is None else stamp_to_ns(header.stamp)
            except MESSAGE_FIELD_ERRORS:  # the message is refused when it is decoded
                stamp = 0
            if stamp and topic in missing:
                missing.remove(topic)
                for sensor in sensors[topic]:
                    found[sensor] = stamp + to_ns(self._options[sensor].time_offset), received
            if stamp and received - stamp > MAX_LATENCY:
                behind.add(topic)
            elif stamp and topic in behind:
                self._topics_before_clock.add(topic)
            if not behind and (not missing or received - start > CLOCK_SEARCH):
                break
        self._first_stamps = found
        return found

    @property
    def warnings(self) -> dict[str, list[str]]:
        """Sensor → what is wrong with its messages so far, for those with a warning."""
        return {sensor: list(own.warnings) for sensor, own in self._decoders.items() if own.warnings}

    def _topic_named(self, topic: str) -> str | None:
        """The topic's name in the recording, compared without slashes at the ends; None if there is none."""
        return next((name for name in self._topic_types if bare_name(name) == bare_name(topic)), None)
