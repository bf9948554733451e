"""A replay is opened from a parameter file and a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.patrols import record_patrol
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind
from sensebind.fusion.core.samples import IMU, VISION, Sample
from sensebind.fusion.io.recordings import RecordingError
from sensebind.fusion.models import registry
from sensebind.replay.session import Settings, open_replay

FILE = """
/**:
  ros__parameters:
    space: toy
    device: cuda:3
    weights: w.bin
    dtype: bf16
    modalities: [vision, imu]
    spokes: [s.safetensors]
    detectors: [prompt, fault]
    prompts: {dog: [a dog], silent: [""]}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "p.yaml").write_text(FILE)
    return Settings.read(tmp_path / "p.yaml")


def test_a_parameter_file_is_read_for_both_nodes_and_the_device_can_be_overridden(
    tmp_path: Path, settings: Settings
) -> None:
    assert settings.modalities == ("vision", "imu") and settings.prompts == {"dog": ["a dog"]}
    assert settings.embedder["device"] == "cuda:3" and settings.embedder["imu.hop"] == 0.5
    assert Settings.read(tmp_path / "p.yaml", "cpu").embedder == {**settings.embedder, "device": "cpu"}
    assert set(Settings.read().detector["detectors"]) > {"prompt", "fault"}, "the shipped file"
    with pytest.raises(ConfigError, match=r"vision\.hopp"):
        Settings.of({"vision.hopp": 1.0})


def test_the_space_is_loaded_with_the_parameters_of_the_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {}

    def load(name: str, **given: Any) -> ToySpace:
        arguments.update(given, name=name)
        return ToySpace()

    monkeypatch.setattr(registry, "load_space", load)
    assert isinstance(settings.space(), ToySpace)
    assert arguments == {
        "name": "toy", "modalities": ("vision", "imu"), "device": "cuda:3", "weights": "w.bin", "dtype": "bf16",
        "spokes": ["s.safetensors"],
    }  # fmt: skip


def test_the_settings_determine_the_detectors(settings: Settings) -> None:
    assert [d.kind for d in settings.detectors(ToySpace())] == [EventKind.PROMPT, EventKind.FAULT]
    only = settings.with_detector({"detectors": ["fault"]})
    assert [d.kind for d in only.detectors(ToySpace())] == [EventKind.FAULT]
    assert settings.detector["detectors"] == ["prompt", "fault"] and only.embedder == settings.embedder
    assert settings.events(ToySpace()).space == ToySpace.id


def test_an_open_replay_gives_samples_with_their_calibration_and_outputs(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(RecordingError, match="nowhere"), open_replay(tmp_path / "nowhere", settings.embedder):
        pass
    bag = tmp_path / "bag"
    record_patrol(bag, duration=4.0)
    with open_replay(bag, settings.embedder, (IMU,)) as replay:
        assert set(replay.topics) == {IMU}
    seen: list[tuple[str, bool]] = []
    times: list[float] = []

    def on_sample(sample: Sample, calibration: Any) -> None:
        seen.append((sample.modality, bool(calibration and calibration.focal_length)))

    with open_replay(bag, settings.embedder) as replay:
        assert replay.topics == {VISION: "/camera/image", IMU: "/imu"}
        assert replay.seconds == pytest.approx(4, abs=0.2) == (replay.end - replay.start) / 1e9
        outputs = list(replay.outputs(settings.pipeline(ToySpace()), on_sample=on_sample, progress=times.append))
        assert sum(isinstance(s, Sample) for s in replay.samples()) == len(seen)
    assert (VISION, True) in seen and (IMU, False) in seen and (IMU, True) not in seen
    assert times == sorted(times) and 0 <= times[0] < 0.5 and times[-1] <= replay.seconds
    assert {o.modality for o in outputs if isinstance(o, Embedding)} == {VISION, IMU, FUSED}
