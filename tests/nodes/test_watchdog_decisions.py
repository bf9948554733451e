"""When embeddings count as stopped, and what happens to those that wait while the detector stands still: on a simulated
clock, for any course of arrivals."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND, to_ns
from sensebind.nodes.tick_assembler import TickAssembler
from sensebind.nodes.watchdog import (
    EMBEDDINGS_STOPPED,
    MAX_MISSED_HOPS,
    MAX_POLL_GAP,
    MIN_SILENCE,
    POLL_PERIOD,
    STALL,
    Backlog,
    EmbeddingWatchdog,
)

START = 1_700_000_000 * SECOND
VECTOR = np.ones(4, np.float32) / 2
HOPS = st.sampled_from([0.1, 0.25, 0.5, 1.0, 2.0, 5.0])


def embedding(tick: int, modality: str = "vision", sources: tuple[str, ...] = ()) -> Embedding:
    return Embedding(modality, tick - SECOND, tick, "toy@0", 1.0, VECTOR, sensor=modality, sources=sources)


class Simulation:
    """A detector's watchdog on a simulated clock, which is in seconds. `rate`: that of `/clock`; None: no `/clock`."""

    def __init__(self, hop: float, rate: float | None = None) -> None:
        self.watchdog = EmbeddingWatchdog()
        self.watchdog.longest_hop = self.hop = hop
        self.rate, self.now, self.clock = rate, 0.0, START
        self.next_tick = START  # of an embedding that arrives when the stamps reach it
        self.embedder_runs = self.clock_runs = True
        self.reports: list[tuple[float, Event]] = []

    def run(self, seconds: float, poll_period: float = POLL_PERIOD) -> None:
        """Poll for `seconds`. Embeddings that are due arrive before each poll, the first one at a stamp of 0."""
        end = self.now + seconds
        while self.now < end:
            step = min(poll_period, end - self.now)
            self.now += step
            self.clock += to_ns(step * (self.rate or 1.0)) if self.clock_runs else 0
            while self.clock >= self.next_tick:
                if self.embedder_runs:
                    self._report(self.watchdog.add(embedding(self.next_tick)))
                self.next_tick += to_ns(self.hop)
            self._report(self.watchdog.poll(self.now, None if self.rate is None else self.clock))

    def phases(self) -> list[str]:
        return [event.phase.name for _, event in self.reports]

    def _report(self, events: list[Event]) -> None:
        self.reports += [(self.now, event) for event in events]


@given(hop=HOPS, before=st.floats(4, 30), rate=st.sampled_from([None, 1.0]))
def test_events_end_within_3_s_or_3_hops_of_the_last_embedding(hop: float, before: float, rate: float | None) -> None:
    simulation = Simulation(hop, rate)
    simulation.run(3 * hop + before)
    simulation.embedder_runs = False
    simulation.run(max(3.0, 3 * hop))
    assert simulation.phases()[:1] == ["ONSET"]
    at, onset = simulation.reports[0]
    last = (onset.onset - START) / SECOND
    assert at - last <= max(3.0, 3 * hop)
    assert (onset.kind, onset.label) == (EventKind.FAULT, EMBEDDINGS_STOPPED)
    assert [e.modality for e in onset.evidence] == ["vision"]
    assert onset.onset == onset.evidence[0].tick <= simulation.clock


@given(
    hop=HOPS,
    rate=st.sampled_from([None, 0.2, 1.0, 5.0]),
    course=st.lists(st.tuples(st.floats(0, 12), st.floats(0.05, 9)), min_size=1, max_size=8),
)
def test_a_detector_that_stands_still_reports_nothing_of_an_embedder_that_runs(
    hop: float, rate: float | None, course: list[tuple[float, float]]
) -> None:
    simulation = Simulation(hop, rate)
    for running, stall in course:
        simulation.run(running)
        simulation.run(stall, poll_period=stall)  # one poll after the whole stall
    simulation.run(1.0)
    assert not simulation.reports


@given(hop=HOPS, pauses=st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 60)), max_size=6))
def test_nothing_is_reported_while_the_clock_stands_still(hop: float, pauses: list[tuple[float, float]]) -> None:
    simulation = Simulation(hop, rate=1.0)
    simulation.run(3 * hop + 1)
    for running, pause in pauses:
        simulation.run(running)
        simulation.clock_runs = False
        simulation.run(pause)
        simulation.clock_runs = True
    assert not simulation.reports


@given(hop=HOPS, outages=st.lists(st.floats(0, 90), min_size=1, max_size=4))
def test_each_outage_is_one_event_that_ends_when_embeddings_arrive_again(hop: float, outages: list[float]) -> None:
    simulation = Simulation(hop)
    for outage in outages:
        simulation.run(4 * hop + 3)
        simulation.embedder_runs = False
        simulation.run(outage)
        simulation.embedder_runs = True
    simulation.run(2 * hop + 1)
    phases = [phase for phase in simulation.phases() if phase != "UPDATE"]
    assert phases == ["ONSET", "OFFSET"] * (len(phases) // 2)
    certain = sum(outage >= max(3.0, 3 * hop) for outage in outages)
    shortest = max(MIN_SILENCE, MAX_MISSED_HOPS * hop) - 2 * hop  # the next embedding is due up to a hop later
    possible = sum(outage > shortest - 2 * POLL_PERIOD for outage in outages)
    assert certain <= len(phases) // 2 <= possible
    assert not simulation.watchdog.has_stopped
    for number in {event.id for _, event in simulation.reports}:
        event = [event for _, event in simulation.reports if event.id == number]
        stamps = [report.tick for report in event]
        assert stamps == sorted(stamps) and event[-1].offset == stamps[-1] >= event[0].onset
        assert all(report.offset == 0 for report in event[:-1])


def test_a_camera_with_an_image_every_5_s_is_no_fault() -> None:
    simulation = Simulation(5.0)
    simulation.watchdog.longest_hop = 0.5  # most hops have no image
    simulation.run(120)
    assert not simulation.reports


def test_nothing_is_reported_before_the_first_embedding() -> None:
    simulation = Simulation(0.5)
    simulation.embedder_runs = False
    simulation.run(60)
    assert not simulation.reports


def test_a_long_outage_is_updated_every_5_s() -> None:
    simulation = Simulation(0.5)
    simulation.run(5)
    simulation.embedder_runs = False
    simulation.run(30)
    times = [at for at, event in simulation.reports if event.phase is EventPhase.UPDATE]
    assert len(times) == 5 and all(4.99 < b - a < 5 + 2 * POLL_PERIOD for a, b in zip(times, times[1:], strict=False))


def deliver(ticks: int, lost: dict[str, int], order: list[int]) -> tuple[list[tuple[int, list[str]]], int, int]:
    """What a detector processes after a stall in which `ticks` ticks of three modalities waited.

    The first `lost` messages of each topic were lost. `order`: the topic that is received next. Returns the ticks with
    their modalities, the number of jumps of the clock, and the number of dropped embeddings.
    """
    backlog, assembler = Backlog(), TickAssembler(SECOND)
    topics: dict[str, list[tuple[int, Embedding]]] = {"audio": [], "imu": [], "vision": [], FUSED: []}
    for number in range(ticks + 1):
        tick = START + number * SECOND // 2
        for modality in topics:
            sources = ("audio", "imu", "vision") if modality == FUSED else ()
            topics[modality].append((number, embedding(tick, modality, sources)))
    processed: list[tuple[int, dict[str, Embedding]]] = []
    for modality, queue in topics.items():  # the tick before the stall
        number, first = queue.pop(0)
        assert not backlog.hold(0.0, first, number)
        processed += assembler.add(first)
        del queue[: lost.get(modality, 0)]
    assert backlog.release(0.0) == []
    now = 8.0
    names = list(topics)
    while any(topics.values()):
        name = next((names[at % 4] for at in order if topics[names[at % 4]]), next(n for n in names if topics[n]))
        order = order[1:] + order[:1]
        number, item = topics[name].pop(0)
        assert backlog.hold(now, item, number)
    assert not backlog.release(now), "more may still arrive"
    jumps = 0
    for item in backlog.release(now + 0.75 * STALL):
        jumps += assembler.jumped_back(item)
        processed += assembler.add(item)
    return [(tick, sorted(present)) for tick, present in processed], jumps, backlog.dropped


@given(
    ticks=st.integers(1, 40),
    lost=st.dictionaries(st.sampled_from(["audio", "imu", "vision"]), st.integers(0, 30)),
    order=st.lists(st.integers(0, 3), min_size=1, max_size=60),
)
def test_after_a_stall_each_tick_is_processed_once_with_all_modalities(
    ticks: int, lost: dict[str, int], order: list[int]
) -> None:
    processed, jumps, dropped = deliver(ticks, lost, order)
    most = max([0, *lost.values()])
    numbers = [(tick - START) * 2 // SECOND for tick, _ in processed]
    assert not jumps
    if most < ticks:
        assert numbers == [0, *range(most + 1, ticks + 1)]
        assert all(present == ["audio", "imu", "vision"] for _, present in processed)
        assert dropped == sum(most - lost.get(m, 0) for m in ("audio", "imu", "vision", FUSED))
    assert len(set(numbers)) == len(numbers)


def test_a_stall_is_longer_than_what_is_counted_of_it() -> None:
    assert POLL_PERIOD < MAX_POLL_GAP < STALL


def held_for(late: float) -> float:
    """How long (s) embeddings are held after a stall if those of the IMU come `late` seconds after the others."""
    backlog = Backlog()
    for name in ("imu", "vision"):
        assert not backlog.hold(0.0, embedding(START, name), 0)
    for number in range(400):
        now, tick = 4.0 + 0.01 * number, START + 4 * SECOND + number // 50 * SECOND // 2
        backlog.hold(now, embedding(tick, "vision"), number + 1)
        if now - 4.0 >= late:
            backlog.hold(now, embedding(tick, "imu"), number + 1)
        if backlog.release(now):
            return now - 4.0
    raise AssertionError("they are still held")


def test_a_sensor_whose_messages_come_seconds_after_a_stall_is_waited_for_and_one_that_ended_not_for_long() -> None:
    assert 0.45 < held_for(0.0) < 0.55
    assert 1.45 < held_for(1.5) < 1.55
    assert 2.45 < held_for(60.0) < 2.55
