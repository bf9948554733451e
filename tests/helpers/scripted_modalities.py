"""Streams of embeddings written by hand: modalities in a toy space that perceive a room, a dog, a car."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.tracker import EventTracker

HOP = SECOND // 2
START = 1_700_000_000 * SECOND
SIZE = 64
SPACE = "toy@1"
CONCEPTS = {
    name: vector.astype(np.float32)
    for name, vector in zip(
        ["dog", "car", "room", "forest", "hum"],
        np.linalg.qr(np.random.default_rng(7).normal(size=(SIZE, SIZE)))[0],
        strict=False,
    )
}
PROMPTS = {"dog": ["a dog", "a puppy"], "car": ["a car"]}
ROOM = {"room": 1.0}
DOG = {"room": 0.6, "dog": 1.0}


def embed_text(texts: Sequence[str]) -> np.ndarray:
    """Toy text encoder: known phrases are near their concept, others are random."""
    rows = []
    for text in texts:
        noise = np.random.default_rng(list(text.encode())).normal(size=SIZE) / np.sqrt(SIZE)
        near = [c for w, c in (("dog", "dog"), ("puppy", "dog"), ("car", "car")) if text == f"a {w}"]
        rows.append(1.5 * CONCEPTS[near[0]] + noise if near else noise)
    return l2_normalize(rows)


class ScriptedModalities:
    """Scripted modalities: a vector is the weighted sum of the given concepts, plus noise. Windows have length 0."""

    def __init__(self, seed: int = 0, noise: float = 0.3, start: int = START) -> None:
        self.random = np.random.default_rng(seed)
        self.noise, self.tick = noise, start

    def perceive(self, modality: str, what: Mapping[str, float], coverage: float = 1.0) -> Embedding:
        parts = sum(weight * CONCEPTS[name] for name, weight in what.items())
        vector = l2_normalize(parts + self.noise * self.random.normal(size=SIZE) / np.sqrt(SIZE))
        return Embedding(modality, self.tick, self.tick, SPACE, coverage, vector)

    def ticks(self, count: int) -> Iterator[int]:
        for _ in range(count):
            self.tick += HOP
            yield self.tick


def same_scene(what: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    return {"vision": what, "audio": {**what, "hum": 0.8}}


def random_ticks(seed: int) -> list[tuple[int, dict[str, Embedding]]]:
    """Ticks of modalities that are present at random and whose scenes change at random."""
    world, random = ScriptedModalities(seed), np.random.default_rng(seed)
    ticks, what = [], dict.fromkeys(("vision", "audio", "depth"), ROOM)
    for tick in world.ticks(300):
        for modality in what:
            if random.random() < 0.03:
                names = random.choice(list(CONCEPTS), 2, replace=False)
                what[modality] = dict.fromkeys(map(str, names), 1.0)
        ticks.append((tick, {m: world.perceive(m, w) for m, w in what.items() if random.random() < 0.8}))
    return ticks


def play(
    tracker: EventTracker, world: ScriptedModalities, scenes: Sequence[tuple[int, Mapping[str, Mapping[str, float]]]]
) -> list[Event]:
    """Return the events of `scenes`: (number of ticks, modality → concepts with weights)."""
    events = []
    for count, modalities in scenes:
        for tick in world.ticks(count):
            events += tracker.step(tick, {m: world.perceive(m, what) for m, what in modalities.items()})
    return events


def assert_well_formed(events: Sequence[Event]) -> None:
    """Each id has one onset, updates and one offset. Events of a label do not overlap. Stamps are consistent."""
    reports_by_id: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        reports_by_id[event.id].append(event)
    ends: dict[tuple[EventKind, str], int] = {}
    for reports in reports_by_id.values():
        phases = [e.phase for e in reports]
        assert phases[0] is EventPhase.ONSET and phases[-1] is EventPhase.OFFSET
        assert set(phases[1:-1]) <= {EventPhase.UPDATE}
        assert len({(e.kind, e.label, e.onset) for e in reports}) == 1
        assert all(e.offset == 0 for e in reports[:-1]) and reports[-1].offset >= reports[-1].onset
        assert all(0 <= e.score <= 1 and e.onset <= e.tick for e in reports)
        assert [e.tick for e in reports] == sorted(e.tick for e in reports)
        key = reports[0].kind, reports[0].label
        assert reports[0].onset > ends.get(key, 0)
        ends[key] = reports[-1].offset
    assert [e.tick for e in events] == sorted(e.tick for e in events)
