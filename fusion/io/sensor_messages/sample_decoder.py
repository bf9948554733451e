"""Converts messages to samples, with one decoder for the live node and for replay.

A driver that has messages (rclpy's subscriptions, a bag) makes one `SampleDecoder` for each sensor. It subscribes to
the sensor's topic and to `side_topics`, and passes every message to the decoder in order of arrival. Fields are read by
name, so the message objects of rclpy and of rosbags both work.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensebind.fusion.core import encodings
from sensebind.fusion.core.encodings import EncodingError, Pixels
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Sample,
    to_ns,
)
from sensebind.fusion.io import messages
from sensebind.fusion.io.sensor_messages import audio, images
from sensebind.fusion.io.sensor_messages.codecs.video import VideoStream
from sensebind.fusion.io.sensor_messages.image_values import ImageValueCheck
from sensebind.fusion.io.sensor_messages.imu import ImuDecoder
from sensebind.fusion.io.sensor_messages.numeric_fields import numeric_sample_converter
from sensebind.fusion.io.sensor_options import COMPRESSED_TRANSPORT, RAW_TRANSPORT, RECEIVED_STAMPS, SensorOptions
from sensebind.fusion.io.topic_names import sibling_topic

LOG = logging.getLogger(__name__)
MAX_WARNINGS = 4  # different warnings about one sensor that are logged
WARNING_TIME = 10 * SECOND  # ns after the newest sign of a cause that can end, in which its warning is active

# Message types of each built-in modality. For other modalities, numbers are read from messages of any type.
MESSAGE_TYPES = {
    **dict.fromkeys((VISION, THERMAL), (messages.IMAGE_TYPE, messages.COMPRESSED_IMAGE_TYPE, *messages.VIDEO_TYPES)),
    DEPTH: (messages.IMAGE_TYPE, messages.COMPRESSED_IMAGE_TYPE),
    IMU: (messages.IMU_TYPE,),
    AUDIO: tuple(audio.AUDIO_ADAPTERS),
}

COLOURS = (Pixels.COLOUR, Pixels.MOSAIC, Pixels.VECTORS)

# Raised for a message without the expected fields: two packages may define different types of the same name.
MESSAGE_FIELD_ERRORS = (AttributeError, TypeError, ValueError, IndexError)


@dataclass(frozen=True, slots=True)
class SideTopic:
    """A topic that describes a sensor. `latched`: its publisher may send it once and keep it for late subscribers."""

    name: str
    type: str
    latched: bool = False


def data_topic(options: SensorOptions, topic: str) -> str:
    """The topic that carries the messages of `topic`: with image_transport's suffix if images are compressed.

    A topic that has its suffix already is returned as it is.
    """
    ending = topic.rstrip("/").rsplit("/", 1)[-1]
    if options.transport == RAW_TRANSPORT or ending.startswith("compressed") or ending in messages.VIDEO_TRANSPORTS:
        return topic
    is_compressed_depth = options.modality == DEPTH and options.transport == COMPRESSED_TRANSPORT
    return f"{topic}/{'compressedDepth' if is_compressed_depth else options.transport}"


def select_message_type(modality: str, published: Sequence[str]) -> str:
    """The first type published on a sensor's topic that can be read; else the first one; empty if there is none."""
    known = MESSAGE_TYPES.get(modality, published)
    return next((name for name in published if name in known), published[0] if published else "")


class SampleDecoder:
    """Converts the messages of one sensor to samples.

    It keeps the state that depends on earlier messages: the calibration, the microphone's format and time, compressed
    sound, the decoder of a video, whose packets become images here, and readings that wait for others. A message of
    `side_topics` applies to all messages that arrive after it, and to those that wait for it. Values from parameters
    take precedence over side messages, and values from an earlier side message over later ones.

    `topic`: where the messages come from, for warnings. Raises `EncodingError` if messages of type `type_name` cannot
    be samples of this modality.
    """

    def __init__(self, options: SensorOptions, type_name: str, topic: str = "") -> None:
        self.modality, self.sensor, self.type_name = options.modality, options.sensor, type_name
        self._frame_ids: tuple[str, str] | None = None  # of the first sample, and of the newest
        self._sample_count = 0  # until one has another frame
        self._frame_warning = ""  # that samples have different frames
        self.warnings: list[str] = []  # what was wrong with the messages so far
        self._newest_signs: dict[str, int] = {}  # warning whose cause can end → time of arrival (ns) of its newest sign
        self._options, self._topic = options, topic or options.topic_name
        self._time_offset = to_ns(options.time_offset)
        self._calibration = options.calibration
        self._video, self._value_check = VideoStream(options.max_pixels), ImageValueCheck(options)
        self._audio_decoder: audio.AudioMessageDecoder | None = None
        self._imu_decoder: ImuDecoder | None = None
        self._counts: Counter[str] = Counter()
        self._convert = self._make_converter()

    @property
    def calibration(self) -> Calibration:
        """The sensor's calibration, from parameters and the messages so far."""
        return self._calibration

    def active_warnings(self, now_ns: int) -> list[str]:
        """What is wrong with the messages now, by the clock of their times of arrival: `warnings` without those whose
        cause has ended `WARNING_TIME` ago."""
        return [text for text in self.warnings if now_ns - self._newest_signs.get(text, now_ns) < WARNING_TIME]

    @property
    def unused(self) -> Counter[str]:
        """Reason → messages without a sample, besides those for which `decode` raised an error."""
        stateful = self._audio_decoder or self._imu_decoder
        return Counter() if stateful is None else stateful.unused

    def message_counts(self) -> dict[str, int]:
        """What became of the messages so far, for `stream.accounting.identity`: those of the sensor's topic (`arrived`)
        and of its side topics (`side`); samples made from them (`decoded`); messages that describe the sensor, or are
        the accelerations of an IMU on two topics (`applied`); those whose sound is in the sample of a later one
        (`joined`); errors (`undecodable`, `side_undecodable`); and those that wait for others (`messages_waiting`)."""
        stateful, counts = self._audio_decoder or self._imu_decoder, self._counts
        return {
            "arrived": counts["arrived"],
            "side": counts["side"],
            "decoded": counts["decoded"],
            "applied": counts["applied"] + (self._imu_decoder.accelerations if self._imu_decoder else 0),
            "joined": self._audio_decoder.joined if self._audio_decoder else 0,
            "undecodable": counts["undecodable"] + sum(self.unused.values()),
            "side_undecodable": counts["side_undecodable"],
            "messages_waiting": 0 if stateful is None else stateful.waiting,
        }

    def count_undecodable(self, *, samples: int = 0) -> None:
        """Count what the caller does not use: a message that it does not give to `decode`, or `samples` of `decode`."""
        self._counts["arrived"] += not samples
        self._counts["decoded"] -= samples
        self._counts["undecodable"] += samples or 1

    def side_topics(self, topic: str) -> tuple[SideTopic, ...]:
        """The side topics of a sensor on `topic`. If `topic` is a relative name, so are they."""
        named = self._options.info_topic if self.modality == AUDIO else self._options.camera_info_topic
        if self.modality in (VISION, DEPTH):
            return (SideTopic(named or sibling_topic(topic, "camera_info"), messages.CAMERA_INFO_TYPE),)
        if self._imu_decoder is not None:
            other = self._imu_decoder.other_topic
            return (SideTopic(other, messages.IMU_TYPE),) if other else ()
        if self.type_name in audio.TYPES_NEEDING_AUDIO_INFO and not self._options.audio_format.is_complete:
            names = [named] if named else audio.audio_info_topics(topic)
            if self._audio_decoder is not None:
                self._audio_decoder.info_topics = tuple(names)
            return tuple(SideTopic(name, audio.AUDIO_INFO_TYPE, latched=True) for name in names)
        return ()

    def decode(self, message: Any, received_ns: int) -> list[Sample]:
        """Convert one message to samples, which may share the message's memory: none, if more messages are needed to
        complete one; several, if earlier messages waited for this one.

        `received_ns`, the time of arrival in nanoseconds, is used for messages without a stamp. Raises `EncodingError`
        for a message that cannot be read; its text names the parameter to set.
        """
        self._counts["arrived"] += 1
        try:
            try:
                samples = self._convert(message, received_ns)
            except MESSAGE_FIELD_ERRORS as error:
                raise self._field_error(self.type_name, error) from error
            samples = [self._complete_image(s) if isinstance(s.data, Frame) else s for s in samples]
        except Exception:
            self._counts["undecodable"] += 1
            raise
        return self._completed(samples, received_ns)

    def _complete_image(self, sample: Sample) -> Sample:
        """Decode a packet of a video, and add the bits of a camera's values. Warns of values that do not fit the
        parameters. Raises `EncodingError` for a packet that gives no image."""
        if self.modality != DEPTH:
            sample = self._video.decode(sample)
        frame = sample.data
        assert isinstance(frame, Frame)
        encodings.check_image_size(frame, self._options.max_pixels, f"{self.sensor}.max_pixels")
        if self._options.bits and self.modality == VISION:
            sample = replace(sample, data=replace(frame, bits=self._options.bits))
        if text := self._value_check.check(frame, self._calibration):
            self._warn(text)
        return sample

    def finish(self) -> list[Sample]:
        """End a recording: the samples of messages that waited for others. `unused` counts those without one. Warns of
        values that do not fit the parameters, if there were too few images to do so before."""
        if text := self._value_check.finish(self._calibration):
            self._warn(text)
        stateful = self._audio_decoder or self._imu_decoder
        return [] if stateful is None else self._completed(stateful.finish(), None)

    def apply_side_message(self, message: Any, received_ns: int = 0) -> bool:
        """Apply a message of one of `side_topics`. Returns whether it changed `calibration`.

        Raises `EncodingError` for a message that cannot be read.
        """
        before = self._calibration
        self._counts["side"] += 1
        try:
            self._apply(message, received_ns)
        except MESSAGE_FIELD_ERRORS as error:
            self._counts["side_undecodable"] += 1
            kind = "AudioInfo" if self._audio_decoder else messages.IMU_TYPE if self._imu_decoder else "CameraInfo"
            raise self._field_error(kind, error) from error
        except Exception:
            self._counts["side_undecodable"] += 1
            raise
        return self._calibration != before

    def _apply(self, message: Any, received_ns: int) -> None:
        if self._imu_decoder is not None:  # it counts the message itself: an acceleration, or one that waits for it
            self._imu_decoder.decode_other(message, received_ns)
            return
        if self._audio_decoder is not None:
            self._audio_decoder.apply_audio_info(message)
        else:
            self._calibration = images.with_camera_info(self._calibration, message)
        self._counts["applied"] += 1

    def _completed(self, samples: Sequence[Sample], received_ns: int | None) -> list[Sample]:
        """The samples with their sensor, their time of arrival and their final stamps. Logs new warnings."""
        result = []
        for sample in samples:
            received = received_ns if sample.received is None else sample.received
            self._check_frame(sample.frame_id, received or 0)
            stamp = sample.stamp
            if self._options.stamps == RECEIVED_STAMPS and self.modality not in (AUDIO, IMU):  # these did it themselves
                stamp = stamp if received is None else received
            if stamp:  # 0: the message has no stamp
                stamp += self._time_offset
            result.append(Sample(sample.modality, stamp, sample.data, sample.frame_id, self.sensor, received))
        for stateful in (self._audio_decoder, self._imu_decoder):
            for text in () if stateful is None else stateful.warnings:
                self._warn(text)
        if self._audio_decoder is not None and (text := self._audio_decoder.rate_warning) and received_ns:
            self._newest_signs[text] = received_ns
        self._counts["decoded"] += len(result)
        return result

    def _make_converter(self) -> Callable[[Any, int], list[Sample]]:
        modality, type_name, options, sensor = self.modality, self.type_name, self._options, self.sensor
        if modality not in MESSAGE_TYPES:
            if type_name.count("/") != 2:
                raise EncodingError(
                    f"'{type_name}' is not a message type: set {sensor}.type to a name like std_msgs/msg/Float32"
                )
            try:
                read = numeric_sample_converter(modality, options.fields, options.fill)
            except ValueError as error:
                raise EncodingError(f"parameter '{sensor}.fields': {error}") from error
            return lambda message, received_ns: [read(message, received_ns)]
        if modality == AUDIO:
            self._audio_decoder = audio.AudioMessageDecoder(
                type_name, options.audio_format, use_stamps=options.stamps != RECEIVED_STAMPS
            )
            return self._audio_decoder.decode
        if type_name not in MESSAGE_TYPES[modality]:
            transport = f", and {sensor}.transport to raw or compressed" if type_name in messages.VIDEO_TYPES else ""
            raise EncodingError(
                f"type '{type_name}' does not carry {modality}: set {sensor}.topic to a topic of type "
                f"{' or '.join(MESSAGE_TYPES[modality])}{transport}"
            )
        if modality == IMU:
            self._imu_decoder = ImuDecoder(options, self._topic)
            return self._imu_decoder.decode
        convert = images.SAMPLE_CONVERTERS[type_name]

        def convert_image(message: Any, received_ns: int) -> list[Sample]:
            if modality != VISION:
                self._check_colours(message)
            if type_name == messages.IMAGE_TYPE and (text := encodings.why_not_decoded(message.encoding, modality)):
                raise EncodingError(f"{text}, or set {sensor}.topic to another topic")
            return [convert(modality, message)]  # the stamp is in its header

        return convert_image

    def _check_colours(self, message: Any) -> None:
        """Look for colours in an image message of a depth or thermal sensor. Raises `EncodingError` for depth; warns of
        colours that stand for temperatures, because their order is lost."""
        encoding = ""
        if self.type_name == messages.IMAGE_TYPE:
            encoding = message.encoding
        elif self.type_name == messages.COMPRESSED_IMAGE_TYPE:  # its format begins with the encoding that it had before
            encoding = message.format.rpartition(";")[0].partition(";")[0]
        if encodings.pixels_of(encoding) not in COLOURS:
            return
        if self.modality == DEPTH:
            raise EncodingError(
                f"encoding '{encoding}' has colours, which are no depth: set {self.sensor}.topic to the topic of depth "
                "images, or remove 'depth' from 'modalities'"
            )
        self._warn(
            f"encoding '{encoding}' has colours, which are no temperatures: only their brightness is used. Set "
            f"{self.sensor}.topic to the topic of grey or radiometric thermal images"
        )

    def _check_frame(self, frame_id: str, received: int) -> None:
        """Warn if the samples have different frames: two devices publish on one topic. `received`: time of arrival."""
        first, before = self._frame_ids or (frame_id, frame_id)
        self._frame_ids = first, frame_id
        self._sample_count += not self._frame_warning
        if frame_id == before:
            return
        if not self._frame_warning:
            self._frame_warning = (
                f"its messages have the frames '{first}' (the first {self._sample_count - 1}) and "
                f"'{frame_id}' (message {self._sample_count}): if two devices publish on one "
                f"topic, give each a topic of its own, and name both in {self.modality}.sensors"
            )
            self._warn(self._frame_warning)
        self._newest_signs[self._frame_warning] = received

    def _warn(self, text: str) -> None:
        """Log a warning about this sensor once."""
        if text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
            LOG.warning("sensor '%s' (topic '%s'): %s", self.sensor, self._topic, text)

    def _field_error(self, type_name: str, error: Exception) -> EncodingError:
        return EncodingError(
            f"a message of {self.sensor} lacks the fields expected of '{type_name}' ({error}): "
            f"check which package defines it, or set {self.sensor}.topic to another topic"
        )
