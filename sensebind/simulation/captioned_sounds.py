"""Sounds with captions: what holds one, the captions of ESC-10's classes and of quiet, and the noise of a robot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

RATE = 16_000  # Hz
QUIET = (
    "silence", "a quiet room", "nothing to hear", "a robot's motor", "quiet background noise",
    "the noise of a robot's motors",
)  # fmt: skip

# ESC-10's folders → what people may say of such a sound.
ESC10 = {
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
class Captioned:
    """A sound float32 (N,) at 16 kHz, all phrases that fit it, and the stretch of data that it is held out with."""

    sound: Floats
    phrases: tuple[str, ...]
    block: int


def robot_noise(noise: Noise, samples: int) -> Floats:
    """float32 (samples,), any level: motors that speed up and slow down, over wind or a fan, or hiss."""
    t = np.arange(samples) / RATE
    wave = np.zeros(samples)
    if noise.random() < 0.7:
        speed = noise.uniform(30, 260) * (1 + noise.uniform(0, 0.5) * np.sin(2 * np.pi * noise.uniform(0.05, 0.6) * t))
        phase = 2 * np.pi * np.cumsum(speed) / RATE
        for harmonic in range(1, int(noise.integers(2, 9))):
            wave += noise.uniform(0, 1) / harmonic * np.sin(harmonic * phase + noise.uniform(0, 6))
        wave /= wave.std() + 1e-9
    spectrum = np.fft.rfft(noise.standard_normal(samples))
    spectrum /= np.maximum(np.arange(len(spectrum)), 20) ** noise.uniform(0, 1.2)
    hiss = np.fft.irfft(spectrum, samples)
    return np.asarray(wave * noise.uniform(0, 1) + hiss / hiss.std() * noise.uniform(0.2, 1), np.float32)
