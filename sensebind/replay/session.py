"""Opens a replay from a parameter file and a recording: the settings, the space, the detectors, the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sensebind.fusion.config import build
from sensebind.fusion.config.detectors import make_detectors, onset_thresholds_of, prompts_of
from sensebind.fusion.config.files import (
    lost_sections,
    read_parameter_file,
    section_names,
    shipped_parameter_file,
    unknown_sections,
)
from sensebind.fusion.config.parameters import (
    RESERVED_SENSOR_NAMES,
    detector_parameters,
    detector_values,
    embedder_parameters,
    embedder_values,
    modalities_of,
    sensor_warnings,
    sensors_of,
)
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.errors import ConfigError, printable
from sensebind.fusion.core.samples import SECOND, Calibration, Sample
from sensebind.fusion.core.space import Space, encoder_ids, limited_competences, suggested_phrases
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.prompt import PromptDetector, unrecognisable_text
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io.recordings import Recording, Selection
from sensebind.fusion.io.topic_selection import TopicSelection
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.replay.driver import process_recording
from sensebind.replay.losses import ReplayLosses, losses_of
from sensebind.replay.namespaces import RobotRecording
from sensebind.replay.reader import SampleReader

LOG = logging.getLogger(__name__)
DEFAULT_PARAMETER_FILE = "starter.yaml"  # the parameter file that is read if none is named


@dataclass(frozen=True)
class Settings:
    """Checked parameters. `embedder` and `detector` are all values of the two nodes' parameters."""

    modalities: tuple[str, ...]
    embedder: Mapping[str, Any]
    detector: Mapping[str, Any]

    @classmethod
    def read(cls, file: str | Path | None = None, device: str | None = None, namespace: str | None = None) -> Settings:
        """The settings in a parameter file; None: the shipped `DEFAULT_PARAMETER_FILE`. `device` takes precedence over
        the file's. `namespace`: that of the robot, as in `read_parameter_file`.

        Logs a warning for each section that is not used. Raises `ConfigError`.
        """
        file = shipped_parameter_file(DEFAULT_PARAMETER_FILE) if file is None else file
        namespace = None if namespace is None else f"/{namespace.strip('/')}"
        embedder, detector = (read_parameter_file(file, node, namespace) for node in ("embedder", "detector"))
        for text in unknown_sections(file) + [
            text for node in ("embedder", "detector") for text in lost_sections(file, node, namespace)
        ]:
            LOG.warning(printable(text))
        names = section_names(file)
        if names and not any(name.rpartition("/")[2] in ("**", "embedder", "detector") for name in names):
            raise ConfigError(
                f"parameter file '{file}' has sections for {', '.join(sorted(names))} only: name them '/**', "
                "'embedder' and 'detector'"
            )
        return cls.of(embedder, detector).with_device(device)

    @classmethod
    def of(cls, embedder: Mapping[str, Any], detector: Mapping[str, Any] | None = None) -> Settings:
        """The settings with these values, and the defaults of all other parameters. Raises `ConfigError`."""
        return cls(modalities_of(embedder), embedder_values(embedder), detector_values(detector or {}, embedder))

    def with_sensors_in(self, recording: Recording) -> Settings:
        """The same settings with a sensor for each device that a recording has of a modality, if the parameters name
        neither the topic nor the sensors of this modality. Raises `ConfigError`."""
        return self.with_found_sensors(TopicSelection(recording))[0]

    def with_found_sensors(self, topics: TopicSelection) -> tuple[Settings, dict[str, str]]:
        """The settings of `with_sensors_in`, and why each sensor that they add has its topic. Raises `ConfigError`."""
        found = topics.sensors([*RESERVED_SENSOR_NAMES, *sensors_of(self.embedder)])
        added: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for modality in self.modalities:
            sensors = found.get(modality, {})
            if len(sensors) < 2 or self.embedder[f"{modality}.sensors"] or self.embedder[f"{modality}.topic"]:
                continue
            added[f"{modality}.sensors"] = list(sensors)
            added |= {f"{name}.topic": choice.topic for name, choice in sensors.items()}
            reasons |= {name: choice.reason for name, choice in sensors.items()}
        if not added:
            return self, {}
        return replace(self, embedder=embedder_values({**self.embedder, **added})), reasons

    def with_device(self, device: str | None) -> Settings:
        """The same settings with another device; None: unchanged."""
        return replace(self, embedder={**self.embedder, "device": device}) if device else self

    def with_detector(self, values: Mapping[str, Any]) -> Settings:
        """The same settings with other values of some of the detector's parameters. Raises `ConfigError`."""
        return replace(self, detector=detector_values({**self.detector, **values}))

    def changed_values(self) -> dict[str, Any]:
        """The values that differ from the defaults, of both nodes, and those of labels."""
        defaults = {
            p.name: p.default for p in (*embedder_parameters(self.modalities, self.embedder), *detector_parameters())
        }
        values = {**self.embedder, **self.detector}
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}

    @property
    def prompts(self) -> dict[str, list[str]]:
        """Label → phrases."""
        return prompts_of(self.detector)

    @property
    def onset_thresholds(self) -> dict[str, float]:
        """Label of each prompt → the score at which its events begin."""
        usual, own = float(self.detector["prompt.onset_threshold"]), onset_thresholds_of(self.detector)
        return {label: own.get(label, usual) for label in self.prompts}

    def space(self) -> Space:
        """Load the space. Raises `SpaceError`."""
        return build.load_space_from(self.embedder)

    def detectors(self, space: Space) -> list[Detector]:
        """The detectors, with their phrases embedded in `space`. Raises `ConfigError`, `CalibrationError`, and
        `SpaceError` for a space with wrong competences."""
        embedded = {sensor: m for sensor, m in sensors_of(self.embedder).items() if m in space.modalities}
        return make_detectors(
            self.detector,
            lambda phrases: space.embed_text(phrases).numpy(),
            embedded,
            partial(limited_competences, space),
            space.named_objects,
            encoder_ids(space),
        )

    def events(self, space: Space) -> EventTracker:
        """The detectors, ready to run in a pipeline. Raises `ConfigError` and `CalibrationError`."""
        return EventTracker(self.detectors(space), space.id)

    def pipeline(self, space: Space, events: EventTracker | None = None) -> Pipeline:
        """The pipeline; without `events` it only embeds. Logs `sensor_warnings`. Raises `ConfigError`."""
        for text in sensor_warnings(self.embedder):
            LOG.warning(text)
        return build.make_pipeline(self.embedder, space, tracker=events)


def prompt_warnings(detectors: Sequence[Detector], space: Space, modalities: Collection[str]) -> list[str]:
    """Return warnings about prompts for a stream with data of `modalities`: labels that none of them can recognise, and
    modalities without their part of the calibration."""
    found, modalities = [], sorted(set(modalities) - {FUSED})
    for detector in detectors:
        if not isinstance(detector, PromptDetector):
            continue
        if labels := detector.unrecognisable_labels(modalities, space.id):
            near = {
                label: suggested_phrases(
                    [space.nearest_phrases(m, phrase) for phrase in detector.prompts[label] for m in modalities]
                )
                for label in labels
            }
            found.append(unrecognisable_text(labels, near))
        if calibration := detector.calibration(space.id):
            found += calibration.warnings(modalities)
    return found


@dataclass(frozen=True)
class Replay:
    """An open recording, and the reader of its sensors' topics."""

    recording: Recording
    reader: SampleReader

    @property
    def start(self) -> int:
        """Log time of the first message, in ns."""
        return self.recording.start

    @property
    def end(self) -> int:
        """Log time of the last message, in ns."""
        return self.recording.end

    @property
    def seconds(self) -> float:
        """Seconds from the first message to the last."""
        return (self.end - self.start) / SECOND

    @property
    def topics(self) -> Mapping[str, str]:
        """Sensor → topic, for the sensors that the recording has."""
        return self.reader.topics

    def samples(self) -> Iterator[Sample | Failure]:
        """Every message as a sample, in the order recorded; a `Failure` for a message that cannot be read.

        They do not include the calibrations in CameraInfo: use `outputs` to drive a pipeline.
        """
        return self.reader.samples()

    def losses(self, pipeline: Pipeline) -> ReplayLosses:
        """What was not used, after `outputs` of this pipeline ended."""
        return losses_of(self.recording, self.reader, pipeline)

    def outputs(
        self,
        pipeline: Pipeline,
        *,
        on_sample: Callable[[Sample, Calibration], None] = lambda sample, calibration: None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> Iterator[Output]:
        """Drive `pipeline` with all samples and calibrations. Yields its outputs.

        `on_sample` is called with each sample and its sensor's calibration before the pipeline gets it, `progress`
        with the log time of each message, in seconds from `start`.
        """
        return process_recording(
            self.reader,
            pipeline,
            on_sample=lambda sample: on_sample(sample, self.reader.calibration(sample.sensor)),
            on_progress=lambda stamp: progress((stamp - self.start) / SECOND),
        )


@contextmanager
def open_replay(
    path: str | Path,
    values: Mapping[str, Any],
    modalities: Sequence[str] | None = None,
    selection: Selection | None = None,
) -> Iterator[Replay]:
    """Open a recording and find the topics of `modalities` (None: those that `values` name).

    `values` are the embedder's parameters. `selection`: the part of the recording to read; None: all. Raises
    `RecordingError`, and `ConfigError` for a topic that `values` name and the recording lacks.
    """
    wanted = modalities_of(values) if modalities is None else tuple(modalities)
    with Recording(path, selection) as recording:
        yield Replay(recording, SampleReader(recording, values, wanted))


@contextmanager
def open_with_sensors(
    path: str | Path, settings: Settings, namespace: str | None = None, selection: Selection | None = None
) -> Iterator[tuple[Settings, Replay]]:
    """Open a recording with the sensors that it has: `Settings.with_sensors_in`, and the replay.

    `namespace`: that of the robot whose topics are read, if the recording has topics in it. `selection`: the part of
    the recording to read; None: all. Raises the errors of `open_replay`, and `ConfigError` if the recording has several
    robots of the parameter `robots` and none is chosen.
    """
    with Recording(path, selection) as recording:
        robot = RobotRecording(recording, namespace or "")
        if found := robot.topic_values(settings.embedder):
            settings = replace(settings, embedder=embedder_values({**settings.embedder, **found}))
        topics = TopicSelection(robot)
        settings, reasons = settings.with_found_sensors(topics)
        reader = SampleReader(recording, settings.embedder, settings.modalities, topics, reasons)
        yield settings, Replay(recording, reader)
