"""Each message is made into a sample, or used with others, or counted by its cause, or waits: at any moment."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.field_recordings import STAMPED_SOUND, START, imu_message, sound_message, tone
from helpers.sensor_messages import audio_info
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.io.sensor_options import AudioFormat, SensorOptions
from sensebind.fusion.stream.accounting.identity import accounts

GYRO, ACCEL = "/camera/gyro/sample", "/camera/accel/sample"
STEPS = st.sampled_from([0, 5, 20, 80, 300, 2000, -40, -3000])  # ms
NONE, ONE, GRAVITY, NAN = (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.1, 0.0, 9.81), (float("nan"),) * 3
IMU_EVENTS = st.tuples(st.booleans(), STEPS, st.sampled_from([NONE, GRAVITY, NAN]), st.sampled_from([NONE, ONE, NAN]))


def assert_accounted(decoder: SampleDecoder, decoded: int, *, at_end: bool = False) -> None:
    """`decoded`: how many samples the decoder has returned."""
    counts = decoder.message_counts()
    line = accounts(counts)[1]
    assert line.unaccounted == 0 and min(counts.values()) >= 0 and counts["decoded"] == decoded, str(line)
    assert not (at_end and line.waiting)


def feed(decoder: SampleDecoder, message: object, received: int, *, side: bool) -> int:
    """Give a message to the decoder. Returns how many samples it returned."""
    try:
        if not side:
            return len(decoder.decode(message, received))
        decoder.apply_side_message(message, received)
    except EncodingError:
        pass
    return 0


@given(st.lists(IMU_EVENTS, max_size=80), st.sampled_from([GYRO, ACCEL, "/imu/data"]))
def test_the_messages_of_an_imu_on_one_or_two_topics_are_accounted_for(events: list, topic: str) -> None:  # type: ignore[type-arg]
    decoder, now, decoded = SampleDecoder(SensorOptions("imu"), "sensor_msgs/msg/Imu", topic), START, 0
    for side, step, acceleration, rotation in events:
        now += step * SECOND // 1000
        side = side and topic != "/imu/data"
        decoded += feed(decoder, imu_message(now, acceleration, rotation), now, side=side)
        assert_accounted(decoder, decoded)
    decoded += len(decoder.finish())
    assert_accounted(decoder, decoded, at_end=True)


@cache
def bytes_of(container: str, subtype: str) -> bytes:
    soundfile, file = pytest.importorskip("soundfile"), io.BytesIO()
    soundfile.write(file, tone(16000, 0.6), 16000, format=container, subtype=subtype)
    return file.getvalue()


CODINGS = {"wave": ("WAV", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "": ("RAW", "PCM_16")}


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(CODINGS)),
    st.lists(
        st.tuples(st.sampled_from(["sound", "sound", "sound", "info", "odd info", "noise"]), st.integers(1, 900)),
        max_size=30,
    ),
    st.booleans(),
)
def test_the_messages_of_a_microphone_are_accounted_for(coding: str, events: list, is_known: bool) -> None:  # type: ignore[type-arg]
    data, at, decoded = bytes_of(*CODINGS[coding]), 0, 0
    form = AudioFormat("S16LE", 16000.0, 1, coding_format=coding) if is_known else AudioFormat()
    decoder = SampleDecoder(SensorOptions("audio", audio_format=form), STAMPED_SOUND, "/mic/audio")
    for number, (kind, size) in enumerate(events):
        now = START + number * SECOND // 5
        if "info" in kind:
            info = audio_info(16000, 1, "S16LE", "odd" if kind == "odd info" else coding)
            decoded += feed(decoder, info, now, side=True)
        else:
            piece = data[at : at + size] if kind == "sound" else bytes(size)
            at += len(piece) if kind == "sound" else 0
            decoded += feed(decoder, sound_message(now, piece), now, side=False)
        assert_accounted(decoder, decoded)
    decoded += len(decoder.finish())
    assert_accounted(decoder, decoded, at_end=True)


def test_an_error_of_one_sound_costs_none_of_those_that_waited_for_its_format() -> None:
    decoder = SampleDecoder(SensorOptions("audio"), STAMPED_SOUND, "/mic/audio")
    good, odd = np.zeros(160, "<i2").tobytes(), bytes(3)  # half a sample too many
    for number in range(3):
        assert decoder.decode(sound_message(START + number * SECOND // 5, good), START + number * SECOND // 5) == []
    assert decoder.message_counts()["messages_waiting"] == 3
    decoder.apply_side_message(audio_info(16000))
    assert len(decoder.decode(sound_message(START + SECOND, odd), START + SECOND)) == 3
    counts = decoder.message_counts()
    assert (counts["decoded"], counts["undecodable"], counts["messages_waiting"]) == (3, 1, 0)
