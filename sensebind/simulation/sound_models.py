"""Sounds that are computed from models of their source: a voice, a cat, a liquid, a rocket engine.

A voice is a train of glottal pulses, filtered by the resonances (formants) of the vocal tract. Each function returns
float64 (N,) at 16 kHz for `seconds`. Its scale is arbitrary. No recordings are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from sensebind.simulation.messages import AUDIO_SAMPLE_RATE, Floats

Noise = np.random.Generator
FILTER_BLOCK = 160  # samples for which the formants are constant
# The first three formants of eight vowels of a male voice, in Hz (rounded from Peterson and Barney, 1952).
VOWEL_FORMANTS = np.array(
    [[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480],
     [570, 840, 2410], [660, 1720, 2410], [490, 1350, 1690], [640, 1190, 2390]], float,
)  # fmt: skip
FOURTH_FORMANT = 3500.0  # Hz
VOICE_BANDWIDTHS = (80.0, 90.0, 120.0, 180.0)  # Hz
VOICE_PITCH = 120.0  # Hz
MEOW_PITCH, MEOW_DURATION, MEOW_PAUSE = 736.0, 0.95, 0.6  # Hz, s, s
MEOW_BANDWIDTHS = (244.0, 313.0, 435.0, 696.0)  # Hz
BUBBLES_PER_SECOND, BUBBLE_FREQUENCIES = 55, (330.0, 4700.0)  # Hz
STREAM_SPECTRUM = ((90, -36), (150, -6), (180, 0), (5000, 0), (6200, -6), (8000, -24))  # Hz, dB
CUP_RESONANCE, CUP_BANDWIDTH = (450.0, 900.0), 80.0  # Hz: the pitch of a cup rises while it is filled
ROCKET_SPECTRUM = ((30, -7), (100, -18), (300, -11), (1000, -25), (3000, -24), (8000, -33))  # Hz, dB
PUMP_FREQUENCY, PUMP_LEVEL = 3550.0, 0.34  # Hz; amplitude of the whine, in standard deviations of the roar


def speech(rng: Noise, seconds: float) -> Floats:
    """Syllables of random vowels and consonants, about five a second, with short pauses. It has no words."""
    count, at = _count(seconds), 0.0
    vowel_times, vowels = [], []
    level_times, levels = [0.0], [0.0]
    pitch_times, pitches = [], []
    consonants = np.zeros(count)
    while at < seconds:
        if rng.uniform() < 0.12:
            at += rng.uniform(0.15, 0.35)
        length, onset = rng.uniform(0.13, 0.26), rng.uniform(0.03, 0.07)
        first = VOWEL_FORMANTS[rng.integers(len(VOWEL_FORMANTS))]
        last = VOWEL_FORMANTS[rng.integers(len(VOWEL_FORMANTS))] if rng.uniform() < 0.3 else first
        vowel_times += [at + 0.3 * length, at + 0.85 * length]
        vowels += [first, last]
        kind, strength = ("nasal", "fricative", "plosive")[rng.integers(3)], rng.uniform(0.6, 1)
        between = 0.35 if kind == "nasal" else 0.02
        level_times += [at, at + onset, at + onset + 0.02, at + 0.8 * length, at + length]
        levels += [between, between, strength, 0.8 * strength, between]
        pitch_times.append(at + length / 2)
        pitches.append(VOICE_PITCH * np.exp(rng.normal(0, 0.12)))
        _add_consonant(consonants, kind, at, at + onset, rng)
        at += length
    t = np.arange(count) / AUDIO_SAMPLE_RATE
    tracks = [np.interp(t, vowel_times, values) for values in np.stack(vowels).T]
    tracks.append(np.full(count, FOURTH_FORMANT))
    flutter = np.interp(t, np.arange(0, seconds, 0.01), rng.standard_normal(len(np.arange(0, seconds, 0.01))))
    pitch = np.interp(t, pitch_times, pitches) * (1 + 0.01 * np.sin(2 * np.pi * 5 * t)) * (1 + 0.005 * flutter)
    source = glottal_pulses(pitch) + 0.03 * rng.standard_normal(count)
    voiced = resonate(source * np.interp(t, level_times, levels), tracks, VOICE_BANDWIDTHS)
    return np.asarray(voiced / voiced.std() + consonants)


def _add_consonant(wave: Floats, kind: str, start: float, end: float, rng: Noise) -> None:
    """Add the noise of a consonant between two times in s: a hiss, or a burst in the last 20 ms."""
    first, last = round(start * AUDIO_SAMPLE_RATE), min(round(end * AUDIO_SAMPLE_RATE), len(wave))
    if kind == "plosive":
        first = max(first, last - AUDIO_SAMPLE_RATE // 50)
    if kind == "nasal" or last <= first:
        return
    noise = rng.standard_normal(last - first)
    if kind == "fricative":
        wave[first:last] += 0.25 * np.diff(noise, prepend=0) * np.hanning(last - first)
    else:
        wave[first:last] += 0.35 * noise * np.linspace(1, 0.2, last - first)


def meows(rng: Noise, seconds: float) -> Floats:
    """A cat that meows about every 1.5 s. The mouth opens and closes in each meow."""
    wave, at = np.zeros(_count(seconds)), 0.02
    while at < seconds - 0.3:
        length = MEOW_DURATION * rng.uniform(0.9, 1.1)
        phase = np.linspace(0, 1, _count(length))
        pitch = MEOW_PITCH * np.exp(rng.normal(0, 0.04)) * np.interp(phase, [0, 0.2, 0.45, 1], [0.9, 1.03, 1.04, 0.9])
        pitch = pitch * (1 + 0.014 * np.sin(2 * np.pi * 6 * length * phase))
        tracks = [
            np.interp(phase, [0, 0.2, 0.5, 0.8, 1], [350, 900, 1500, 1125, 400]),
            np.interp(phase, [0, 0.15, 0.5, 0.8, 1], [2777, 2777, 2218, 1545, 1345]),
            np.interp(phase, [0, 0.5, 1], [3300, 3100, 2700]),
            np.full(len(phase), 4800.0),
        ]
        level = np.interp(phase, [0, 0.1, 0.4, 0.75, 1], [0, 0.6, 1, 0.85, 0])
        source = glottal_pulses(pitch) * (1 + 0.2 * rng.standard_normal(len(phase)))
        source = source + 0.3 * rng.standard_normal(len(phase))
        meow = resonate(source * level, tracks, MEOW_BANDWIDTHS)
        first = round(at * AUDIO_SAMPLE_RATE)
        wave[first : first + len(meow)] += meow[: len(wave) - first] / np.abs(meow).max()
        at += length + MEOW_PAUSE * rng.uniform(0.6, 1.2)
    return wave


def pouring(rng: Noise, seconds: float) -> Floats:
    """A liquid that is poured into a cup: the decaying tones of bubbles, and the noise of the stream in the cup."""
    bubbles = np.zeros(_count(seconds))
    for onset in rng.uniform(0, seconds, round(BUBBLES_PER_SECOND * seconds)):
        frequency, decay = np.exp(rng.uniform(*np.log(BUBBLE_FREQUENCIES))), 0.11 * rng.uniform(0.03, 0.12)
        since = np.arange(_count(6 * decay)) / AUDIO_SAMPLE_RATE
        tone = np.sin(2 * np.pi * frequency * (1 + rng.uniform(0, 6.5) * since) * since)
        bubble = rng.exponential(1) * np.exp(-since / decay) * tone
        first = int(onset * AUDIO_SAMPLE_RATE)
        bubbles[first : first + len(bubble)] += bubble[: len(bubbles) - first]
    stream = shaped_noise(rng, seconds, STREAM_SPECTRUM)
    in_cup = resonate(stream, [np.geomspace(*CUP_RESONANCE, len(stream))], [CUP_BANDWIDTH])
    wave = bubbles / bubbles.std() + 1.05 * stream + 0.5 * in_cup / in_cup.std()
    t = np.arange(len(wave)) / AUDIO_SAMPLE_RATE
    drift = 6 * np.cumsum(rng.standard_normal(len(t))) / AUDIO_SAMPLE_RATE**0.5
    return np.asarray(wave * (1 + 0.27 * np.sin(2 * np.pi * 14 * t + drift)))


def rocket_engine(rng: Noise, seconds: float) -> Floats:
    """The roar of a jet of gas, whose level varies slowly, and the whine of the pumps."""
    roar = shaped_noise(rng, seconds, ROCKET_SPECTRUM)
    t = np.arange(len(roar)) / AUDIO_SAMPLE_RATE
    points = max(2, round(2 * seconds))
    roar = roar * np.exp(0.2 * np.interp(t, np.linspace(0, seconds, points), rng.standard_normal(points)))
    drift = 0.5 * np.cumsum(rng.standard_normal(len(t))) / AUDIO_SAMPLE_RATE**0.5
    whine = np.sin(2 * np.pi * PUMP_FREQUENCY * t + drift) + 0.5 * np.sin(2 * np.pi * 1.31 * PUMP_FREQUENCY * t)
    return np.asarray(roar + PUMP_LEVEL * whine)


def glottal_pulses(pitch: Floats) -> Floats:
    """The change of the air flow through a glottis (Rosenberg, 1971) that vibrates at `pitch` (N,) in Hz; standard
    deviation 1."""
    opening, closing = 0.4, 0.16  # fractions of a period
    phase = np.cumsum(pitch) / AUDIO_SAMPLE_RATE % 1
    rising = 0.5 * (1 - np.cos(np.pi * phase / opening))
    falling = np.cos(np.pi * (phase - opening) / (2 * closing))
    flow = np.where(phase < opening, rising, np.where(phase < opening + closing, falling, 0))
    change = np.diff(flow, prepend=0)
    return np.asarray(change / (change.std() + 1e-9))


def resonate(source: Floats, formants: Sequence[Floats], bandwidths: Sequence[float]) -> Floats:
    """Filter `source` (N,) by resonances in series, whose frequencies (Hz) `formants`, each (N,), change slowly."""
    wave = source
    for frequencies, bandwidth in zip(formants, bandwidths, strict=True):
        filtered, state, radius = np.empty_like(wave), np.zeros(2), np.exp(-np.pi * bandwidth / AUDIO_SAMPLE_RATE)
        for first in range(0, len(wave), FILTER_BLOCK):
            middle = frequencies[min(first + FILTER_BLOCK // 2, len(frequencies) - 1)]
            poles = [1, -2 * radius * np.cos(2 * np.pi * middle / AUDIO_SAMPLE_RATE), radius**2]
            part = slice(first, first + FILTER_BLOCK)
            filtered[part], state = lfilter([sum(poles)], poles, wave[part], zi=state)
        wave = filtered
    return wave


def shaped_noise(rng: Noise, seconds: float, spectrum: npt.ArrayLike) -> Floats:
    """Noise with standard deviation 1, whose `spectrum` is points (Hz, dB) between which dB are linear in log Hz."""
    points, count = np.asarray(spectrum, float), _count(seconds)
    frequencies = np.fft.rfftfreq(count, 1 / AUDIO_SAMPLE_RATE)
    decibels = np.interp(np.log(np.maximum(frequencies, 20)), np.log(points[:, 0]), points[:, 1])
    wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * 10 ** (decibels / 20), count)
    return np.asarray(wave / wave.std())


def _count(seconds: float) -> int:
    """The number of samples in a time in s."""
    return round(seconds * AUDIO_SAMPLE_RATE)
