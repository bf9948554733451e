"""The offline driver: reads the samples of a recording and drives a pipeline with them, as fast as possible."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sensebind.fusion.config.parameters import sensor_options, sensors_of
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import Calibration, Sample
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.sample_decoder import SampleDecoder, data_topic
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.io.topic_selection import select_sensor_topics, select_sensors
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Output, Pipeline


class SampleReader:
    """The samples of a recording, and the calibrations of its sensors.

    `values` are the embedder's parameters. Topics that they name are used; others are found by type and name. `topics`:
    sensor → topic. `topic_reasons`: sensor → why this topic. `modalities`: those whose sensors are read.
    `message_counts` and `undecodable_counts`: sensor → messages that `samples` has read from its topic, and those of
    them that are no samples. Raises `ConfigError` for a topic that the recording lacks.
    """

    def __init__(self, recording: Recording, values: Mapping[str, Any], modalities: tuple[str, ...]) -> None:
        self._recording = recording
        self._topic_types = {topic.name: topic.type for topic in recording.topics}
        self._options: dict[str, SensorOptions] = {}
        self._decoders: dict[str, SampleDecoder] = {}
        self._side_topics: set[str] = set()
        self.topics: dict[str, str] = {}
        self.topic_reasons: dict[str, str] = {}
        self.message_counts: Counter[str] = Counter()
        self.undecodable_counts: Counter[str] = Counter()
        found = select_sensor_topics(recording)
        several = {own.topic: own.reason for sensors in select_sensors(recording).values() for own in sensors.values()}
        for sensor, modality in sensors_of(values, modalities).items():
            options = sensor_options(values, modality, sensor)
            if options.has_explicit_topic:
                wanted, reason = options.topic_name, "named by parameter"
                if sensor != modality:
                    reason = several.get(wanted, reason)
            elif modality in found:
                wanted, reason = found[modality].topic, found[modality].reason
            else:
                continue
            name = self._topic_named(data_topic(options, wanted)) or self._topic_named(wanted)
            if name is None:
                raise ConfigError(
                    f"sensor '{sensor}' is read from topic '{wanted}', but the recording has only: "
                    f"{', '.join(self._topic_types)}; set '{sensor}.topic' to one of them"
                )
            if name.strip("/") != wanted.strip("/"):
                reason = f"compressed form of {wanted}, by {sensor}.transport"
            self._options[sensor], self.topics[sensor], self.topic_reasons[sensor] = options, name, reason

    @property
    def read_topics(self) -> set[str]:
        """The topics that `samples` has read: those of the sensors, and those that describe them."""
        return {*self.topics.values(), *self._side_topics}

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """Sensor → calibration, from the parameters and from the messages that `samples` has read so far."""
        return {sensor: self.calibration(sensor) for sensor in self._options}

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
                decoder = SampleDecoder(self._options[sensor], self._topic_types[topic])
            except EncodingError as error:  # none of its messages is read
                found = next(own for own in self._recording.topics if own.name == topic)
                self.message_counts[sensor] = self.undecodable_counts[sensor] = found.message_count
                yield Failure(self._options[sensor].modality, "encoding", str(error), sensor)
                continue
            self._decoders[sensor] = decoder
            sensors[topic].append(decoder)
            for side in decoder.side_topics(topic):
                name = self._topic_named(side.name)
                if name is not None and self._topic_types[name] == side.type:
                    info_decoders[name].append(decoder)
        self._side_topics = set(info_decoders)
        for topic, type_name, received, message in self._recording.messages([*sensors, *info_decoders]):
            on_progress(received)
            for decoder in info_decoders.get(topic, ()):
                try:
                    if decoder.apply_side_message(message):
                        on_calibration(decoder.sensor, decoder.calibration)
                except EncodingError as error:
                    yield Failure(decoder.modality, "encoding", str(error), decoder.sensor)
            for decoder in sensors.get(topic, ()):
                self.message_counts[decoder.sensor] += 1
                try:
                    if type_name != decoder.type_name:
                        raise EncodingError(
                            f"a message has type '{type_name}', but its topic has '{decoder.type_name}'"
                        )
                    yield decoder.decode(message, received)
                except EncodingError as error:
                    self.undecodable_counts[decoder.sensor] += 1
                    yield Failure(decoder.modality, "encoding", str(error), decoder.sensor)

    def _topic_named(self, topic: str) -> str | None:
        """The topic's name in the recording, compared without slashes at the ends; None if there is none."""
        return next((name for name in self._topic_types if name.strip("/") == topic.strip("/")), None)


def process_recording(
    reader: SampleReader,
    pipeline: Pipeline,
    *,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_progress: Callable[[int], None] = lambda stamp: None,
) -> Iterator[Output]:
    """Drive `pipeline` with all samples and calibrations of `reader`. Yields its outputs. Raises `RecordingError`."""
    for sensor, calibration in reader.parameter_calibrations.items():  # `calibrations` may be of an earlier read
        pipeline.set_calibration(sensor, calibration)

    def read() -> Iterator[Sample | Failure]:
        for sample in reader.samples(on_progress, pipeline.set_calibration):
            if isinstance(sample, Sample):
                on_sample(sample)
            yield sample

    yield from process_samples(pipeline, read())
