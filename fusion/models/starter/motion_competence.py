"""How well motion data can recognise a phrase: the competence of the modality `imu` in the starter space.

An IMU measures the motion of the robot itself: a bump, a fall, vibration, turning. So it can recognise phrases that
name such a motion, and no other ones: persons, animals, objects, sounds, places. The spoke of the modality was trained
in simulation, where a person near the robot shakes the floor. On a real robot its vectors show motion and nothing else.

`motion_phrases.txt` has examples of both kinds, written for this purpose. Some of the others resemble a motion in their
words: "a person walking", "a car turning", "a vibrating phone". A phrase is compared with all
examples; the similar ones count most.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sensebind.fusion.models.starter.concepts import ConceptFiles, read_vectors

PHRASE_FILES = ConceptFiles(*(Path(__file__).with_name(f"motion_phrases.{end}") for end in ("txt", "safetensors")))
# Factor of the cosines in the soft maximum over the examples: several similar examples count, not only the nearest.
SHARPNESS = 10.0
# Difference of the similarities to the two kinds (cosine) from which on a phrase begins to name a motion of the robot,
# and from which on it surely does.
NAMES_A_MOTION = (0.03, 0.08)


class MotionPhrases(NamedTuple):
    """Examples of phrases that name a motion of the robot itself, and of `other` phrases."""

    motion: list[str]
    other: list[str]


def phrases() -> MotionPhrases:
    """The examples in `PHRASE_FILES`."""
    found = MotionPhrases([], [])
    for line in PHRASE_FILES.names.read_text(encoding="utf-8").splitlines():
        kind, phrase = line.split(" | ")
        (found.motion if kind == "motion" else found.other).append(phrase)
    return found


def competence(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) of unit length → competence of motion data, float32 (N,), 0 to 1.

    The similarity to a kind is a soft maximum of the cosines with its examples, log(mean(exp(s·cosine))) / s. The
    competence is a ramp of the difference of the two similarities. Raises `SpaceError` if the file of the examples is
    missing or damaged.
    """
    motion, other = example_vectors()
    low, high = NAMES_A_MOTION
    difference = _soft_maximum(sentences @ motion.T) - _soft_maximum(sentences @ other.T)
    return ((difference - low) / (high - low)).clamp(0.0, 1.0)


def nearest_phrases(sentence: Tensor, count: int) -> list[str]:
    """Sentence vector (1, 384) of unit length → the `count` nearest examples that name a motion."""
    motion, _ = example_vectors()
    nearest = (motion @ sentence[0]).topk(count).indices.tolist()
    return [phrases().motion[index] for index in nearest]


def _soft_maximum(cosines: Tensor) -> Tensor:
    """Cosines (N, P) → (N,)."""
    return (torch.logsumexp(cosines * SHARPNESS, dim=1) - math.log(cosines.shape[1])) / SHARPNESS


@lru_cache(maxsize=1)
def example_vectors() -> tuple[Tensor, Tensor]:
    entries = read_vectors(PHRASE_FILES)
    return entries["motion"], entries["other"]
