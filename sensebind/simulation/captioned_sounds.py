"""Sounds with captions; the captions of ESC-10's classes and of silence; simulated noise of a robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

SAMPLE_RATE = 16_000  # Hz
QUIET_CAPTIONS = (
    "silence", "a quiet room", "nothing to hear", "a robot's motor", "quiet background noise",
    "the noise of a robot's motors",
)  # fmt: skip

# Folder of ESC-10 → captions of its sounds.
ESC10_CAPTIONS = {
    "Dog bark": ("a dog barking", "a barking dog", "dog"),
    "Rain": ("rain falling", "heavy rain", "rain on a roof"),
    "Sea waves": ("waves of the sea", "ocean waves on a beach", "sea"),
    "Baby cry": ("a crying baby", "a baby crying", "baby"),
    "Clock tick": ("a ticking clock", "a clock ticking", "clock"),
    "Person sneeze": ("a person sneezing", "someone sneezes", "sneeze"),
    "Helicopter": ("a helicopter flying", "a helicopter overhead", "the rotor of a helicopter"),
    "Chainsaw": ("a chainsaw running", "a chainsaw cutting wood", "a motor saw"),
    "Rooster": ("a rooster crowing", "a crowing rooster", "cock crow"),
    "Fire crackling": ("a crackling fire", "fire crackling in a fireplace", "fire"),
}


@dataclass(frozen=True, slots=True)
class CaptionedSound:
    """A sound, float32 (N,) at 16 kHz, and all captions that fit it. All sounds of a `block` are held out together."""

    samples: Floats
    captions: tuple[str, ...]
    block: int


def robot_noise(rng: Noise, samples: int) -> Floats:
    """Robot noise, float32 (samples,), at a random level: motors of varying speed (in 70 % of calls), and wind, fan
    or hiss."""
    t = np.arange(samples) / SAMPLE_RATE
    wave = np.zeros(samples)
    if rng.random() < 0.7:
        speed = rng.uniform(30, 260) * (1 + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(0.05, 0.6) * t))
        phase = 2 * np.pi * np.cumsum(speed) / SAMPLE_RATE
        for harmonic in range(1, int(rng.integers(2, 9))):
            wave += rng.uniform(0, 1) / harmonic * np.sin(harmonic * phase + rng.uniform(0, 6))
        wave /= wave.std() + 1e-9
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** rng.uniform(0, 1.2)
    hiss = np.fft.irfft(spectrum, samples)
    return np.asarray(wave * rng.uniform(0, 1) + hiss / hiss.std() * rng.uniform(0.2, 1), np.float32)
