"""Noise that a robot makes and moves in: motors, a fan, broadband noise and wind. All of it lasts the whole time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensebind.simulation.messages import AUDIO_SAMPLE_RATE
from sensebind.simulation.synthetic_sounds import band_noise, harmonic_chirp

NOISE_LEVEL = -46.0  # dB of full scale, RMS over the whole noise: as `simulation.recorder.MOTOR_LEVEL`
KNOT_INTERVAL = 4.0  # s between the random values of speed and strength; they change smoothly in between

Wave = npt.NDArray[np.float64]


def robot_noise(random: np.random.Generator, seconds: float, level: float = NOISE_LEVEL) -> Wave:
    """Robot noise, float64 (N,) at 16 kHz, `seconds` long, with an RMS of `level` dB of full scale.

    The hum of the motors has harmonics of 60 to 140 Hz. Its frequency and strength vary over seconds, with the speed of
    the robot. To it are added a fan (a steady tone and noise up to 1.5 kHz), broadband noise up to 5 kHz, and wind
    below 250 Hz in gusts.
    """
    speed = _smooth(random, seconds)
    hum = harmonic_chirp(random.uniform(60, 90) + 50 * speed, 8, 0.8)
    parts = [
        0.8 * (0.4 + speed) * _unit(hum),
        0.15 * _unit(harmonic_chirp(np.full(len(hum), random.uniform(180, 260)), 2, 1.0)),
        0.35 * band_noise(random, 80, 1500, seconds),
        0.35 * band_noise(random, 60, 5000, seconds),
        0.45 * _smooth(random, seconds) * band_noise(random, 20, 250, seconds),
    ]
    return _unit(np.sum(parts, axis=0)) * 10 ** (level / 20)


def _smooth(random: np.random.Generator, seconds: float) -> Wave:
    """A random curve, (N,) at 16 kHz, that varies smoothly between 0 and 1."""
    knots = random.uniform(0, 1, int(seconds / KNOT_INTERVAL) + 3)
    at = np.arange(round(seconds * AUDIO_SAMPLE_RATE)) / (KNOT_INTERVAL * AUDIO_SAMPLE_RATE)
    first = at.astype(int)
    share = 0.5 - 0.5 * np.cos(np.pi * (at - first))
    return np.asarray(knots[first] * (1 - share) + knots[first + 1] * share)


def _unit(wave: Wave) -> Wave:
    return np.asarray(wave / (np.sqrt(np.mean(np.square(wave))) + 1e-12))
