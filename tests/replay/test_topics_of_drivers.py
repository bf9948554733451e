"""A replay reads the topics of common drivers without parameters: those of audio_capture, and IMUs in two halves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.field_recordings import BAG, STAMPED_SOUND, START, Logged, imu_message, record, shaking, sound_message
from helpers.sensor_messages import AUDIO_DATA, audio_info
from sensebind.fusion.core.samples import SECOND, Reading, Sample
from sensebind.fusion.io.messages import IMU_TYPE
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.sensor_messages.audio import AUDIO_INFO_TYPE
from sensebind.replay.reader import SampleReader
from sensebind.replay.session import Settings

NOTHING = (0.0, 0.0, 0.0)


def samples(bag: Path, modality: str) -> tuple[list[Sample], str]:
    """The samples of a modality, and why its topic was selected."""
    values = Settings.of({"modalities": [modality]}).embedder
    with Recording(bag) as recording:
        reader = SampleReader(recording, values, (modality,))
        found = list(reader.samples())
        assert all(isinstance(sample, Sample) for sample in found), found
        return [sample for sample in found if isinstance(sample, Sample)], reader.topic_reasons[modality]


@pytest.mark.parametrize("info", ["/audio/audio_info", "/elsewhere/format"])
def test_the_sound_of_audio_capture_has_its_format_from_the_only_audio_info(tmp_path: Path, info: str) -> None:
    """audio_capture publishes audio, audio_stamped and audio_info in one namespace."""
    block, step = bytes(3200), SECOND // 10
    rows: list[Logged] = [(info, AUDIO_INFO_TYPE, START, audio_info(16000))]
    for number in range(20):
        now = START + number * step
        data = BAG.make(AUDIO_DATA, data=np.frombuffer(block, np.uint8))
        rows += [
            ("/audio/audio", AUDIO_DATA, now, data),
            ("/audio/audio_stamped", STAMPED_SOUND, now, sound_message(now, block)),
        ]
    found, _ = samples(record(tmp_path / "bag", rows), "audio")
    assert len(found) == 20 and found[-1].end - found[0].stamp == 2 * SECOND


@pytest.mark.parametrize(
    ("gyro", "accel"),
    [
        ("/d435/imu/gyro", "/d435/imu/acc"),
        ("/imu/angular_vel", "/imu/linear_acc"),
        ("/phone/gyr", "/phone/acceleration"),
        ("/oak/imu_gyroscope", "/oak/imu_accelerometer"),
    ],
)
@pytest.mark.parametrize("many", ["gyro", "accel"])
def test_the_halves_of_an_imu_are_united_under_all_names(tmp_path: Path, gyro: str, accel: str, many: str) -> None:
    times = np.arange(0.0, 2.0, 0.01)
    rows: list[Logged] = []
    for number, (time, values) in enumerate(zip(times, shaking(times), strict=True)):
        now = START + round(time * SECOND)
        if many == "gyro" or number % 3 == 0:
            rows.append((gyro, IMU_TYPE, now, imu_message(now, NOTHING, values[3:])))
        if many == "accel" or number % 3 == 0:
            rows.append((accel, IMU_TYPE, now, imu_message(now, values[:3], NOTHING)))
    found, reason = samples(record(tmp_path / "bag", rows), "imu")
    assert "united with" in reason
    read = np.array([sample.data.values for sample in found if isinstance(sample.data, Reading)])
    assert len(read) >= (190 if many == "gyro" else 64), "as many as angular velocities"
    assert read[:, 2].mean() == pytest.approx(9.81, abs=0.1) and read[:, 5].mean() == pytest.approx(0.3, abs=0.05)
