"""What a simulated robot feels, in windows that hold a happening whole, in part or not: what motion trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from sensebind.fusion.config.files import shipped_parameter_file
from sensebind.fusion.core.space import Hub
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.recorder import GROUNDS, IMU_RATE, SimulatedEvent, SimulatedScenario, simulate_imu
from sensebind.simulation.scenario import DURATION_BY_KIND, read_scenario
from sensebind.simulation.survey import tour
from sensebind.training.data.pairs import Pairs, class_id

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

WINDOW_LENGTH = 2.0  # s of a window
WINDOW_SAMPLES = round(WINDOW_LENGTH * IMU_RATE)
WINDOW_HOP = 0.5  # s between those that are cut
BACKGROUND_KEPT_FRACTION = (
    0.3  # share of the windows with nothing to feel that are trained on, so that no group outweighs the others
)
IMAGE_TARGET_FRACTION = 0.3  # share of the windows that are bound to what was seen, where there is such
MIN_OVERLAP = 0.5  # s of a happening that a window must hold to stand for it
MIN_OVERLAP_SHORT_EVENT = 0.3  # s, where it lasts `SHORT_EVENT_DURATION` s or less
SHORT_EVENT_DURATION = 1.0
MIN_STATION_FRACTION = 0.8  # share of a window that must lie in a station of a tour to stand for it
VIBRATING_KINDS = tuple(label for label, kind in CATALOGUE.items() if kind.floor_vibration[1] > 0)
BACKGROUND_LABEL = "nothing"  # the label of the robot's own motion
BACKGROUND_PHRASES = (
    "a moving robot",
    "nothing happens",
    "a robot driving along",
    "nothing to feel",
)  # of `BACKGROUND_LABEL`
EVENT_DURATION_RANGE = (2.0, 8.0)  # s, where `scenario.DURATION_BY_KIND` says nothing
PAUSE_RANGE = (2.0, 4.5)  # s between happenings
ROOM_DURATION_RANGE = (15.0, 90.0)  # s at a place


def vibration_scenario(seed: int) -> SimulatedScenario:
    """All kinds of `VIBRATING_KINDS` once, in a random order, with pauses between them, over changing ground."""
    noise = np.random.default_rng([seed, 31])
    at, happenings = float(noise.uniform(*PAUSE_RANGE)), []
    for kind in noise.permutation(VIBRATING_KINDS):
        last = at + DURATION_BY_KIND.get(str(kind), float(noise.uniform(*EVENT_DURATION_RANGE)))
        happenings.append(SimulatedEvent(str(kind), at, last, frozenset({"imu"})))
        at = last + float(noise.uniform(*PAUSE_RANGE))
    places, start = [], 0.0
    while start < at:
        places.append((start, str(noise.choice(list(GROUNDS)))))
        start += float(noise.uniform(*ROOM_DURATION_RANGE))
    return SimulatedScenario(at, tuple(places), tuple(happenings), seed)


def patrol_scenario(seed: int) -> SimulatedScenario:
    """A robot that drives up and back in four rooms: what is felt is its own motion, but for one bump."""
    return read_scenario(shipped_parameter_file("scenarios/patrol.yaml"), seed)


def window_label(plan: SimulatedScenario, start: float, end: float) -> str | None:
    """What a window from `start` to `end` (s) stands for: a kind, `BACKGROUND_LABEL`, or None where that cannot be said
    because it holds too little of a happening, or enough of two."""
    shared = [
        (min(end, h.offset) - max(start, h.onset), h) for h in plan.events if CATALOGUE[h.kind].floor_vibration[1] > 0
    ]
    touched = [(part, h) for part, h in shared if part > 0]
    if not touched:
        return BACKGROUND_LABEL
    enough = {
        h.kind
        for part, h in touched
        if part >= (MIN_OVERLAP_SHORT_EVENT if h.offset - h.onset <= SHORT_EVENT_DURATION else MIN_OVERLAP)
    }
    return enough.pop() if len(enough) == 1 else None


def labelled_windows(plan: SimulatedScenario) -> tuple[list[Floats], list[str]]:
    """Windows (6, WINDOW_LENGTH · 200) of what a plan's robot feels, every `WINDOW_HOP` s, and what they stand for."""
    felt = simulate_imu(plan, np.arange(0, plan.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for last in range(WINDOW_SAMPLES, len(felt) + 1, round(WINDOW_HOP * IMU_RATE)):
        label = window_label(plan, (last - WINDOW_SAMPLES) / IMU_RATE, last / IMU_RATE)
        if label is not None:
            windows.append(felt[last - WINDOW_SAMPLES : last].T.copy())
            labels.append(label)
    return windows, labels


def labelled_station_windows(plan: SimulatedScenario) -> tuple[list[Floats], list[str]]:
    """Windows as `labelled_windows`, every second, that lie in one station of a tour each, but for what precedes it a
    little."""
    felt = simulate_imu(plan, np.arange(0, plan.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for happening in plan.events:
        for end in np.arange(
            happening.onset + MIN_STATION_FRACTION * WINDOW_LENGTH, happening.offset + 1e-6, 2 * WINDOW_HOP
        ):
            last = round(float(end) * IMU_RATE)
            if last >= WINDOW_SAMPLES:
                windows.append(felt[last - WINDOW_SAMPLES : last].T.copy())
                labels.append(happening.kind if happening.kind in VIBRATING_KINDS else BACKGROUND_LABEL)
    return windows, labels


def phrases(label: str) -> tuple[str, ...]:
    """What may be said of a kind, or of `BACKGROUND_LABEL`."""
    return BACKGROUND_PHRASES if label == BACKGROUND_LABEL else CATALOGUE[label].phrases


def prototypes(station_vectors: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kind → what its look adds to that of all: the mean of the hub's vectors of it, less the mean of all kinds', of
    unit length (D,). `station_vectors`: seed of a tour → (stations, V, D), of what is to be seen at each station.

    What is felt tells nothing of the room around, so a view of one room would teach noise.
    """
    views: dict[str, list[torch.Tensor]] = {}
    for seed, vectors in station_vectors.items():
        for happening, own in zip(tour(seed).events, vectors, strict=True):
            views.setdefault(happening.kind, []).extend(own)
    means = {kind: torch.stack(own).mean(0) for kind, own in views.items()}
    middle = torch.stack(list(means.values())).mean(0)
    return {kind: normalize(mean - middle, dim=0) for kind, mean in means.items()}


def imu_pairs(
    hub: Hub, scenario_seeds: Sequence[int], survey_seeds: Sequence[int], patrol_seeds: Sequence[int],
    image_prototypes: Mapping[str, torch.Tensor], seed: int = 0,
) -> Pairs:  # fmt: skip
    """Windows of simulated robots beside the hub's vector of a phrase for what is felt, or (a share of
    `IMAGE_TARGET_FRACTION`) of what is `image_prototypes` then. Most of those that hold nothing are left out. A block
    is a recording."""
    noise = np.random.default_rng([seed, 33])
    inputs: list[Floats] = []
    labels: list[str] = []
    blocks: list[int] = []
    made = [
        (labelled_windows, vibration_scenario, scenario_seeds),
        (labelled_station_windows, tour, survey_seeds),
        (labelled_windows, patrol_scenario, patrol_seeds),
    ]
    parts = [cut(plan(number)) for cut, plan, numbers in made for number in numbers]
    for block, (windows, own) in enumerate(tqdm(parts, desc="motion", disable=None)):
        for window, label in zip(windows, own, strict=True):
            if label != BACKGROUND_LABEL or noise.random() < BACKGROUND_KEPT_FRACTION:
                inputs.append(window)
                labels.append(label)
                blocks.append(block)
    words = {label: hub.embed_text(phrases(label)) for label in sorted(set(labels))}
    targets = [
        image_prototypes[label]
        if label in image_prototypes and noise.random() < IMAGE_TARGET_FRACTION
        else words[label][int(noise.integers(len(words[label])))]
        for label in labels
    ]
    rows = torch.tensor(blocks)
    return Pairs(
        torch.from_numpy(np.stack(inputs)), torch.stack(targets), torch.tensor([class_id(n) for n in labels]), rows,
        torch.stack([rows, rows + 1], dim=1), torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip
