"""Writes `config/foxglove_layout.json`, the layout for outputs with the prompts of `config/starter.yaml`: `make docs`.

`sensebind replay` writes such a layout with the labels of its own run.
"""

from __future__ import annotations

from pathlib import Path

from sensebind.fusion.config.detectors import make_detectors
from sensebind.fusion.core.samples import SENSOR_MODALITIES
from sensebind.replay.session import Settings
from sensebind.report.foxglove_layout import CAMERAS, write_foxglove_layout
from sensebind.report.replay_output import prompt_thresholds

LAYOUT = Path(__file__).parents[1] / "config" / "foxglove_layout.json"


def write_layout(path: Path) -> None:
    """Write the layout. No model is loaded: only the thresholds of the prompts are needed."""
    import numpy as np

    detectors = make_detectors(Settings.read().detector, lambda phrases: np.eye(len(phrases), dtype=np.float32))
    write_foxglove_layout(path, prompt_thresholds(detectors), SENSOR_MODALITIES, CAMERAS)


if __name__ == "__main__":
    write_layout(LAYOUT)
