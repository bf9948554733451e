"""Converts motion to the input of ImageBind's IMU encoder."""

from __future__ import annotations

import torch

from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.resampling import resample_readings

SAMPLE_RATE = 400  # Hz
NUM_SAMPLES = 2000  # samples: 5 s


def imagebind_tensor(window: Window) -> torch.Tensor:
    """A window of 5 s → float32 (6, 2000): acceleration x y z in m/s², angular velocity x y z in rad/s, at 400 Hz.

    Acceleration includes gravity (REP-145). No normalization is published. Raises `ValueError` for another length.
    """
    values = resample_readings(window, SAMPLE_RATE, 6)
    if values.shape[1] != NUM_SAMPLES:
        raise ValueError(
            f"ImageBind's IMU window is 5 s, not {values.shape[1] / SAMPLE_RATE:g} s: set imu.window to 5.0"
        )
    return torch.from_numpy(values)
