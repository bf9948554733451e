"""Synthetic everyday sounds with captions, made of tones, noise and rhythm. No recordings are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from sensebind.simulation.captioned_sounds import (
    ESC10_CAPTIONS,
    QUIET_CAPTIONS,
    SAMPLE_RATE,
    CaptionedSound,
    robot_noise,
)

Wave = npt.NDArray[np.float64]
Noise = np.random.Generator
SOUND_DURATION = 4.0  # s


def sample_times(seconds: float = SOUND_DURATION) -> Wave:
    """Times of the samples in s."""
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def mix(waves: Iterable[Wave]) -> Wave:
    """The sum of waves of equal length."""
    return np.asarray(np.sum(list(waves), axis=0))


def band_noise(rng: Noise, low: float, high: float, seconds: float = SOUND_DURATION) -> Wave:
    """Noise between two frequencies (Hz), with standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * SAMPLE_RATE)))
    frequencies = np.fft.rfftfreq(round(seconds * SAMPLE_RATE), 1 / SAMPLE_RATE)
    spectrum *= 1 / (1 + (low / np.maximum(frequencies, 1)) ** 6) / (1 + (frequencies / high) ** 6)
    wave = np.fft.irfft(spectrum, round(seconds * SAMPLE_RATE))
    return np.asarray(wave / (wave.std() + 1e-12))


def harmonic_chirp(frequency: Wave, harmonics: int = 1, slope: float = 1.0) -> Wave:
    """A tone with a frequency (Hz) for each sample, and harmonics. The amplitude of harmonic k is k^-`slope`."""
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    audible = [k for k in range(1, harmonics + 1) if np.mean(frequency) * k < 7800]
    return mix(np.sin(k * phase) / k**slope for k in audible)


def decaying_impulses(onsets: npt.ArrayLike, decay: float, body: Callable[[Wave], Wave]) -> Wave:
    """A wave of `SOUND_DURATION` s: from each onset (s) on, `body(t)` · exp(−t / `decay`) is added. `t` (s) is the time
    since this onset."""
    t, wave = sample_times(), np.zeros(len(sample_times()))
    for onset in np.atleast_1d(onsets):
        first = int(onset * SAMPLE_RATE)
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
        count = round(length * rng.uniform(0.85, 1.15) * SAMPLE_RATE)
        phase = np.linspace(0, 1, count)
        made = voice(phase) * np.sin(np.pi * phase) ** 0.5
        first = int(at * SAMPLE_RATE)
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


def _falling_contour(c: Wave) -> Wave:
    return 1 - c


def _arched_contour(c: Wave) -> Wave:
    return np.asarray(np.sin(np.pi * c))


def _motor_hum(
    rng: Noise, low: float, high: float, harmonics: int, flutter: float, hiss: float, top: float = 3000
) -> Wave:
    """A motor: harmonics of a varying speed, `low` to `high` Hz, and noise up to `top` Hz."""
    wander = np.interp(sample_times(), np.linspace(0, SOUND_DURATION, 9), rng.uniform(1 - flutter, 1 + flutter, 9))
    return harmonic_chirp(rng.uniform(low, high) * wander, harmonics, 0.6) + hiss * band_noise(rng, 200, top)


SYNTHESIZERS: dict[tuple[str, ...], Callable[[Noise], Wave]] = {
    ("knocking on a door", "someone knocks", "knocks on wood"): lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.25, 0.5)),
        0.03,
        lambda s: np.sin(2 * np.pi * 180 * s) + 0.5 * n.standard_normal(len(s)),
    ),
    ("breaking glass", "glass breaking", "a window shatters"): lambda n: (
        decaying_impulses(n.uniform(0.2, 1.5), 0.02, lambda s: n.standard_normal(len(s)))
        + 0.2
        * mix(
            decaying_impulses(1.0 + o, 0.06, lambda s, p=p: np.sin(2 * np.pi * p * s))
            for o, p in zip(n.exponential(0.2, 24), n.uniform(2500, 7500, 24), strict=True)
        )
    ),
    ("an alarm beeping", "a smoke alarm", "beeping alarm"): lambda n: (
        harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 1500, 0.35)), 2)
        * (sample_times() * n.uniform(1.5, 4) % 1 < 0.5)
    ),
    ("a siren", "an ambulance with its siren on", "a police siren"): lambda n: harmonic_chirp(
        900 + 400 * np.sin(2 * np.pi * n.uniform(0.3, 2) * sample_times()), 3
    ),
    ("a telephone ringing", "a ringing phone"): lambda n: (
        (
            harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 440)), 3)
            + harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 480)), 3)
        )
        * (sample_times() % 2 < 1.0)
        * (1 + np.sin(2 * np.pi * 20 * sample_times()))
    ),
    ("a church bell", "a bell ringing", "a bell tolls"): lambda n: decaying_impulses(
        jittered_onsets(n, 1.6),
        1.2,
        lambda s, f=_random_frequency(n, 330, 0.3): mix(
            np.sin(2 * np.pi * f * k * s) / k for k in (0.5, 1, 1.2, 1.5, 2, 2.6)
        ),
    ),
    ("a car horn", "honking cars", "a horn"): lambda n: repeated_calls(
        n, 0.8, 0.5, _call_synthesizer(n, 420, 422, 8, _rising_contour)
    ),
    ("whistling", "a person whistles"): lambda n: repeated_calls(
        n, 0.5, 0.3, _call_synthesizer(n, 1200, 2200, 1, _arched_contour)
    ),
    ("a car engine idling", "a running engine", "a car"): lambda n: _motor_hum(n, 25, 45, 30, 0.05, 0.4),
    ("a motorcycle", "a motorbike revving"): lambda n: _motor_hum(n, 50, 110, 40, 0.35, 0.5),
    ("a vacuum cleaner", "vacuuming the floor"): lambda n: _motor_hum(n, 200, 320, 8, 0.02, 2.0, 6000),
    ("a fan", "an air conditioner", "ventilation"): lambda n: _motor_hum(n, 90, 130, 3, 0.01, 2.5, 1500),
    ("an electric drill", "drilling into a wall"): lambda n: _motor_hum(n, 300, 500, 25, 0.15, 1.0, 7000),
    ("a running pump", "a machine running", "a compressor"): lambda n: (
        _motor_hum(n, 45, 60, 12, 0.01, 0.8) * (1 + 0.6 * np.sin(2 * np.pi * n.uniform(3, 9) * sample_times()))
    ),
    ("a sewing machine", "a printer printing"): lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.07, 0.12)), 0.01, lambda s: n.standard_normal(len(s))
    ),
    ("hammering", "a hammer hits a nail"): lambda n: decaying_impulses(
        jittered_onsets(n, 0.6),
        0.05,
        lambda s: np.sin(2 * np.pi * 1900 * s) + np.sin(2 * np.pi * 3100 * s) + n.standard_normal(len(s)),
    ),
    ("footsteps", "a person walking", "steps on the floor"): lambda n: decaying_impulses(
        jittered_onsets(n, n.uniform(0.45, 0.65)), 0.05, lambda s: band_noise(n, 60, 900)[: len(s)]
    ),
    ("a creaking door", "a door creaks"): lambda n: repeated_calls(
        n,
        1.2,
        0.5,
        lambda c: harmonic_chirp(200 + 300 * c + 60 * n.standard_normal(len(c)).cumsum() / len(c) ** 0.5, 12, 0.4),
    ),
    ("a door slamming", "something falls to the floor", "a thud"): lambda n: decaying_impulses(
        jittered_onsets(n, 2.0), 0.12, lambda s: np.sin(2 * np.pi * 70 * s) * 3 + band_noise(n, 40, 500)[: len(s)]
    ),
    ("water running from a tap", "a shower", "pouring water"): lambda n: (
        band_noise(n, 400, 6500)
        * (1 + 0.2 * np.interp(sample_times(), np.linspace(0, SOUND_DURATION, 60), n.standard_normal(60)))
    ),
    ("a waterfall", "a river rushing"): lambda n: band_noise(n, 100, 3500),
    ("boiling water", "bubbles", "a bubbling kettle"): lambda n: mix(
        decaying_impulses(o, 0.02, lambda s, p=p: np.sin(2 * np.pi * p * (1 + 4 * s) * s))
        for o, p in zip(n.uniform(0, SOUND_DURATION, 80), n.uniform(300, 1100, 80), strict=True)
    ),
    ("thunder", "a thunderstorm"): lambda n: (
        band_noise(n, 20, 200) * np.exp(-((sample_times() - n.uniform(0.5, 2)) % 4) / 1.2) * 3
    ),
    ("wind", "wind blowing", "a storm"): lambda n: (
        band_noise(n, 100, 700) * np.interp(sample_times(), np.linspace(0, SOUND_DURATION, 7), n.uniform(0.1, 1, 7))
    ),
    ("applause", "people clapping", "a clapping crowd"): lambda n: mix(
        decaying_impulses(jittered_onsets(n, n.uniform(0.2, 0.35), 0.2), 0.008, lambda s: n.standard_normal(len(s)))
        for _ in range(12)
    ),
    ("typing on a keyboard", "a computer keyboard"): lambda n: decaying_impulses(
        np.sort(n.uniform(0, SOUND_DURATION, 24)), 0.006, lambda s: band_noise(n, 1500, 6000)[: len(s)]
    ),
    ("a mouse click", "a switch clicks"): lambda n: decaying_impulses(
        jittered_onsets(n, 1.1, 0.3), 0.002, lambda s: n.standard_normal(len(s))
    ),
    ("birds singing", "chirping birds", "a songbird"): lambda n: repeated_calls(
        n, 0.12, 0.12, _call_synthesizer(n, 3000, 5200, 1, _arched_contour)
    ),
    ("crickets", "chirping insects"): lambda n: (
        harmonic_chirp(np.full(len(sample_times()), _random_frequency(n, 4500)), 1)
        * (sample_times() * n.uniform(15, 25) % 1 < 0.4)
        * (sample_times() * 2 % 1 < 0.7)
    ),
    ("a frog croaking", "frogs"): lambda n: repeated_calls(
        n, 0.25, 0.4, _call_synthesizer(n, 110, 150, 30, _rising_contour, 0.5)
    ),
    ("a cat meowing", "a meowing cat", "cat"): lambda n: repeated_calls(
        n, 0.8, 0.7, _call_synthesizer(n, 500, 850, 9, _arched_contour)
    ),
    ("a cow mooing", "cow"): lambda n: repeated_calls(
        n, 1.6, 0.8, _call_synthesizer(n, 110, 180, 25, _arched_contour, 0.1)
    ),
    ("a sheep bleating", "sheep", "a goat"): lambda n: repeated_calls(
        n, 0.9, 0.6, lambda c: harmonic_chirp(260 + 25 * np.sin(2 * np.pi * 9 * c), 20, 0.6)
    ),
    ("an owl hooting", "owl"): lambda n: repeated_calls(
        n, 0.5, 0.6, _call_synthesizer(n, 340, 380, 2, _arched_contour)
    ),
    ("a crow cawing", "crow"): lambda n: repeated_calls(
        n, 0.4, 0.4, _call_synthesizer(n, 480, 620, 16, _falling_contour, 0.7)
    ),
    ("a duck quacking", "ducks", "a goose"): lambda n: repeated_calls(
        n, 0.18, 0.2, _call_synthesizer(n, 230, 260, 25, _falling_contour, 0.5)
    ),
    ("a wolf howling", "a howling wolf"): lambda n: repeated_calls(
        n, 2.2, 0.6, _call_synthesizer(n, 350, 650, 5, _arched_contour)
    ),
    ("a horse galloping", "hooves of a horse"): lambda n: mix(
        decaying_impulses(o + jittered_onsets(n, 0.5, 0.02), 0.02, lambda s: band_noise(n, 500, 2500)[: len(s)])
        for o in (0.0, 0.12, 0.22)
    ),
    ("people talking", "speech", "a man speaking", "voices"): lambda n: repeated_calls(
        n,
        0.16,
        0.06,
        lambda c: (
            harmonic_chirp(_random_frequency(n, 130, 0.2) + 25 * np.sin(2 * np.pi * 2 * c), 25, 0.5)
            * (1 + 0.5 * np.sin(2 * np.pi * n.uniform(1, 4) * c))
        ),
    ),
    ("laughter", "a person laughing"): lambda n: repeated_calls(
        n, 0.12, 0.09, _call_synthesizer(n, 330, 250, 14, _rising_contour, 0.3)
    ),
    ("coughing", "a person coughs"): lambda n: decaying_impulses(
        jittered_onsets(n, 0.7, 0.2), 0.09, lambda s: band_noise(n, 300, 2500)[: len(s)]
    ),
    ("snoring", "a sleeping person snores"): lambda n: repeated_calls(
        n, 1.3, 0.9, lambda c: harmonic_chirp(np.full(len(c), 45.0), 40, 0.3) * (1 + 0.8 * n.standard_normal(len(c)))
    ),
    ("breathing", "heavy breathing"): lambda n: repeated_calls(n, 1.1, 0.5, lambda c: 0.3 * n.standard_normal(len(c))),
    ("a piano", "piano music", "music"): lambda n: mix(
        decaying_impulses(o, 0.5, lambda s, f=f: mix(np.sin(2 * np.pi * f * k * s) / k**1.5 for k in range(1, 6)))
        for o, f in zip(jittered_onsets(n, 0.35), 220 * 2 ** (n.integers(0, 25, 12) / 12), strict=False)
    ),
    ("a guitar", "strumming a guitar"): lambda n: mix(
        decaying_impulses(o + 0.01 * i, 0.6, lambda s, f=f: mix(np.sin(2 * np.pi * f * k * s) / k for k in range(1, 9)))
        for o in jittered_onsets(n, 0.7)
        for i, f in enumerate(110 * 2 ** (np.array([0, 7, 12, 16]) / 12))
    ),
    ("drums", "a drum beat"): lambda n: (
        decaying_impulses(jittered_onsets(n, 0.5), 0.09, lambda s: np.sin(2 * np.pi * 90 * s))
        + decaying_impulses(jittered_onsets(n, 0.25), 0.03, lambda s: 0.5 * n.standard_normal(len(s)))
    ),
    ("a flute", "flute music"): lambda n: repeated_calls(
        n, 0.5, 0.05, _call_synthesizer(n, 600, 700, 3, _rising_contour)
    ),
    ("a train", "a train passing on its rails"): lambda n: (
        band_noise(n, 50, 900)
        + 2
        * mix(
            decaying_impulses(o + jittered_onsets(n, 0.9, 0.01), 0.03, lambda s: n.standard_normal(len(s)))
            for o in (0.0, 0.2)
        )
    ),
    ("an airplane", "a jet flying over"): lambda n: (
        band_noise(n, 80, 1800) + 0.5 * harmonic_chirp(np.full(len(sample_times()), 900.0), 2)
    ),
    ("an electric hum", "a transformer humming"): lambda n: harmonic_chirp(np.full(len(sample_times()), 100.0), 6),
    ("hiss", "radio static", "white noise"): lambda n: band_noise(n, 300, 7800),
}
# The classes of ESC-10, in their own table so that a class can be left out of training.
ESC10_SYNTHESIZERS: dict[str, Callable[[Noise], Wave]] = {
    "Dog bark": lambda n: repeated_calls(n, 0.16, 0.5, _call_synthesizer(n, 420, 300, 14, _rising_contour, 0.35)),
    "Rain": lambda n: (
        0.5 * band_noise(n, 800, 7800)
        + 2
        * np.convolve(
            (n.random(len(sample_times())) < 0.004) * n.exponential(1, len(sample_times())),
            np.exp(-np.arange(60) / 12),
            "same",
        )
    ),
    "Sea waves": lambda n: (
        band_noise(n, 80, 3500)
        * (0.15 + np.clip(np.sin(2 * np.pi * sample_times() / n.uniform(4, 8) + n.uniform(0, 6)), 0, 1) ** 1.5)
    ),
    "Baby cry": lambda n: repeated_calls(n, 1.0, 0.35, _call_synthesizer(n, 380, 560, 14, _arched_contour, 0.1)),
    "Clock tick": lambda n: decaying_impulses(
        np.arange(n.uniform(0, 0.3), SOUND_DURATION, n.choice([0.25, 0.5, 1.0])),
        0.008,
        lambda s, f=n.uniform(1500, 4500): np.sin(2 * np.pi * f * s) + n.standard_normal(len(s)),
    ),
    "Person sneeze": lambda n: (
        decaying_impulses(n.uniform(1, 2.5), 0.12, lambda s: band_noise(n, 900, 7000)[: len(s)])
        + 0.5 * repeated_calls(n, 0.5, 9.0, _call_synthesizer(n, 250, 420, 10, _rising_contour, 0.4))
    ),
    "Helicopter": lambda n: (
        decaying_impulses(
            np.arange(0, SOUND_DURATION, 1 / n.uniform(11, 22)), 0.025, lambda s: band_noise(n, 40, 700)[: len(s)]
        )
        + 0.3 * band_noise(n, 100, 2500)
    ),
    "Chainsaw": lambda n: (
        _motor_hum(n, 90, 170, 40, 0.3, 1.0, 7500) * (1 + 0.4 * n.standard_normal(len(sample_times())))
    ),
    "Rooster": lambda n: repeated_calls(
        n,
        1.5,
        1.2,
        lambda c: (
            harmonic_chirp(np.interp(c, [0, 0.15, 0.2, 0.5, 0.8, 1], [500, 750, 650, 950, 900, 450]), 14, 0.5)
            * (1 - 0.9 * (abs((c * 4) % 1 - 0.05) < 0.05) * (c < 0.6))
        ),
    ),
    "Fire crackling": lambda n: (
        decaying_impulses(
            np.sort(n.uniform(0, SOUND_DURATION, n.integers(20, 90))),
            0.004,
            lambda s: n.exponential(1) * n.standard_normal(len(s)),
        )
        + 0.05 * band_noise(n, 60, 800)
    ),
}


def synthesizer_named(name: str) -> Callable[[Noise], Wave]:
    """The synthesizer of the sound with the first caption, or the class of ESC-10, `name`. Raises `KeyError`."""
    return (
        ESC10_SYNTHESIZERS[name]
        if name in ESC10_SYNTHESIZERS
        else {phrases[0]: make for phrases, make in SYNTHESIZERS.items()}[name]
    )


def synthetic_sounds(variants: int, seed: int = 0) -> list[CaptionedSound]:
    """`variants` of each sound, and three of robot noise for each variant. A block is one variant of all sounds."""
    of_esc10 = {
        (name, name.lower(), f"the sound of {name.lower()}", *ESC10_CAPTIONS[name]): m
        for name, m in ESC10_SYNTHESIZERS.items()
    }
    result = []
    for number in range(variants):
        for index, (phrases, make) in enumerate((SYNTHESIZERS | of_esc10).items()):
            noise = np.random.default_rng([seed, number, index])
            wave = np.nan_to_num(make(noise))
            full = float(np.abs(wave).max()) + 1e-9
            result.append(CaptionedSound(np.asarray(wave / full * 0.7, np.float32), phrases, 100 + number))
        for index in range(3):
            noise = np.random.default_rng([seed, number, 1000 + index])
            hum = robot_noise(noise, 4 * SAMPLE_RATE)
            result.append(CaptionedSound(hum / np.abs(hum).max() * np.float32(0.5), QUIET_CAPTIONS, 100 + number))
    return result
