"""Sounds with captions, cut and disturbed as a robot hears them: what a sound spoke trains on."""

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
from sensebind.simulation.captioned_sounds import ESC10, QUIET, RATE, Captioned, robot_noise
from sensebind.training.data.pairs import AlignError, Pairs, named_group

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

LENGTH = 2 * RATE  # samples of a window
LOUDNESS = (-46.0, -12.0)  # dB of full scale, of a sound
SIGNAL_TO_NOISE = (0.0, 30.0)  # dB
DISTURBED = 0.85  # share of the cuts that get noise
HISS = 0.003  # of a sound's level, where it gets none
LEAST = 3 * RATE // 10  # samples of a sound that a cut must hold
STEP = RATE // 20  # samples, over which a level is measured
AUDIBLE = 0.02  # of its peak, under which a sound has not begun, or is over
HEARD = 0.3  # of a sound's level that something in a cut must reach
PITCH = (0.88, 1.14)  # by which a cut is played faster
TRIES = 16  # places looked at for one where something sounds
CUTS = 12  # of each sound
SEEN = 0.4  # share of the cuts that are bound to the look of what makes the sound
NOISE_LOUDNESS = (-64.0, -20.0)  # dB of full scale, of a robot's noise alone
def read_esc10(folder: Path, folds: str = "123", without: Sequence[str] = ()) -> list[Captioned]:
    """ESC-10's clips of these folds (the digit that a file name begins with), `without` some classes.

    A block is a fold: clips cut from one recording are in one fold. Raises `AlignError` where there are none.
    """
    result = []
    for path in sorted(folder.glob("*/*.ogg")):
        name = path.parent.name.partition(" - ")[2]
        if path.name[0] in folds and name in ESC10 and name not in without:
            phrases = (name, name.lower(), f"the sound of {name.lower()}", *ESC10[name])
            result.append(Captioned(load(path), phrases, int(path.name[0])))
    if not result:
        raise AlignError(f"'{folder}' holds no clips of ESC-10: it should have folders such as '001 - Dog bark'")
    return result


def load(path: Path) -> Floats:
    """A sound file → mono float32 at 16 kHz. Raises `AlignError`."""
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AlignError(f"'{path}' is not a sound that can be read: {error}") from error
    return np.asarray(soxr.resample(data.mean(axis=1), rate, RATE), np.float32)


def trimmed(sound: Floats) -> Floats:
    """A sound without the silence before and after it."""
    loud = np.flatnonzero(np.abs(sound) > AUDIBLE * (np.abs(sound).max() + 1e-9))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:1]


def course(sound: Floats) -> Floats:
    """Its level in stretches of 50 ms, one at least."""
    whole = max(len(sound) // STEP, 1) * STEP
    padded = np.pad(sound, (0, max(0, whole - len(sound))))[:whole]
    return np.asarray(np.sqrt(np.square(padded).reshape(-1, STEP).mean(axis=1)), np.float32)


def cut(sound: Floats, noise: Noise, disturb: Callable[[Noise, int], Floats], length: int = LENGTH) -> Floats:
    """`length` samples in which something of a sound is to be heard: it may begin before them, in them or last beyond
    them. At another pitch, loudness and place, mostly under a robot's noise."""
    if noise.random() < 0.5:
        sound = np.asarray(soxr.resample(sound, RATE, RATE * noise.uniform(*PITCH)), np.float32)
    sound = trimmed(sound)
    level = float(np.percentile(course(sound), 90)) + 1e-6  # while it sounds
    least = min(LEAST, len(sound))
    padded = np.pad(sound, length)
    for _ in range(TRIES):
        first = int(noise.integers(least, length + len(sound) - least + 1))
        piece = padded[first : first + length]
        if float(course(piece).max()) > HEARD * level:
            break
    if noise.random() < DISTURBED:
        other = disturb(noise, length)
        ratio = 10 ** (-noise.uniform(*SIGNAL_TO_NOISE) / 20)
        piece = piece + other * np.float32(ratio * level / (float(other.std()) + 1e-9))
    else:
        piece = piece + np.float32(level * HISS) * noise.standard_normal(length).astype(np.float32)
    loud = 10 ** (noise.uniform(*LOUDNESS) / 20)
    return np.clip(piece * np.float32(loud / level), -1, 1)


def sound_pairs(
    sounds: Iterable[Captioned], hub: Hub, seed: int = 0, cuts: int = CUTS,
    describe: Callable[[torch.Tensor], torch.Tensor] | None = None,
    disturb: Callable[[Noise, int], Floats] = robot_noise, looks: Mapping[str, torch.Tensor] | None = None,
) -> Pairs:  # fmt: skip
    """Cuts of each sound, each beside the hub's vector of one of its phrases; sounds with the same first phrase are
    one group. `describe` may turn cuts (B, samples) into what is kept of them, such as features; `disturb` makes the
    noise that they are heard in. A share of `SEEN` of those whose first phrase is in `looks` gets that vector (D,)."""
    inputs, targets, groups, blocks = [], [], [], []
    for number, item in enumerate(tqdm(list(sounds), desc="sounds", disable=None)):
        noise = np.random.default_rng([seed, number])
        pieces = torch.from_numpy(np.stack([cut(item.sound, noise, disturb) for _ in range(cuts)]))
        inputs.append(pieces if describe is None else describe(pieces))
        vectors = hub.embed_text(item.phrases)
        chosen = vectors[torch.from_numpy(noise.integers(0, len(item.phrases), cuts))]
        if looks is not None and item.phrases[0] in looks:
            seen = torch.from_numpy(noise.random(cuts) < SEEN)[:, None]
            chosen = torch.where(seen, looks[item.phrases[0]], chosen)
        targets.append(chosen)
        groups += [named_group(item.phrases[0])] * cuts
        blocks += [item.block] * cuts
    rows = torch.tensor(blocks)
    return Pairs(
        torch.cat(inputs), torch.cat(targets), torch.tensor(groups), rows, torch.stack([rows, rows + 1], dim=1),
        torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip


def noise_pairs(
    hub: Hub, count: int, disturb: Callable[[Noise, int], Floats], describe: Callable[[torch.Tensor], torch.Tensor]
) -> Pairs:
    """Windows of a robot's noise alone, as `describe` describes them, beside the hub's vectors of `QUIET`."""
    noise = np.random.default_rng(5)
    pieces = np.stack([_loud(disturb(noise, LENGTH), noise.uniform(*NOISE_LOUDNESS)) for _ in range(count)])
    chosen = torch.from_numpy(noise.integers(0, len(QUIET), count))
    rows = 1000 + torch.arange(count) // (count // 10 or 1)
    return Pairs(
        describe(torch.from_numpy(pieces)), hub.embed_text(QUIET)[chosen], torch.full((count,), named_group(QUIET[0])),
        rows, torch.stack([rows, rows + 1], dim=1), torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip


def _loud(wave: Floats, decibels: float) -> Floats:
    return np.clip(wave / (wave.std() + 1e-9) * 10 ** (decibels / 20), -1, 1).astype(np.float32)
