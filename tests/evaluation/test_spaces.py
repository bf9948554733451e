"""`sensebind evaluate audio` and `images`: tables from folders of data, and errors that name the folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from sensebind.cli import main


def test_sounds_are_assigned_to_the_folder_whose_name_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = np.arange(32_000) / 16_000
    waves = {"siren": np.sin(2 * np.pi * (900 * time + 60 * np.sin(2 * np.pi * time))), "drilling": np.zeros(32_000)}
    for name, wave in waves.items():
        (tmp_path / "evaluation" / "urbansound8k_subset" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "evaluation" / "urbansound8k_subset" / name / "1.wav", 0.3 * wave, 16_000)
    assert main(["evaluate", "audio", "--shared", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "UrbanSound8K" in line)
    right, named, chance, clips = (float(cell) for cell in row.split("|")[2:-1])
    assert clips == 2 and chance == 0.1 and right >= 0.5 and named >= 0.5


def test_images_of_the_same_view_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    for kind in ("visible", "thermal"):
        (tmp_path / "evaluation" / "roadscene" / kind).mkdir(parents=True)
    for number in range(3):
        image = cv2.resize(noise.integers(0, 255, (6, 8, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
        for kind, pixels in (("visible", image), ("thermal", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))):
            cv2.imwrite(str(tmp_path / "evaluation" / "roadscene" / kind / f"{number}.png"), pixels)
    assert main(["evaluate", "images", "--shared", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "RoadScene" in line)
    recall, *rest = row.split("|")[2:-1]
    assert float(recall) > 1 / 3 and rest == [" 0.333 ", " 3 pairs "]


@pytest.mark.parametrize("what", ["audio", "images"])
def test_a_folder_without_data_is_an_error_that_says_which_folder_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert main(["evaluate", what, "--shared", str(tmp_path)]) != 0
    message = capsys.readouterr().err
    assert str(tmp_path / "evaluation") in message and "--shared" in message
