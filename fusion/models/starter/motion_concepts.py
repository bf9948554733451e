"""Motion concepts: motions that are computed from the readings of an IMU by the laws of mechanics, not learned.

There is one, a fall. Its strength, 0 to 1, turns the vector of a window towards the phrases that name a fall. The
vector of a window without a fall (strength 0) loses its similarity to them; its similarity to other phrases is that of
the trained network.

An IMU at rest measures the specific force of gravity, 1 g upwards. Falling over shows as a phase of low specific force,
an impact, and another direction of gravity afterwards. A drop shows as free fall from rest, an impact, and rest.
Other motions lack one of these signs:

- Steps, jogging and jumps keep the direction of gravity, and a jump does not begin from rest but with a push.
- A bump, a collision or hard braking keeps the direction of gravity.
- Lifting, tilting or sitting down has no impact.
- The specific force of a drone in flight is the thrust of its rotors, whose direction in the body is fixed.

The signs and their middle values are those of threshold-based detection of human falls:

- M. Kangas, A. Konttila, P. Lindgren, I. Winblad, T. Jämsä, "Comparison of low-complexity fall detection algorithms for
  body attached accelerometers", Gait & Posture 28, 2008: start of the fall below 0.6 g, impact above 2 g, change within
  0.1 s of about 2 g, posture turned by more than 60°.
- A. K. Bourke, J. V. O'Brien, G. M. Lyons, "Evaluation of a threshold-based tri-axial accelerometer fall detection
  algorithm", Gait & Posture 26, 2007: lower and upper thresholds of the norm, 0.41 to 0.60 g and 2.7 to 3.5 g.

The range of a telephone's accelerometer is ±2 g on each axis (G. Vavoulas and others, "The MobiFall dataset", BIBE
2013). So the thresholds of the impact are the lower ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.models.starter import concepts, motion_competence

GRAVITY = 9.80665  # m/s²

# Each sign grows from 0 to 1 between two values. Accelerations are in g.
AVERAGING = 0.02  # s; readings are averaged over this time, so that single wrong readings and vibrations count less
IMPACT = (1.5, 2.0)  # specific force
JOLT = (1.4, 2.0)  # length of the change of the specific force within `JOLT_TIME`
JOLT_TIME = 0.1  # s
DROP_JOLT_TIME = 0.04  # s; after free fall, the ground stops a robot faster than rotors catch a drone
START_OF_FALL = (0.8, 0.6)  # lowest specific force in `FALL_TIME` before the impact
FALL_TIME = 1.0  # s; a fall from 5 m
POSTURE_CHANGE = (45.0, 75.0)  # °; angle between the mean specific forces at the two ends of the window
POSTURE_TIME = 0.5  # s that the direction of gravity is averaged over
GRAVITY_RANGE = (0.4, 0.6, 1.4, 1.6)  # mean specific force at an end of the window, if it is mostly gravity
FREE_FALL = (0.4, 0.25)  # mean specific force over `FREE_FALL_TIME`
FREE_FALL_TIME = 0.15  # s; a drop from 11 cm
REST = (0.3, 0.15)  # root mean square of the specific force minus 1 g over `REST_TIME`
REST_TIME = 0.3  # s
REST_GAP = 0.1  # s between the rest before a drop and the free fall

# Examples in `motion_phrases.txt` that name a fall, in groups of one kind. Others that contain one of `SIMILAR_WORDS`
# are not contrasted with them.
FALL_PHRASES = (
    ("a fall", "falling over", "falling down", "falling to the ground", "free fall"),
    ("the robot falls over", "the robot tips over", "the robot was dropped"),
    ("being dropped", "dropped on the ground"),
    ("tipping over",),
)
SIMILAR_WORDS = ("fall", "drop", "tip")
# Ridges of the directions that are added and removed, in units of the variance of the other phrases (`_directions`). A
# small one separates falls from other phrases best, a large one changes a vector least.
ADDED_RIDGE, REMOVED_RIDGE = 0.003, 0.03
MIXING = 0.5  # length of the added direction for strength 1, where the rest has length 1 for strength 0


class MotionConcepts(nn.Module):
    """Adds the motion concepts of series (B, 6, T) at `rate` Hz to their vectors (B, 2080). Uses no trained weights.

    A series has acceleration (m/s², gravity included) and angular velocity. With the strength s of a fall, a vector v
    becomes (1 − s)·u + s·`MIXING`·d, scaled to unit length. d is the direction of the phrases that name a fall. u is v
    without its similarity to these phrases, where that is more than its mean similarity to phrases that name no motion:
    the network was trained without falls and finds bumps and steps similar to them.

    The result of a row depends on this row alone. All operations are on the device of the series, none waits for it.
    """

    direction: Tensor
    phrases: Tensor
    removed: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        directions = fall_directions()
        self.register_buffer("direction", directions.added, persistent=False)
        self.register_buffer("phrases", directions.phrases, persistent=False)
        self.register_buffer("removed", directions.removed, persistent=False)

    def forward(self, series: Tensor, vectors: Tensor) -> Tensor:
        """Unit vectors (B, 2080) of the series → unit vectors (B, 2080)."""
        excess = (vectors @ self.phrases.T).clamp(min=0.0)
        rest = functional.normalize(vectors - excess @ self.removed, dim=1)
        strength = fall_strength(series, self.rate)[:, None]
        return functional.normalize((1 - strength) * rest + strength * MIXING * self.direction, dim=1)


def fall_strength(series: Tensor, rate: float) -> Tensor:
    """Series (B, 6, T) at `rate` Hz → how surely each contains a fall or a drop, (B,), 0 to 1.

    Each sign has a strength of its own; the weakest sign counts. Windows of less than 1.5 s have 0.
    """

    def steps(seconds: float) -> int:
        return max(1, round(seconds * rate))

    if series.shape[2] < steps(3 * POSTURE_TIME):
        return series.new_zeros(len(series))
    force = functional.avg_pool1d(series[:, :3] / GRAVITY, steps(AVERAGING), 1)  # (B, 3, T')
    size = force.norm(dim=1)  # (B, T')
    strong = _ramp(size, IMPACT)
    impact = torch.minimum(strong, _jolt(force, steps(JOLT_TIME)))
    low = _ramp(size, START_OF_FALL)
    falling_over = torch.minimum(impact, _highest_before(low, steps(FALL_TIME))).amax(dim=1)
    falling_over = torch.minimum(falling_over, _posture_change(force, steps(POSTURE_TIME)))
    dropped = _drop(size, torch.minimum(strong, _jolt(force, steps(DROP_JOLT_TIME))), steps)
    return torch.maximum(falling_over, dropped)


def _jolt(force: Tensor, steps: int) -> Tensor:
    """Forces (B, 3, T) → how surely a jolt of `steps` is near each reading, (B, T)."""
    change = _ramp((force[:, :, steps:] - force[:, :, :-steps]).norm(dim=1), JOLT)
    # A change between t and t + steps is near both.
    return functional.max_pool1d(functional.pad(change, (steps, steps)), steps + 1, 1)


def _posture_change(force: Tensor, steps: int) -> Tensor:
    """Forces (B, 3, T) → how surely the direction of gravity differs between the ends of the window, (B,)."""
    before, after = force[:, :, :steps].mean(dim=2), force[:, :, -steps:].mean(dim=2)
    across = torch.linalg.cross(before, after, dim=1).norm(dim=1)
    angle = torch.rad2deg(torch.atan2(across, (before * after).sum(dim=1)))
    change = _ramp(angle, POSTURE_CHANGE)
    for mean in (before.norm(dim=1), after.norm(dim=1)):
        change = torch.minimum(change, _ramp(mean, GRAVITY_RANGE[:2]))
        change = torch.minimum(change, 1 - _ramp(mean, GRAVITY_RANGE[2:]))
    return change


def _drop(size: Tensor, impact: Tensor, steps: Callable[[float], int]) -> Tensor:
    """Norms of the forces and strengths of an impact (B, T) → how surely the IMU was dropped, (B,).

    Free fall follows rest, an impact follows free fall, and the window ends in rest. `steps`: seconds → readings.
    """
    unrest = functional.avg_pool1d((size - 1).square(), steps(REST_TIME), 1).sqrt()  # [i] of the readings from i on
    rest = _ramp(unrest, REST)
    falls = _ramp(functional.avg_pool1d(size, steps(FREE_FALL_TIME), 1), FREE_FALL)
    ahead = steps(REST_TIME) + steps(REST_GAP)
    count = falls.shape[1] - ahead
    begins = torch.minimum(falls[:, ahead:], rest[:, :count])  # [i] of free fall from i + ahead on
    begins = functional.pad(begins, (ahead, size.shape[1] - falls.shape[1]))
    hits = torch.minimum(impact, _highest_before(begins, steps(FALL_TIME))).amax(dim=1)
    return torch.minimum(hits, rest[:, -1])


def _highest_before(values: Tensor, steps: int) -> Tensor:
    """Values of 0 or more (B, T) → the highest of each and the `steps` before it, (B, T)."""
    return functional.max_pool1d(functional.pad(values, (steps, 0)), steps + 1, 1)


def _ramp(values: Tensor, ends: tuple[float, ...]) -> Tensor:
    """0 at `ends[0]` and beyond, 1 at `ends[1]` and beyond, linear between them; `ends` may fall."""
    start, end = ends
    return ((values - start) / (end - start)).clamp(0.0, 1.0)


class FallDirections(NamedTuple):
    """Directions of the space for G groups of phrases.

    `added` (2080,): of all groups, unit length. `phrases` (G, 2080): means of the groups minus that of phrases that
    name no motion. `removed` (G, 2080): the inner product of each with the same row of `phrases` is 1, with the other
    rows 0.
    """

    added: Tensor
    phrases: Tensor
    removed: Tensor


@lru_cache(maxsize=1)
def fall_directions() -> FallDirections:
    """The directions of `FALL_PHRASES`. Raises `SpaceError` if the file of the phrases is missing."""
    examples, vectors = motion_competence.phrases(), motion_competence.example_vectors()
    with torch.inference_mode(False):
        motion, other = (concepts.text_vectors(group).double() for group in vectors)
        plain = [
            rows[[not any(word in name for word in SIMILAR_WORDS) for name in names]]
            for names, rows in zip(examples, (motion, other), strict=True)
        ]
        groups = torch.stack([motion[[examples.motion.index(p) for p in group]].mean(dim=0) for group in FALL_PHRASES])
        phrases = groups - plain[1].mean(dim=0)
        contrast = torch.cat(plain)
        added = _directions(groups, phrases, contrast, ADDED_RIDGE).sum(dim=0)
        removed = _directions(groups, phrases, contrast, REMOVED_RIDGE)
        return FallDirections(functional.normalize(added, dim=0).float(), phrases.float(), removed.float())


def _directions(groups: Tensor, phrases: Tensor, contrast: Tensor, ridge: float) -> Tensor:
    """Means of groups (G, D), `FallDirections.phrases` (G, D) and other phrases (N, D) → directions (G, D).

    They are combinations of the linear discriminants (Σ + λ·I)⁻¹·(m₁ − m₀) of each group and the other phrases, with
    the covariance Σ of the other phrases and the ridge λ (J. H. Friedman, "Regularized discriminant analysis", 1989).
    So the other phrases have nearly equal cosines with them. Row i has the inner product 1 with row i of `phrases`, and
    0 with the other rows.
    """
    mean = contrast.mean(dim=0)
    rows, differences = (contrast - mean) / len(contrast) ** 0.5, groups - mean
    # The inverse of a matrix of the size of the number of phrases, by Woodbury's identity.
    gram = rows @ rows.T + ridge * torch.eye(len(rows), dtype=rows.dtype)
    discriminants = differences - (rows.T @ torch.linalg.solve(gram, rows @ differences.T)).T
    return torch.linalg.solve(discriminants @ phrases.T, discriminants)


@lru_cache(maxsize=1)
def concepts_id() -> str:
    """``motion@`` and 12 hexadecimal digits that identify the settings of the motion concepts and their phrases.

    Raises `SpaceError` if the file of the phrases is missing.
    """
    settings = (
        AVERAGING, IMPACT, JOLT, JOLT_TIME, DROP_JOLT_TIME, START_OF_FALL, FALL_TIME, POSTURE_CHANGE, POSTURE_TIME,
        GRAVITY_RANGE,
        FREE_FALL, FREE_FALL_TIME, REST, REST_TIME, REST_GAP, FALL_PHRASES, SIMILAR_WORDS, ADDED_RIDGE, REMOVED_RIDGE,
        MIXING,
    )  # fmt: skip
    vectors = torch.cat(motion_competence.example_vectors()).numpy().tobytes()
    return f"motion@{hashlib.sha256(vectors + repr(settings).encode()).hexdigest()[:12]}"
