"""Recordings, events and pages for the tests of the report."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

import numpy as np

from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.fusion.stream.statistics import SensorStatistics
from sensebind.report import (
    ReportData,
    SensorPreviews,
    Similarity,
)

START = 1_790_000_000 * SECOND

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A parsed page: its tags, attributes and text. Fails if a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def frame(modality: str, second: float, seed: int = 0, noise: bool = False) -> Sample:
    generator = np.random.default_rng(seed)
    if modality == VISION:
        pixels = generator.integers(0, 255 if noise else 40, (120, 160, 3), np.uint8)
        data = Frame(pixels.ravel(), "rgb8", 120, 160)
    else:
        counts = generator.integers(500, 4000, (60, 80)).astype("<u2") + (29_000 if modality == THERMAL else 0)
        data = Frame(np.frombuffer(counts.astype("<u2").tobytes(), np.uint8), "16UC1", 60, 80)
    return Sample(modality, START + round(second * SECOND), data)


def sound(second: float, hertz: float = 1000.0, length: float = 0.1, rate: float = 16_000.0) -> Sample:
    instants = second + np.arange(round(length * rate)) / rate
    wave = np.sin(2 * np.pi * hertz * instants).astype(np.float32)
    return Sample(AUDIO, START + round(second * SECOND), Sound(wave[:, None], rate))


def motion(second: float, value: float = 0.0) -> Sample:
    return Sample(IMU, START + round(second * SECOND), Reading(np.array([value, 0, 9.81, 0, 0, value])))


def recorded(seconds: float = 10.0, modalities=(VISION, DEPTH, THERMAL, AUDIO, IMU)) -> SensorPreviews:
    previews = SensorPreviews()
    for i in range(round(seconds * 10)):
        for modality in modalities:
            if modality == AUDIO:
                previews.add(sound(i / 10))
            elif modality == IMU:
                previews.add(motion(i / 10, np.sin(i / 5)))
            else:
                previews.add(frame(modality, i / 10, i), Calibration())
    return previews


def event(
    label: str, onset: float, offset: float | None, kind: EventKind = EventKind.PROMPT, score: float = 0.9
) -> list[Event]:
    """ONSET, an UPDATE each second, and OFFSET if `offset` is given. Times in s after `START`."""
    begin = START + round(onset * SECOND)
    identity = f"{kind.name.lower()}/{label}/{begin}"
    reports = []
    tick = begin + SECOND
    phase = EventPhase.ONSET
    until = START + round((offset if offset is not None else onset + 3) * SECOND)
    while tick < until:
        evidence = (
            Evidence(VISION, score, True, tick - SECOND, tick),
            Evidence(AUDIO, 0.1, False, tick - SECOND, tick),
        )
        reports.append(Event(identity, kind, label, phase, begin, 0, tick, score, "toy@0", evidence))
        tick, phase = tick + SECOND, EventPhase.UPDATE
    if offset is not None:
        reports.append(Event(identity, kind, label, EventPhase.OFFSET, begin, until, until + SECOND, 0.1, "toy@0"))
    return reports


def make_similarity(labels, seconds: float = 10.0, hop: float = 0.5) -> Similarity:
    ticks = START + (np.arange(1, int(seconds / hop)) * hop * SECOND).astype(np.int64)
    scores = 0.2 + 0.1 * np.sin(np.arange(len(ticks))[:, None] / 4 + np.arange(len(labels)))
    return Similarity(ticks, tuple(labels), scores.astype(np.float32))


def figures(windows: int = 20) -> dict:
    counts = Counter(windows=windows, embedded=windows - 2, coverage=1, overload=1, late=3)
    return SensorStatistics(counts, [10.0] * 99 + [40.0], 0.9 * windows).summary()


def report(**changes) -> ReportData:
    labels = ("cat", "fire")
    given = {
        "title": "Patrol",
        "recording": "patrol",
        "space": "toy@0",
        "licence": "Apache-2.0",
        "start": START,
        "end": START + 10 * SECOND,
        "modalities": {VISION: figures(), AUDIO: figures()},
        "similarities": {m: make_similarity(labels) for m in ("fused", VISION, AUDIO)},
        "events": [
            *event("cat", 2, 5),
            *event("unusual", 4, 7, EventKind.NOVELTY),
            *event("audio+vision", 7, None, EventKind.DISAGREEMENT),
        ],
        "previews": recorded(),
        "truth": [(2.0, 5.5, "cat"), (8.0, 9.0, "fire")],
        "realtime_factor": 12.5,
        "notes": ["Played once."],
    }
    return ReportData(**{**given, **changes})
