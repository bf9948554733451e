"""What a simulated robot feels, in windows that hold a happening whole, in part or not: what motion trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from sensebind.fusion.config.files import shipped
from sensebind.fusion.core.space import Hub
from sensebind.simulation.catalogue import KINDS
from sensebind.simulation.record import GROUNDS, IMU_RATE, Happening, Plan, feel
from sensebind.simulation.scenario import SHORT, read
from sensebind.simulation.survey import tour
from sensebind.training.data.pairs import Pairs, named_group

Floats = npt.NDArray[np.float32]
Noise = np.random.Generator

LENGTH = 2.0  # s of a window
SAMPLES = round(LENGTH * IMU_RATE)
HOP = 0.5  # s between those that are cut
KEPT = 0.3  # share of the windows with nothing to feel that are trained on, so that no group outweighs the others
SEEN = 0.3  # share of the windows that are bound to what was seen, where there is such
INSIDE = 0.5  # s of a happening that a window must hold to stand for it
INSIDE_SHORT = 0.3  # s, where it lasts `SHORTEST` s or less
SHORTEST = 1.0
WITHIN = 0.8  # share of a window that must lie in a station of a tour to stand for it
FELT = tuple(label for label, kind in KINDS.items() if kind.shakes[1] > 0)
NOTHING = "nothing"  # the label of the robot's own motion
PHRASES = ("a moving robot", "nothing happens", "a robot driving along", "nothing to feel")  # of `NOTHING`
LASTS = (2.0, 8.0)  # s, where `scenario.SHORT` says nothing
PAUSE = (2.0, 4.5)  # s between happenings
STAY = (15.0, 90.0)  # s at a place


def stroll(seed: int) -> Plan:
    """All kinds of `FELT` once, in a random order, with pauses between them, over changing ground."""
    noise = np.random.default_rng([seed, 31])
    at, happenings = float(noise.uniform(*PAUSE)), []
    for kind in noise.permutation(FELT):
        last = at + SHORT.get(str(kind), float(noise.uniform(*LASTS)))
        happenings.append(Happening(str(kind), at, last, frozenset({"imu"})))
        at = last + float(noise.uniform(*PAUSE))
    places, start = [], 0.0
    while start < at:
        places.append((start, str(noise.choice(list(GROUNDS)))))
        start += float(noise.uniform(*STAY))
    return Plan(at, tuple(places), tuple(happenings), seed)


def patrol(seed: int) -> Plan:
    """A robot that drives up and back in four rooms: what is felt is its own motion, but for one bump."""
    return read(shipped("scenarios/patrol.yaml"), seed)


def label_of(plan: Plan, start: float, end: float) -> str | None:
    """What a window from `start` to `end` (s) stands for: a kind, `NOTHING`, or None where that cannot be said
    because it holds too little of a happening, or enough of two."""
    shared = [(min(end, h.offset) - max(start, h.onset), h) for h in plan.happenings if KINDS[h.kind].shakes[1] > 0]
    touched = [(part, h) for part, h in shared if part > 0]
    if not touched:
        return NOTHING
    enough = {h.kind for part, h in touched if part >= (INSIDE_SHORT if h.offset - h.onset <= SHORTEST else INSIDE)}
    return enough.pop() if len(enough) == 1 else None


def cuts(plan: Plan) -> tuple[list[Floats], list[str]]:
    """Windows (6, LENGTH · 200) of what a plan's robot feels, every `HOP` s, and what they stand for."""
    felt = feel(plan, np.arange(0, plan.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for last in range(SAMPLES, len(felt) + 1, round(HOP * IMU_RATE)):
        label = label_of(plan, (last - SAMPLES) / IMU_RATE, last / IMU_RATE)
        if label is not None:
            windows.append(felt[last - SAMPLES : last].T.copy())
            labels.append(label)
    return windows, labels


def station_cuts(plan: Plan) -> tuple[list[Floats], list[str]]:
    """Windows as `cuts`, every second, that lie in one station of a tour each, but for what precedes it a little."""
    felt = feel(plan, np.arange(0, plan.duration, 1 / IMU_RATE)).astype(np.float32)
    windows, labels = [], []
    for happening in plan.happenings:
        for end in np.arange(happening.onset + WITHIN * LENGTH, happening.offset + 1e-6, 2 * HOP):
            last = round(float(end) * IMU_RATE)
            if last >= SAMPLES:
                windows.append(felt[last - SAMPLES : last].T.copy())
                labels.append(happening.kind if happening.kind in FELT else NOTHING)
    return windows, labels


def phrases(label: str) -> tuple[str, ...]:
    """What may be said of a kind, or of `NOTHING`."""
    return PHRASES if label == NOTHING else KINDS[label].phrases


def prototypes(sights: Mapping[int, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Kind → what its look adds to that of all: the mean of the hub's vectors of it, less the mean of all kinds', of
    unit length (D,). `sights`: seed of a tour → (stations, V, D), of what is to be seen at each station.

    What is felt tells nothing of the room around, so a view of one room would teach noise.
    """
    views: dict[str, list[torch.Tensor]] = {}
    for seed, vectors in sights.items():
        for happening, own in zip(tour(seed).happenings, vectors, strict=True):
            views.setdefault(happening.kind, []).extend(own)
    means = {kind: torch.stack(own).mean(0) for kind, own in views.items()}
    middle = torch.stack(list(means.values())).mean(0)
    return {kind: normalize(mean - middle, dim=0) for kind, mean in means.items()}


def felt_pairs(
    hub: Hub, strolls: Sequence[int], tours: Sequence[int], patrols: Sequence[int],
    seen: Mapping[str, torch.Tensor], seed: int = 0,
) -> Pairs:  # fmt: skip
    """Windows of simulated robots beside the hub's vector of a phrase for what is felt, or (a share of `SEEN`) of what
    is `seen` then. Most of those that hold nothing are left out. A block is a recording."""
    noise = np.random.default_rng([seed, 33])
    inputs: list[Floats] = []
    labels: list[str] = []
    blocks: list[int] = []
    made = [(cuts, stroll, strolls), (station_cuts, tour, tours), (cuts, patrol, patrols)]
    parts = [cut(plan(number)) for cut, plan, numbers in made for number in numbers]
    for block, (windows, own) in enumerate(tqdm(parts, desc="motion", disable=None)):
        for window, label in zip(windows, own, strict=True):
            if label != NOTHING or noise.random() < KEPT:
                inputs.append(window)
                labels.append(label)
                blocks.append(block)
    words = {label: hub.embed_text(phrases(label)) for label in sorted(set(labels))}
    targets = [
        seen[label] if label in seen and noise.random() < SEEN else words[label][int(noise.integers(len(words[label])))]
        for label in labels
    ]
    rows = torch.tensor(blocks)
    return Pairs(
        torch.from_numpy(np.stack(inputs)), torch.stack(targets), torch.tensor([named_group(n) for n in labels]), rows,
        torch.stack([rows, rows + 1], dim=1), torch.zeros_like(rows), torch.empty(0),
    )  # fmt: skip
