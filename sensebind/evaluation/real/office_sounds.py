"""Sounds of an office that were recorded in noise, joined into one stream for each level.

FOLDER/noisy.csv has the columns `file`, `class` and `event_to_background_db`. Each clip begins and ends with its event,
and the same mixture exists at several levels: the noise is the same, the sound louder. So two levels of a mixture give
the noise alone (`noise_of_mixture`). Pauses between the clips are filled with pieces of this noise, which keeps its
level and its colour. All joints are crossfaded, so no level changes at the end of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensebind.evaluation.real.sound_streams import MARGIN, SoundStream, to_int16
from sensebind.evaluation.spaces.sounds import OFFICE, SoundDataError, read_sound
from sensebind.evaluation.spans import Spans
from sensebind.evaluation.tables import read_table
from sensebind.fusion.preprocess.audio import SAMPLE_RATE

TABLE = "noisy.csv"
CROSSFADE = 0.05  # s, of two pieces of noise, and of noise and a clip
PIECE_LENGTH = 0.3  # s of noise taken at once
LEVEL_TOLERANCE = 1.5  # dB: pieces of noise with another level than the median are not used

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoisyClip:
    """A clip of a mixture at one level (dB of the sound over the noise): `samples` float64 (N,) at 16 kHz."""

    samples: Wave
    name: str
    mixture: str
    level: float


def read_noisy_clips(folder: Path) -> list[NoisyClip]:
    """The clips that `folder`/noisy.csv names. Raises `TableError`, and `SoundDataError` for a clip that cannot be
    read."""
    level = "event_to_background_db"
    return [
        NoisyClip(
            read_sound(folder / row["file"]).astype(np.float64),
            class_words(row["class"]),
            row["file"].replace(f"ebr_{row[level]}_", "ebr_"),
            row.number(level),
        )
        for row in read_table(folder / TABLE, ("file", "class", level))
    ]


def class_words(folder: str) -> str:
    """The phrase of a class: "doorslam" → "door slam"."""
    return OFFICE[folder][0] if folder in OFFICE else folder


def by_level(clips: Sequence[NoisyClip]) -> dict[float, list[NoisyClip]]:
    """Level in dB → its clips, the lowest level first. Clips are in the order of their mixtures."""
    ordered = sorted(clips, key=lambda clip: (clip.level, clip.mixture))
    return {level: [c for c in ordered if c.level == level] for level in sorted({c.level for c in clips})}


def noise_of_mixture(quiet: Wave, loud: Wave, difference: float) -> Wave:
    """The noise in a mixture that exists with a quiet and a loud sound, `difference` dB apart, in the same noise."""
    gain = 10 ** (difference / 20)
    count = min(len(quiet), len(loud))
    return np.asarray((gain * quiet[:count] - loud[:count]) / (gain - 1))


def noise_pieces(clips: Sequence[NoisyClip]) -> list[Wave]:
    """Pieces of the noise of all mixtures, `PIECE_LENGTH` long, with the usual level of the noise.

    Raises `SoundDataError` if no mixture exists at two levels.
    """
    mixtures: dict[str, list[NoisyClip]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.mixture, clip.level)):
        mixtures.setdefault(clip.mixture, []).append(clip)
    count = round(PIECE_LENGTH * SAMPLE_RATE)
    pieces: list[Wave] = []
    for own in mixtures.values():
        if own[0].level < own[-1].level:
            noise = noise_of_mixture(own[0].samples, own[-1].samples, own[-1].level - own[0].level)
            pieces += [noise[i : i + count] for i in range(0, len(noise) - count + 1, count)]
    if not pieces:
        raise SoundDataError("no clip exists at two levels, so the noise between the clips is not known")
    levels = np.array([20 * np.log10(np.sqrt(np.mean(np.square(piece))) + 1e-9) for piece in pieces])
    usual = np.abs(levels - np.median(levels)) <= LEVEL_TOLERANCE
    return [piece for piece, use in zip(pieces, usual.tolist(), strict=True) if use]


def noise_of_length(pieces: Sequence[Wave], count: int, random: np.random.Generator) -> Wave:
    """`count` samples of noise: random pieces, crossfaded."""
    made = np.zeros(0)
    while len(made) < count:
        made = crossfaded(made, pieces[int(random.integers(len(pieces)))])
    return made[:count]


def crossfaded(first: Wave, second: Wave) -> Wave:
    """Two sounds with the end of the first and the start of the second mixed, at equal power."""
    count = min(round(CROSSFADE * SAMPLE_RATE), len(first), len(second))
    angle = (np.arange(count) + 0.5) / max(count, 1) * np.pi / 2
    overlap = first[len(first) - count :] * np.cos(angle) + second[:count] * np.sin(angle)
    return np.concatenate([first[: len(first) - count], overlap, second[count:]])


def join_level(clips: Sequence[NoisyClip], pieces: Sequence[Wave], seed: int, pause: float = 3.5) -> SoundStream:
    """A stream of all clips in random order, with pauses of noise of 0.3 to 1.7 times `pause` (s) between them. The
    same seed gives the same order and noise at each level. An event is a whole clip."""
    random = np.random.default_rng([seed, 43])
    wave = noise_of_length(pieces, round((MARGIN + pause) * SAMPLE_RATE), random)
    truth = []
    overlap = round(CROSSFADE * SAMPLE_RATE)
    for clip in _shuffled(clips, random):
        onset = len(wave) - overlap
        wave = crossfaded(wave, clip.samples)
        truth.append((onset / SAMPLE_RATE, len(wave) / SAMPLE_RATE, clip.name))
        wave = crossfaded(
            wave, noise_of_length(pieces, round(pause * float(random.uniform(0.3, 1.7)) * SAMPLE_RATE), random)
        )
    wave = crossfaded(wave, noise_of_length(pieces, round(MARGIN * SAMPLE_RATE), random))
    return SoundStream(f"{clips[0].level:g} dB", to_int16(wave), Spans.of(truth))


def _shuffled(clips: Sequence[NoisyClip], random: np.random.Generator) -> Iterator[NoisyClip]:
    return (clips[i] for i in random.permutation(len(clips)).tolist())


def level_streams(clips: Sequence[NoisyClip], seed: int) -> Mapping[float, SoundStream]:
    """Level in dB → its stream."""
    pieces = noise_pieces(clips)
    return {level: join_level(own, pieces, seed) for level, own in by_level(clips).items()}
