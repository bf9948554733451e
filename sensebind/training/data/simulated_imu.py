"""Training data of the IMU spoke: windows of simulated robots, with a simulated event, part of one, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from sensebind.fusion.config.files import shipped_parameter_file
from sensebind.fusion.core.space import Hub
from sensebind.replay.progress import track
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.recorder import GROUNDS, IMU_RATE, SimulatedEvent, SimulatedScenario, simulate_imu
from sensebind.simulation.scenario import DURATION_BY_KIND, read_scenario
from sensebind.simulation.survey import survey_scenario
from sensebind.training.data.pairs import Pairs, class_id

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

WINDOW_LENGTH = 2.0  # s
WINDOW_SAMPLES = round(WINDOW_LENGTH * IMU_RATE)
WINDOW_HOP = 0.5  # s from one window to the next
BACKGROUND_KEPT_FRACTION = 0.3  # of the windows without vibration, so that their group does not outweigh the others
IMAGE_TARGET_FRACTION = 0.3  # of the windows whose kind has an image prototype: their target is the prototype
MIN_OVERLAP = 0.5  # s of a simulated event that a window with its label must contain
MIN_OVERLAP_SHORT_EVENT = 0.3  # s, the same for events of at most `SHORT_EVENT_DURATION`
SHORT_EVENT_DURATION = 1.0  # s
MIN_STATION_FRACTION = 0.8  # of a window that must be in the station of a survey whose label it has
VIBRATING_KINDS = tuple(label for label, kind in CATALOGUE.items() if kind.floor_vibration[1] > 0)
BACKGROUND_LABEL = "nothing"  # label of the robot's own motion
BACKGROUND_PHRASES = ("a moving robot", "nothing happens", "a robot driving along", "nothing to feel")
EVENT_DURATION_RANGE = (2.0, 8.0)  # s, for kinds that are not in `scenario.DURATION_BY_KIND`
PAUSE_RANGE = (2.0, 4.5)  # s between simulated events
ROOM_DURATION_RANGE = (15.0, 90.0)  # s at one place


def vibration_scenario(seed: int) -> SimulatedScenario:
    """All kinds of `VIBRATING_KINDS` once, in a random order, with pauses between them, on changing ground."""
    noise = np.random.default_rng([seed, 31])
    at, events = float(noise.uniform(*PAUSE_RANGE)), []
    for kind in noise.permutation(VIBRATING_KINDS):
        last = at + DURATION_BY_KIND.get(str(kind), float(noise.uniform(*EVENT_DURATION_RANGE)))
        events.append(SimulatedEvent(str(kind), at, last, frozenset({"imu"})))
        at = last + float(noise.uniform(*PAUSE_RANGE))
    places, start = [], 0.0
    while start < at:
        places.append((start, str(noise.choice(list(GROUNDS)))))
        start += float(noise.uniform(*ROOM_DURATION_RANGE))
    return SimulatedScenario(at, tuple(places), tuple(events), seed)


def patrol_scenario(seed: int) -> SimulatedScenario:
    """A robot that drives forward and back in four rooms. It has one bump; the other vibrations are its own motion."""
    return read_scenario(shipped_parameter_file("scenarios/patrol.yaml"), seed)


def window_label(scenario: SimulatedScenario, start: float, end: float) -> str | None:
    """The label of a window from `start` to `end` (s): a kind, `BACKGROUND_LABEL`, or None.

    None means that the window contains too little of a simulated event, or enough of two.
    """
    shared = [
        (min(end, event.offset) - max(start, event.onset), event)
        for event in scenario.events
        if CATALOGUE[event.kind].floor_vibration[1] > 0
    ]
    overlaps = [(overlap, event) for overlap, event in shared if overlap > 0]
    if not overlaps:
        return BACKGROUND_LABEL
    enough = {
        event.kind
        for overlap, event in overlaps
        if overlap >= (MIN_OVERLAP_SHORT_EVENT if event.offset - event.onset <= SHORT_EVENT_DURATION else MIN_OVERLAP)
    }
    return enough.pop() if len(enough) == 1 else None


def labelled_windows(scenario: SimulatedScenario) -> tuple[list[Floats], list[str]]:
    """IMU windows float32 (6, `WINDOW_SAMPLES`) of a scenario, every `WINDOW_HOP` s, and their labels.

    Windows without a label are left out.
    """
    readings = simulate_imu(scenario, np.arange(0, scenario.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for last in range(WINDOW_SAMPLES, len(readings) + 1, round(WINDOW_HOP * IMU_RATE)):
        label = window_label(scenario, (last - WINDOW_SAMPLES) / IMU_RATE, last / IMU_RATE)
        if label is not None:
            windows.append(readings[last - WINDOW_SAMPLES : last].T.copy())
            labels.append(label)
    return windows, labels


def labelled_station_windows(scenario: SimulatedScenario) -> tuple[list[Floats], list[str]]:
    """IMU windows as in `labelled_windows`, every second of a survey, each with the label of one station.

    At least `MIN_STATION_FRACTION` of a window is in its station.
    """
    readings = simulate_imu(scenario, np.arange(0, scenario.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for event in scenario.events:
        for end in np.arange(event.onset + MIN_STATION_FRACTION * WINDOW_LENGTH, event.offset + 1e-6, 2 * WINDOW_HOP):
            last = round(float(end) * IMU_RATE)
            if last >= WINDOW_SAMPLES:
                windows.append(readings[last - WINDOW_SAMPLES : last].T.copy())
                labels.append(event.kind if event.kind in VIBRATING_KINDS else BACKGROUND_LABEL)
    return windows, labels


def phrases(label: str) -> tuple[str, ...]:
    """The phrases of a kind, or of `BACKGROUND_LABEL`."""
    return BACKGROUND_PHRASES if label == BACKGROUND_LABEL else CATALOGUE[label].phrases


def prototypes(station_vectors: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kind → image prototype (D,), of unit length: the mean of the hub's image vectors of the kind, minus the mean of
    all kinds.

    `station_vectors`: seed of a survey → the hub's image vectors of each station (stations, V, D). A vibration does
    not depend on the room around, so the mean over many rooms is a better target than a single view.
    """
    views: dict[str, list[torch.Tensor]] = {}
    for seed, vectors in station_vectors.items():
        for event, own in zip(survey_scenario(seed).events, vectors, strict=True):
            views.setdefault(event.kind, []).extend(own)
    means = {kind: torch.stack(own).mean(0) for kind, own in views.items()}
    overall = torch.stack(list(means.values())).mean(0)
    return {kind: normalize(mean - overall, dim=0) for kind, mean in means.items()}


def imu_pairs(
    hub: Hub, scenario_seeds: Sequence[int], survey_seeds: Sequence[int], patrol_seeds: Sequence[int],
    image_prototypes: Mapping[str, torch.Tensor], seed: int = 0,
) -> Pairs:  # fmt: skip
    """Windows of simulated robots, paired with the hub's vector of a phrase or with an image prototype of their kind.

    `scenario_seeds`, `survey_seeds` and `patrol_seeds` are the seeds of `vibration_scenario`, of surveys and of
    `patrol_scenario`. `image_prototypes`: kind → (D,). Most windows without vibration are left out. A block is a
    scenario.
    """
    noise = np.random.default_rng([seed, 33])
    inputs: list[Floats] = []
    labels: list[str] = []
    blocks: list[int] = []
    sources = [
        (labelled_windows, vibration_scenario, scenario_seeds),
        (labelled_station_windows, survey_scenario, survey_seeds),
        (labelled_windows, patrol_scenario, patrol_seeds),
    ]
    parts = [cut(make(number)) for cut, make, numbers in sources for number in numbers]
    for block, (windows, own) in enumerate(track(parts, "motion", "parts")):
        for window, label in zip(windows, own, strict=True):
            if label != BACKGROUND_LABEL or noise.random() < BACKGROUND_KEPT_FRACTION:
                inputs.append(window)
                labels.append(label)
                blocks.append(block)
    texts = {label: hub.embed_text(phrases(label)) for label in sorted(set(labels))}
    targets = [
        image_prototypes[label]
        if label in image_prototypes and noise.random() < IMAGE_TARGET_FRACTION
        else texts[label][int(noise.integers(len(texts[label])))]
        for label in labels
    ]
    rows = torch.tensor(blocks)
    return Pairs(
        torch.from_numpy(np.stack(inputs)), torch.stack(targets), torch.tensor([class_id(n) for n in labels]), rows,
        torch.stack([rows, rows + 1], dim=1), torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip
