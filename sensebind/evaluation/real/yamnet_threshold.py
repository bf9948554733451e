"""A plain detector of sounds for comparison: YAMNet's probabilities and a threshold. No text, no adaptation.

The probability of a class is the highest of those of its AudioSet classes, for each patch of 0.96 s, every 0.48 s. A
detection lasts while the probability is at or above the threshold; detections with a short pause between them are
joined. Threshold and longest pause are the same for all classes. `choose` chooses them on other streams, for the best
event F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from sensebind.evaluation.matching import event_based_counts, sum_counts
from sensebind.evaluation.real.sound_streams import SoundStream
from sensebind.evaluation.spans import Array, Spans
from sensebind.fusion.models.starter.concepts import sound_class_names
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.fusion.preprocess.audio import SAMPLE_RATE
from sensebind.fusion.preprocess.log_mel_patches import HOP_SAMPLES, PATCH_SAMPLES

THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LONGEST_PAUSES = (0.0, 0.5, 1.0, 2.0)  # s
BATCH_SECONDS = 60  # s of sound that the network processes at once

AudioSetNames = Mapping[str, Sequence[str]]  # class → names of AudioSet's classes


@dataclass(frozen=True, slots=True)
class ThresholdSetting:
    """The threshold, and the longest pause within a detection in s."""

    threshold: float
    longest_pause: float


@dataclass(frozen=True)
class Probabilities:
    """`values` (P, C) of C classes at the `centres` (P,) of the patches, in s."""

    centres: Array
    names: tuple[str, ...]
    values: Array


@torch.inference_mode()
def probabilities(stream: SoundStream, classes: AudioSetNames, space: StarterSpace) -> Probabilities:
    """The probabilities of these classes in a stream. Raises `ValueError` for a name that AudioSet does not have."""
    network, known = space.audio_encoder(), sound_class_names()
    sound = torch.from_numpy(stream.samples.astype(np.float32) / 32768)
    step = BATCH_SECONDS * SAMPLE_RATE // HOP_SAMPLES * HOP_SAMPLES
    found, centres = [], []
    for first in range(0, max(len(sound) - PATCH_SAMPLES, 0) + 1, step):
        part = sound[first : first + step - HOP_SAMPLES + PATCH_SAMPLES]
        spare = (len(part) - PATCH_SAMPLES) % HOP_SAMPLES if len(part) > PATCH_SAMPLES else 0
        part = part[: len(part) - spare]  # `of_sound` aligns the patches with the end
        scores = network.of_sound(part[None].to(space.device)).logits[0].sigmoid().cpu().numpy()
        found.append(scores)
        centres.append((first + np.arange(len(scores)) * HOP_SAMPLES + PATCH_SAMPLES / 2) / SAMPLE_RATE)
    columns = [[known.index(name) for name in names] for names in classes.values()]
    scores = np.concatenate(found).astype(np.float64)
    values = np.stack([scores[:, own].max(axis=1) for own in columns], axis=1)
    return Probabilities(np.concatenate(centres), tuple(classes), values)


def detections(given: Probabilities, setting: ThresholdSetting) -> Spans:
    """The detections of each class."""
    half = HOP_SAMPLES / SAMPLE_RATE / 2
    rows = []
    for column, name in enumerate(given.names):
        above = np.flatnonzero(given.values[:, column] >= setting.threshold)
        if not len(above):
            continue
        starts, ends = given.centres[above] - half, given.centres[above] + half
        breaks = np.flatnonzero(starts[1:] - ends[:-1] > setting.longest_pause + 1e-6)
        firsts, lasts = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(above) - 1]])
        rows += [(float(starts[a]), float(ends[b]), name) for a, b in zip(firsts, lasts, strict=True)]
    return Spans.of(rows)


def choose(
    streams: Sequence[SoundStream], classes: AudioSetNames, space: StarterSpace
) -> tuple[ThresholdSetting, float]:
    """The setting with the best event F1 on these streams, and this F1."""
    given = [probabilities(stream, classes, space) for stream in streams]
    scored = {}
    for threshold, pause in product(THRESHOLDS, LONGEST_PAUSES):
        setting = ThresholdSetting(threshold, pause)
        counts = [
            event_based_counts(stream.truth, detections(own, setting))
            for stream, own in zip(streams, given, strict=True)
        ]
        scored[setting] = sum_counts([c for own in counts for c in own.values()]).f1 or 0.0
    best = max(scored, key=lambda setting: scored[setting])
    return best, scored[best]
