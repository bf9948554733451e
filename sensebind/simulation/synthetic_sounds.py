"""Synthetic everyday sounds, made of tones, noise and rhythm. No recordings are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from sensebind.simulation import sound_models
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE

Wave = npt.NDArray[np.float64]
Noise = np.random.Generator
SOUND_DURATION = 4.0  # s


def sample_times(seconds: float = SOUND_DURATION) -> Wave:
    """Times of the samples in s."""
    return np.arange(round(seconds * AUDIO_SAMPLE_RATE)) / AUDIO_SAMPLE_RATE


def mix(waves: Iterable[Wave]) -> Wave:
    """The sum of waves of equal length."""
    return np.asarray(np.sum(list(waves), axis=0))


def band_noise(rng: Noise, low: float, high: float, seconds: float = SOUND_DURATION) -> Wave:
    """Noise between two frequencies (Hz), with standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * AUDIO_SAMPLE_RATE)))
    frequencies = np.fft.rfftfreq(round(seconds * AUDIO_SAMPLE_RATE), 1 / AUDIO_SAMPLE_RATE)
    spectrum *= 1 / (1 + (low / np.maximum(frequencies, 1)) ** 6) / (1 + (frequencies / high) ** 6)
    wave = np.fft.irfft(spectrum, round(seconds * AUDIO_SAMPLE_RATE))
    return np.asarray(wave / (wave.std() + 1e-12))


def harmonic_chirp(frequency: Wave, harmonics: int = 1, slope: float = 1.0) -> Wave:
    """A tone with a frequency (Hz) for each sample, and harmonics. The amplitude of harmonic k is k^-`slope`."""
    phase = 2 * np.pi * np.cumsum(frequency) / AUDIO_SAMPLE_RATE
    audible = [k for k in range(1, harmonics + 1) if np.mean(frequency) * k < 7800]
    return mix(np.sin(k * phase) / k**slope for k in audible)


def decaying_impulses(onsets: npt.ArrayLike, decay: float, body: Callable[[Wave], Wave]) -> Wave:
    """A wave of `SOUND_DURATION` s: from each onset (s) on, `body(t)` · exp(−t / `decay`) is added. `t` (s) is the time
    since this onset."""
    t, wave = sample_times(), np.zeros(len(sample_times()))
    for onset in np.atleast_1d(onsets):
        first = int(onset * AUDIO_SAMPLE_RATE)
        since = t[: max(0, len(t) - first)]
        wave[first:] += np.exp(-since / decay) * body(since)
    return wave


def jittered_onsets(rng: Noise, period: float, jitter: float = 0.05) -> Wave:
    """Sorted onsets (s), about `period` s apart. `jitter`: their standard deviation as a fraction of `period`."""
    count = int(SOUND_DURATION / period)
    onsets = rng.uniform(0, period) + period * np.arange(count) + rng.normal(0, jitter * period, count)
    return np.asarray(np.sort(np.abs(onsets)))


def repeated_calls(rng: Noise, length: float, pause: float, voice: Callable[[Wave], Wave]) -> Wave:
    """Repeated calls of about `length` s with pauses of about `pause` s. `voice` gets the phase 0..1 in a call."""
    wave, at = np.zeros(len(sample_times())), rng.uniform(0, pause)
    while at < SOUND_DURATION:
        count = round(length * rng.uniform(0.85, 1.15) * AUDIO_SAMPLE_RATE)
        phase = np.linspace(0, 1, count)
        made = voice(phase) * np.sin(np.pi * phase) ** 0.5
        first = int(at * AUDIO_SAMPLE_RATE)
        wave[first : first + count] += made[: max(0, len(wave) - first)]
        at += length + pause * rng.uniform(0.6, 1.5)
    return wave


def _random_frequency(rng: Noise, frequency: float, spread: float = 0.06) -> float:
    return float(frequency * np.exp(rng.normal(0, spread)))


def _call_synthesizer(
    rng: Noise, low: float, high: float, harmonics: int, shape: Callable[[Wave], Wave], rough: float = 0.0
) -> Callable[[Wave], Wave]:
    def make(phase: Wave) -> Wave:
        pitch = _random_frequency(rng, low) + (high - low) * shape(phase)
        wave = harmonic_chirp(pitch, harmonics, 0.7)
        return wave * (1 + rough * rng.standard_normal(len(phase)))

    return make


def _rising_contour(c: Wave) -> Wave:
    return c


def _arched_contour(c: Wave) -> Wave:
    return np.asarray(np.sin(np.pi * c))


def _motor_hum(
    rng: Noise, low: float, high: float, harmonics: int, flutter: float, hiss: float, top: float = 3000
) -> Wave:
    """A motor: harmonics of a varying speed, `low` to `high` Hz, and noise up to `top` Hz."""
    wander = np.interp(sample_times(), np.linspace(0, SOUND_DURATION, 9), rng.uniform(1 - flutter, 1 + flutter, 9))
    return harmonic_chirp(rng.uniform(low, high) * wander, harmonics, 0.6) + hiss * band_noise(rng, 200, top)


SYNTHESIZERS: dict[str, Callable[[Noise], Wave]] = {
    "knocking on a door": lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.25, 0.5)),
        0.03,
        lambda s: np.sin(2 * np.pi * 180 * s) + 0.5 * n.standard_normal(len(s)),
    ),
    "breaking glass": lambda n: (
        decaying_impulses(n.uniform(0.2, 1.5), 0.02, lambda s: n.standard_normal(len(s)))
        + 0.2
        * mix(
            decaying_impulses(1.0 + o, 0.06, lambda s, p=p: np.sin(2 * np.pi * p * s))
            for o, p in zip(n.exponential(0.2, 24), n.uniform(2500, 7500, 24), strict=True)
        )
    ),
    "an alarm beeping": lambda n: (
        harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 1500, 0.35)), 2)
        * (sample_times() * n.uniform(1.5, 4) % 1 < 0.5)
    ),
    "a telephone ringing": lambda n: (
        (
            harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 440)), 3)
            + harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 480)), 3)
        )
        * (sample_times() % 2 < 1.0)
        * (1 + np.sin(2 * np.pi * 20 * sample_times()))
    ),
    "a church bell": lambda n: decaying_impulses(
        jittered_onsets(n, 1.6),
        1.2,
        lambda s, f=_random_frequency(n, 330, 0.3): mix(
            np.sin(2 * np.pi * f * k * s) / k for k in (0.5, 1, 1.2, 1.5, 2, 2.6)
        ),
    ),
    "a motorcycle": lambda n: _motor_hum(n, 50, 110, 40, 0.35, 0.5),
    "a vacuum cleaner": lambda n: _motor_hum(n, 200, 320, 8, 0.02, 2.0, 6000),
    "a fan": lambda n: _motor_hum(n, 90, 130, 3, 0.01, 2.5, 1500),
    "an electric drill": lambda n: _motor_hum(n, 300, 500, 25, 0.15, 1.0, 7000),
    "a running pump": lambda n: (
        _motor_hum(n, 45, 60, 12, 0.01, 0.8) * (1 + 0.6 * np.sin(2 * np.pi * n.uniform(3, 9) * sample_times()))
    ),
    "a sewing machine": lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.07, 0.12)), 0.01, lambda s: n.standard_normal(len(s))
    ),
    "hammering": lambda n: decaying_impulses(
        jittered_onsets(n, 0.6),
        0.05,
        lambda s: np.sin(2 * np.pi * 1900 * s) + np.sin(2 * np.pi * 3100 * s) + n.standard_normal(len(s)),
    ),
    "footsteps": lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.45, 0.65)), 0.05, lambda s: band_noise(n, 60, 900)[: len(s)]
    ),
    "a door slamming": lambda n: decaying_impulses(
        jittered_onsets(n, 2.0), 0.12, lambda s: np.sin(2 * np.pi * 70 * s) * 3 + band_noise(n, 40, 500)[: len(s)]
    ),
    "water running from a tap": lambda n: (
        band_noise(n, 400, 6500)
        * (1 + 0.2 * np.interp(sample_times(), np.linspace(0, SOUND_DURATION, 60), n.standard_normal(60)))
    ),
    "a waterfall": lambda n: band_noise(n, 100, 3500),
    "boiling water": lambda n: mix(
        decaying_impulses(o, 0.02, lambda s, p=p: np.sin(2 * np.pi * p * (1 + 4 * s) * s))
        for o, p in zip(n.uniform(0, SOUND_DURATION, 80), n.uniform(300, 1100, 80), strict=True)
    ),
    "birds singing": lambda n: repeated_calls(n, 0.12, 0.12, _call_synthesizer(n, 3000, 5200, 1, _arched_contour)),
    "a cat meowing": lambda n: repeated_calls(n, 0.8, 0.7, _call_synthesizer(n, 500, 850, 9, _arched_contour)),
    "a cow mooing": lambda n: repeated_calls(n, 1.6, 0.8, _call_synthesizer(n, 110, 180, 25, _arched_contour, 0.1)),
    "a sheep bleating": lambda n: repeated_calls(
        n, 0.9, 0.6, lambda c: harmonic_chirp(260 + 25 * np.sin(2 * np.pi * 9 * c), 20, 0.6)
    ),
    "people talking": lambda n: repeated_calls(
        n,
        0.16,
        0.06,
        lambda c: (
            harmonic_chirp(_random_frequency(n, 130, 0.2) + 25 * np.sin(2 * np.pi * 2 * c), 25, 0.5)
            * (1 + 0.5 * np.sin(2 * np.pi * n.uniform(1, 4) * c))
        ),
    ),
    "a piano": lambda n: mix(
        decaying_impulses(o, 0.5, lambda s, f=f: mix(np.sin(2 * np.pi * f * k * s) / k**1.5 for k in range(1, 6)))
        for o, f in zip(jittered_onsets(n, 0.35), 220 * 2 ** (n.integers(0, 25, 12) / 12), strict=False)
    ),
    "drums": lambda n: (
        decaying_impulses(jittered_onsets(n, 0.5), 0.09, lambda s: np.sin(2 * np.pi * 90 * s))
        + decaying_impulses(jittered_onsets(n, 0.25), 0.03, lambda s: 0.5 * n.standard_normal(len(s)))
    ),
    "an electric hum": lambda n: harmonic_chirp(np.full(len(sample_times()), 100.0), 6),
    "hiss": lambda n: band_noise(n, 300, 7800),
    "Dog bark": lambda n: repeated_calls(n, 0.16, 0.5, _call_synthesizer(n, 420, 300, 14, _rising_contour, 0.35)),
    "Baby cry": lambda n: repeated_calls(n, 1.0, 0.35, _call_synthesizer(n, 380, 560, 14, _arched_contour, 0.1)),
    "Clock tick": lambda n: decaying_impulses(
        np.arange(n.uniform(0, 0.3), SOUND_DURATION, n.choice([0.25, 0.5, 1.0])),
        0.008,
        lambda s, f=n.uniform(1500, 4500): np.sin(2 * np.pi * f * s) + n.standard_normal(len(s)),
    ),
    "Fire crackling": lambda n: (
        decaying_impulses(
            np.sort(n.uniform(0, SOUND_DURATION, n.integers(20, 90))),
            0.004,
            lambda s: n.exponential(1) * n.standard_normal(len(s)),
        )
        + 0.05 * band_noise(n, 60, 800)
    ),
    # YAMNet, the starter's audio encoder, names these correctly: see docs/simulation.md.
    "a person speaking": lambda n: sound_models.speech(n, SOUND_DURATION),
    "a cat's meows": lambda n: sound_models.meows(n, SOUND_DURATION),
    "pouring coffee": lambda n: sound_models.pouring(n, SOUND_DURATION),
    "a rocket engine": lambda n: sound_models.rocket_engine(n, SOUND_DURATION),
}


def synthesizer_named(name: str) -> Callable[[Noise], Wave]:
    """The synthesizer of a sound. Raises `KeyError`."""
    return SYNTHESIZERS[name]
