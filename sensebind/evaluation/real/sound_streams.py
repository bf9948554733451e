"""Streams of recorded sounds in noise, with the true interval of each sound.

The clips are files of a folder tree, FOLDER/<class>/<file>. `audible_intervals` says which part of a clip is an event:

- The level of a clip is measured in frames of 20 ms. A frame is audible if its level is at most 30 dB below that of
  the loudest frame. Silence and padding at the beginning and the end are cut off.
- Pauses of less than 1 s belong to the event: three barks in a row are one event. A longer pause separates two events
  of the same class.
- A part that does not come within 20 dB of the loudest frame is not an event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensebind.evaluation.real.robot_noise import robot_noise
from sensebind.evaluation.spaces.sounds import SoundDataError, read_sound
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.preprocess.audio import SAMPLE_RATE
from sensebind.simulation.messages import SIMULATION_START

FRAME_LENGTH = 0.02  # s
AUDIBLE_RANGE = 30.0  # dB below the loudest frame
EVENT_RANGE = 20.0  # dB below the loudest frame that some frame of an event must reach
LONGEST_PAUSE = 1.0  # s within one event
MARGIN = 2.0  # s of noise alone at the beginning and the end of a stream, at least
FADE = 0.01  # s at the ends of each clip
BLOCK = SAMPLE_RATE // 10  # samples of one message
SUFFIXES = (".wav", ".ogg", ".flac", ".mp3")

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """A recorded sound from its first to its last audible moment: `samples` float32 (N,) at 16 kHz, its class, and its
    events as (onset, offset) in s from the start of `samples`."""

    samples: npt.NDArray[np.float32]
    name: str
    intervals: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def level(self) -> float:
        """RMS of the audible frames inside the events."""
        levels = frame_levels(self.samples)
        times = (np.arange(len(levels)) + 0.5) * FRAME_LENGTH
        inside = np.zeros(len(levels), bool)
        for onset, offset in self.intervals:
            inside |= (times >= onset) & (times < offset)
        inside &= levels >= levels.max() * 10 ** (-AUDIBLE_RANGE / 20)
        return float(np.sqrt(np.mean(np.square(levels[inside]))))


@dataclass(frozen=True)
class SoundStream:
    """A stream of sound: `samples` int16 (N,) at 16 kHz, and the true events, in s from its start."""

    name: str
    samples: npt.NDArray[np.int16]
    truth: Spans

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def messages(self, start: int = SIMULATION_START) -> Iterator[Sample]:
        """The stream as a microphone would send it: blocks of 0.1 s, the first with the stamp `start` (ns)."""
        for first in range(0, len(self.samples), BLOCK):
            sound = Sound(self.samples[first : first + BLOCK, None], SAMPLE_RATE)
            yield Sample(AUDIO, start + round(first * SECOND / SAMPLE_RATE), sound)


def frame_levels(samples: npt.NDArray[np.floating]) -> Wave:
    """RMS of each frame of `FRAME_LENGTH`, float64 (F,). The last frame is filled with zeros."""
    step = round(FRAME_LENGTH * SAMPLE_RATE)
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % step))
    return np.sqrt(np.square(padded).reshape(-1, step).mean(axis=1))


def audible_intervals(samples: npt.NDArray[np.floating]) -> list[tuple[float, float]]:
    """The events (onset, offset) of a clip at 16 kHz, in s, as the head of this module defines them. Empty for
    silence."""
    levels = frame_levels(samples)
    loudest = float(levels.max(initial=0.0))
    if loudest <= 1e-6:
        return []
    audible = np.flatnonzero(levels >= loudest * 10 ** (-AUDIBLE_RANGE / 20))
    breaks = np.flatnonzero(np.diff(audible) - 1 >= LONGEST_PAUSE / FRAME_LENGTH)
    parts = np.split(audible, breaks + 1)
    enough = loudest * 10 ** (-EVENT_RANGE / 20)
    return [
        (float(part[0] * FRAME_LENGTH), float((part[-1] + 1) * FRAME_LENGTH))
        for part in parts
        if levels[part].max() >= enough
    ]


def clip_of(samples: npt.NDArray[np.float32], name: str) -> Clip | None:
    """The audible part of a sound; None if it is silent."""
    intervals = audible_intervals(samples)
    if not intervals:
        return None
    first = intervals[0][0]
    cut = samples[round(first * SAMPLE_RATE) : round(intervals[-1][1] * SAMPLE_RATE)]
    return Clip(
        cut, name, tuple((onset - first, min(offset - first, len(cut) / SAMPLE_RATE)) for onset, offset in intervals)
    )


def class_name(folder: str) -> str:
    """The name of a class as words: "001 - Dog bark" → "dog bark", "glass_breaking" → "glass breaking"."""
    head, separator, name = folder.partition(" - ")
    text = name if separator and head.strip().isdigit() else folder
    return " ".join(text.replace("_", " ").split()).lower()


def read_clips(folder: Path, first_letters: str = "") -> list[Clip]:
    """The clips FOLDER/<class>/<file>. `first_letters`: only files whose name begins with one of them ("23": folds 2
    and 3 of ESC-10); empty: all. Raises `SoundDataError` if there are none."""
    files = [
        path
        for path in sorted(folder.glob("*/*"))
        if path.suffix.lower() in SUFFIXES and (not first_letters or path.name[0] in first_letters)
    ]
    clips = [clip for path in files if (clip := clip_of(read_sound(path), class_name(path.parent.name))) is not None]
    if not clips:
        chosen = f" that begin with one of '{first_letters}'" if first_letters else ""
        raise SoundDataError(f"'{folder}' has no folders with sounds ({', '.join(SUFFIXES)}){chosen}")
    return clips


def join_in_robot_noise(
    clips: Sequence[Clip], seconds: float, snr: float, seed: int, pause: float = 5.0, name: str = ""
) -> SoundStream:
    """A stream of `seconds` s: clips in the order of `random_order` at random times in robot noise.

    `snr`: level of each clip's audible part over the level of the noise, in dB. `pause`: mean pause between clips in s;
    each pause is 0.3 to 1.7 times as long. The same arguments give the same stream. Raises `SoundDataError` if no clip
    fits.
    """
    random = np.random.default_rng([seed, 41])
    wave = robot_noise(random, seconds)
    level = float(np.sqrt(np.mean(np.square(wave)))) * 10 ** (snr / 20)
    truth: list[tuple[float, float, str]] = []
    at = MARGIN + float(random.uniform(0, pause))
    for clip in random_order(clips, random):
        if at + clip.seconds > seconds - MARGIN:
            break
        first = round(at * SAMPLE_RATE)
        wave[first : first + len(clip.samples)] += faded(clip.samples.astype(np.float64)) * (level / clip.level)
        truth += [(first / SAMPLE_RATE + a, first / SAMPLE_RATE + b, clip.name) for a, b in clip.intervals]
        at += clip.seconds + pause * float(random.uniform(0.3, 1.7))
    if not truth:
        raise SoundDataError(f"no clip fits into {seconds:g} s: make the stream longer")
    return SoundStream(name or f"seed {seed}, {snr:g} dB", to_int16(wave), Spans.of(truth))


def random_order(clips: Sequence[Clip], random: np.random.Generator) -> Iterator[Clip]:
    """The clips in random order, without end. Each class occurs once in a round, and a clip again only after all other
    clips of its class."""
    waiting: dict[str, list[Clip]] = {clip.name: [] for clip in clips}
    while True:
        for name in random.permutation(sorted(waiting)).tolist():
            if not waiting[name]:
                own = [clip for clip in clips if clip.name == name]
                waiting[name] = [own[i] for i in random.permutation(len(own)).tolist()]
            yield waiting[name].pop()


def faded(wave: Wave, seconds: float = FADE) -> Wave:
    """The wave, faded in and out at its ends."""
    count = min(round(seconds * SAMPLE_RATE), len(wave) // 2)
    result = wave.copy()
    if count:
        result[:count] *= np.linspace(0, 1, count)
        result[-count:] *= np.linspace(1, 0, count)
    return result


def to_int16(wave: Wave) -> npt.NDArray[np.int16]:
    """−1..1 → int16 at full scale. Larger values are clipped."""
    return np.asarray(np.clip(np.rint(wave * 32767), -32768, 32767), np.int16)
