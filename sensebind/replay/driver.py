"""The offline driver: a recording through the line, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sensebind.fusion.config.parameters import ConfigError, calibration
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import AUDIO, DEPTH, VISION, Calibration, Sample
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io import audio_messages, messages, numeric_messages
from sensebind.fusion.io.recordings import Recording, find_topics
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Output, Pipeline


class Reader:
    """The samples of a recording, and what it tells of the sensors.

    `values` are the embedder's parameters: topics that they name are taken, others found by type and name.
    `topics` is modality → topic, `reasons` why. Raises `ConfigError` for a topic that the recording lacks.
    """

    def __init__(self, recording: Recording, values: Mapping[str, Any], modalities: tuple[str, ...]) -> None:
        self._recording, self._values = recording, values
        found = find_topics(recording)
        types = {topic.name: topic.type for topic in recording.topics}
        self.topics: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        for modality in modalities:
            own = f"{modality}.fields" in values
            named = values[f"{modality}.topic"] or (modality if own else "")
            if named:
                name = next((t for t in types if t.strip("/") == named.strip("/")), None)
                if name is None:
                    raise ConfigError(
                        f"parameter '{modality}.topic' names '{named}', and the recording has only: {', '.join(types)}"
                    )
                self.topics[modality], self.reasons[modality] = name, "named by parameter"
            elif modality in found:
                self.topics[modality], self.reasons[modality] = found[modality].topic, found[modality].reason
        self._types = types
        self.calibrations = {m: self._calibration(m) for m in self.topics}
        self.skipped = 0

    def _calibration(self, modality: str) -> Calibration:
        told = calibration(self._values, modality)
        if modality not in (VISION, DEPTH):
            return told
        named = self._values[f"{modality}.camera_info"] or messages.beside(self.topics[modality], "camera_info")
        for message in self._first(named, messages.CAMERA_INFO):
            told = messages.with_camera_info(told, message)
        return told

    def _first(self, topic: str, type_name: str) -> Iterator[Any]:
        """The first message of a topic of this type, if there is one: sensors do not change under way."""
        name = next((t for t in self._types if t.strip("/") == topic.strip("/") and self._types[t] == type_name), None)
        if name is not None:
            for _, _, _, message in self._recording.messages([name]):
                yield message
                return

    def _microphone(self) -> audio_messages.Microphone:
        topic, values = self.topics[AUDIO], self._values
        given = audio_messages.Format(
            values["audio.sample_format"], float(values["audio.sample_rate"]), values["audio.channels"]
        )
        microphone = audio_messages.Microphone(self._types[topic], given)
        named = values["audio.info_topic"]
        for info in [named] if named else [messages.beside(topic, "info"), f"{topic}_info", f"{topic}/info"]:
            for message in self._first(info, audio_messages.INFO):
                microphone.format = audio_messages.with_info(microphone.format, message)
        return microphone

    def samples(self, progress: Callable[[int], None] = lambda stamp: None) -> Iterator[Sample | Failure]:
        """Every message as a sample, in the order recorded; `progress` is told the time (ns) of each."""
        modality_of = {topic: modality for modality, topic in self.topics.items()}
        counters = {
            m: numeric_messages.reader(m, self._values[f"{m}.fields"], self._values[f"{m}.fill"])
            for m in self.topics
            if f"{m}.fields" in self._values
        }
        microphone = None
        if AUDIO in self.topics:
            try:
                microphone = self._microphone()
            except EncodingError as error:
                yield Failure(AUDIO, "encoding", str(error))
                del modality_of[self.topics[AUDIO]]
        for topic, type_name, received, message in self._recording.messages(list(modality_of)):
            modality = modality_of[topic]
            progress(received)
            try:
                if modality == AUDIO and microphone is not None:
                    yield microphone.sample(message, received)
                elif modality in counters:
                    yield counters[modality](message, received)
                elif type_name in messages.SAMPLES:
                    yield messages.SAMPLES[type_name](modality, message)
                else:
                    yield Failure(modality, "encoding", f"type '{type_name}' is no {modality} message")
            except EncodingError as error:
                yield Failure(modality, "encoding", str(error))


def replay(
    reader: Reader,
    pipeline: Pipeline,
    *,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    progress: Callable[[int], None] = lambda stamp: None,
) -> Iterator[Output]:
    """Drive `pipeline` with all samples of `reader`; outputs as they come."""
    for modality, told in reader.calibrations.items():
        pipeline.calibrate(modality, told)

    def heard() -> Iterator[Sample | Failure]:
        for sample in reader.samples(progress):
            if isinstance(sample, Sample):
                on_sample(sample)
            yield sample

    yield from process_samples(pipeline, heard())
