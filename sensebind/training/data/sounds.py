"""Training data of the audio spoke: random crops of captioned sounds, mixed with robot noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from tqdm import tqdm

from sensebind.fusion.core.space import Hub
from sensebind.simulation.captioned_sounds import (
    ESC10_CAPTIONS,
    QUIET_CAPTIONS,
    SAMPLE_RATE,
    CaptionedSound,
    robot_noise,
)
from sensebind.training.data.pairs import AlignError, Pairs, class_id

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

WINDOW_SAMPLES = 2 * SAMPLE_RATE
LEVEL_RANGE = (-46.0, -12.0)  # dB of full scale, level of a sound
SNR_RANGE = (0.0, 30.0)  # dB
NOISY_FRACTION = 0.85  # of the crops that are mixed with robot noise
NOISE_FLOOR = 0.003  # white noise in the other crops, relative to the level of the sound
MIN_SOUND_SAMPLES = 3 * SAMPLE_RATE // 10  # samples of a sound that a crop must contain
LEVEL_STEP = SAMPLE_RATE // 20  # samples over which a level is measured
SILENCE_THRESHOLD = 0.02  # fraction of a sound's peak; before and after the samples above it is silence
MIN_RELATIVE_LEVEL = 0.3  # fraction of a sound's level that the loudest part of a crop must exceed
SPEED_RANGE = (0.88, 1.14)  # factors of the playback speed
MAX_CROP_TRIES = 16  # random positions that are tried for a crop that is loud enough
CROPS_PER_SOUND = 12
IMAGE_TARGET_FRACTION = 0.4  # of the crops whose sound has an image prototype: their target is the prototype
NOISE_LEVEL_RANGE = (-64.0, -20.0)  # dB of full scale, of robot noise alone


def read_esc10(folder: Path, folds: str = "123", excluded_classes: Sequence[str] = ()) -> list[CaptionedSound]:
    """ESC-10's clips of these folds (the digit that a file name begins with), without `excluded_classes`.

    A block is a fold: clips from the same recording are in the same fold. Raises `AlignError` if there are none.
    """
    result = []
    for path in sorted(folder.glob("*/*.ogg")):
        name = path.parent.name.partition(" - ")[2]
        if path.name[0] in folds and name in ESC10_CAPTIONS and name not in excluded_classes:
            phrases = (name, name.lower(), f"the sound of {name.lower()}", *ESC10_CAPTIONS[name])
            result.append(CaptionedSound(read_sound(path), phrases, int(path.name[0])))
    if not result:
        raise AlignError(f"'{folder}' has no clips of ESC-10: it must have folders like '001 - Dog bark'")
    return result


def read_sound(path: Path) -> Floats:
    """A sound file → mono float32 at 16 kHz. Raises `AlignError`."""
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AlignError(f"'{path}' is not a sound that can be read: {error}") from error
    return np.asarray(soxr.resample(data.mean(axis=1), rate, SAMPLE_RATE), np.float32)


def trim_silence(sound: Floats) -> Floats:
    """A sound without the silence before and after it."""
    loud = np.flatnonzero(np.abs(sound) > SILENCE_THRESHOLD * (np.abs(sound).max() + 1e-9))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:1]


def rms_envelope(sound: Floats) -> Floats:
    """RMS level of each 50 ms of a sound; at least one value."""
    whole = max(len(sound) // LEVEL_STEP, 1) * LEVEL_STEP
    padded = np.pad(sound, (0, max(0, whole - len(sound))))[:whole]
    return np.asarray(np.sqrt(np.square(padded).reshape(-1, LEVEL_STEP).mean(axis=1)), np.float32)


def random_crop(
    sound: Floats, rng: Noise, noise_source: Callable[[Noise, int], Floats], length: int = WINDOW_SAMPLES
) -> Floats:
    """A random crop of `length` samples that contains at least part of a sound, float32 (length,).

    Half of the sounds are played at another speed. The position and the level are random. Most crops are mixed with
    noise from `noise_source`.
    """
    if rng.random() < 0.5:
        sound = np.asarray(soxr.resample(sound, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(*SPEED_RANGE)), np.float32)
    sound = trim_silence(sound)
    level = float(np.percentile(rms_envelope(sound), 90)) + 1e-6  # of its loud parts
    least = min(MIN_SOUND_SAMPLES, len(sound))
    padded = np.pad(sound, length)
    for _ in range(MAX_CROP_TRIES):
        first = int(rng.integers(least, length + len(sound) - least + 1))
        piece = padded[first : first + length]
        if float(rms_envelope(piece).max()) > MIN_RELATIVE_LEVEL * level:
            break
    if rng.random() < NOISY_FRACTION:
        other = noise_source(rng, length)
        ratio = 10 ** (-rng.uniform(*SNR_RANGE) / 20)
        piece = piece + other * np.float32(ratio * level / (float(other.std()) + 1e-9))
    else:
        piece = piece + np.float32(level * NOISE_FLOOR) * rng.standard_normal(length).astype(np.float32)
    loud = 10 ** (rng.uniform(*LEVEL_RANGE) / 20)
    return np.clip(piece * np.float32(loud / level), -1, 1)


def audio_pairs(
    sounds: Iterable[CaptionedSound],
    hub: Hub,
    seed: int = 0,
    crops_per_sound: int = CROPS_PER_SOUND,
    extract_features: Callable[[torch.Tensor], torch.Tensor] | None = None,
    noise_source: Callable[[Noise, int], Floats] = robot_noise,
    image_prototypes: Mapping[str, torch.Tensor] | None = None,
) -> Pairs:
    """Random crops of each sound, each paired with the hub's vector of one of the captions.

    Sounds with the same first caption are one group. `extract_features` turns crops (B, samples) into features; None:
    the inputs are the crops. `noise_source(rng, samples)` returns the noise to mix in. `image_prototypes`: first
    caption → (D,), the target of `IMAGE_TARGET_FRACTION` of the crops with that caption.
    """
    inputs, targets, groups, blocks = [], [], [], []
    for number, item in enumerate(tqdm(list(sounds), desc="sounds", disable=None)):
        noise = np.random.default_rng([seed, number])
        pieces = torch.from_numpy(
            np.stack([random_crop(item.samples, noise, noise_source) for _ in range(crops_per_sound)])
        )
        inputs.append(pieces if extract_features is None else extract_features(pieces))
        vectors = hub.embed_text(item.captions)
        chosen = vectors[torch.from_numpy(noise.integers(0, len(item.captions), crops_per_sound))]
        if image_prototypes is not None and item.captions[0] in image_prototypes:
            use_prototype = torch.from_numpy(noise.random(crops_per_sound) < IMAGE_TARGET_FRACTION)[:, None]
            chosen = torch.where(use_prototype, image_prototypes[item.captions[0]], chosen)
        targets.append(chosen)
        groups += [class_id(item.captions[0])] * crops_per_sound
        blocks += [item.block] * crops_per_sound
    rows = torch.tensor(blocks)
    return Pairs(
        torch.cat(inputs),
        torch.cat(targets),
        torch.tensor(groups),
        rows,
        torch.stack([rows, rows + 1], dim=1),
        torch.zeros_like(rows),
        torch.empty(0),
    )


def noise_pairs(
    hub: Hub,
    count: int,
    noise_source: Callable[[Noise, int], Floats],
    extract_features: Callable[[torch.Tensor], torch.Tensor],
) -> Pairs:
    """Features of `count` windows of robot noise alone, paired with the hub's vectors of `QUIET_CAPTIONS`."""
    noise = np.random.default_rng(5)
    pieces = np.stack(
        [_scale_to_level(noise_source(noise, WINDOW_SAMPLES), noise.uniform(*NOISE_LEVEL_RANGE)) for _ in range(count)]
    )
    chosen = torch.from_numpy(noise.integers(0, len(QUIET_CAPTIONS), count))
    rows = 1000 + torch.arange(count) // (count // 10 or 1)
    return Pairs(
        extract_features(torch.from_numpy(pieces)),
        hub.embed_text(QUIET_CAPTIONS)[chosen],
        torch.full((count,), class_id(QUIET_CAPTIONS[0])),
        rows,
        torch.stack([rows, rows + 1], dim=1),
        torch.zeros_like(rows),
        torch.empty(0),
    )


def _scale_to_level(wave: Floats, decibels: float) -> Floats:
    return np.clip(wave / (wave.std() + 1e-9) * 10 ** (decibels / 20), -1, 1).astype(np.float32)
