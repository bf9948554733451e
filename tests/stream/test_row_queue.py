"""Rows of other processes: their vectors are those of one process, in shared batches, also if some fail."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import SPECS, samples_of_robot
from helpers.small_imagebind import SIZES, image_frame, motion, sound, window
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, VISION
from sensebind.fusion.core.space import Preparation, Space, SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.inference.remote_runner import (
    ARENA_BYTES,
    RemoteRunner,
    RemoteSpace,
    RowAllocator,
    RowReply,
    RowRequest,
    describe_space,
    map_arena,
    open_arena,
    rows_in,
)
from sensebind.fusion.inference.row_engine import RowEngine
from sensebind.fusion.models import registry
from sensebind.fusion.models.imagebind.space import ImageBindSpace
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.row_queue import RowQueue
from sensebind.fusion.stream.scheduler import Scheduler

MODALITIES = (VISION, AUDIO, IMU)


def toy_tensor(window: Window) -> torch.Tensor:
    return ToySpace().tensor(window)


class PreparingSpace(ToySpace):
    """A space that other processes can prepare windows for. It counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []

    def preparation(self, modality: str) -> Preparation:
        return toy_tensor

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append((modality, len(batch)))
        return super().embed(modality, batch)


class SpaceWithBadRows(PreparingSpace):
    """Its device fails for the rows of `bad`."""

    def __init__(self, bad: torch.Tensor) -> None:
        super().__init__()
        self._bad = bad

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(row, self._bad) for row in batch):
            raise RuntimeError("the device failed")
        return super().embed(modality, batch)


@contextmanager
def remote_engine(space: Space, scheduler: Scheduler, engine: RowEngine, size: int = ARENA_BYTES) -> Iterator[Engine]:
    """The engine of a process without weights. Here both sides are in one process, and share memory as two would."""
    descriptor = open_arena()
    theirs, ours = map_arena(os.dup(descriptor)), map_arena(descriptor)
    description = pickle.loads(pickle.dumps(describe_space(space, MODALITIES)))
    runner: RemoteRunner

    def send(request: RowRequest) -> None:
        queue.put(request, rows_in(ours, request))
        scheduler.notify()

    def reply(found: RowReply) -> None:
        runner.on_reply(pickle.loads(pickle.dumps(found)))

    queue = RowQueue(engine, reply)
    remote = RemoteSpace(description)
    runner = RemoteRunner(remote, theirs, send, size)
    scheduler.add(queue)
    yield Engine(remote, engine.batches.batch_size, runner)
    runner.close()
    scheduler.remove(queue)


def test_the_vectors_are_those_of_an_engine_with_the_weights() -> None:
    space = PreparingSpace()
    expected = list(process_samples(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot()))
    rows = RowEngine(space, 16)
    scheduler = Scheduler(rows)
    with remote_engine(space, scheduler, rows) as engine:
        got = list(process_samples(Pipeline(SPECS, engine), samples_of_robot()))
    scheduler.close()
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert isinstance(one, Embedding) and isinstance(other, Embedding)
        assert (one.source, one.tick, one.coverage) == (other.source, other.tick, other.coverage)
        assert one.vector @ other.vector > 0.9999


def test_rows_of_several_processes_share_batches() -> None:
    space = PreparingSpace()
    rows = RowEngine(space, 64)
    scheduler = Scheduler(rows, batch_wait=0.5)
    some = [window("vision", image_frame(seed=seed)) for seed in range(8)]
    with remote_engine(space, scheduler, rows) as first, remote_engine(space, scheduler, rows) as second:
        results: dict[int, list[Embedding | Failure]] = {}
        threads = [
            threading.Thread(target=lambda i=i, e=e: results.update({i: e.embed(some[4 * i :][:4])}))
            for i, e in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    scheduler.close()
    expected = Engine(ToySpace()).embed(some)
    for one, other in zip(results[0] + results[1], expected, strict=True):
        assert isinstance(one, Embedding) and isinstance(other, Embedding) and one.vector @ other.vector > 0.9999
    assert space.batches == [(VISION, 8)]


def test_a_row_that_the_device_refuses_fails_alone() -> None:
    some = [window("vision", image_frame(seed=seed)) for seed in range(9)]
    space = SpaceWithBadRows(ToySpace().tensor(some[4]))
    rows = RowEngine(space, 16)
    scheduler = Scheduler(rows)
    with remote_engine(space, scheduler, rows) as engine:
        results = engine.embed(some)
    scheduler.close()
    assert [isinstance(result, Failure) for result in results] == [i == 4 for i in range(9)]
    failure = results[4]
    assert isinstance(failure, Failure) and failure.message == "on the device: the device failed"


def test_requests_of_a_process_of_the_space_that_ends_fail_and_nothing_waits() -> None:
    descriptor = open_arena()
    remote = RemoteSpace(describe_space(PreparingSpace(), MODALITIES))
    runner = RemoteRunner(remote, map_arena(descriptor), lambda request: None)
    engine = Engine(remote, 4, runner)
    job = engine.submit([window("vision", image_frame())])
    threading.Timer(0.2, runner.close).start()
    (result,) = engine.collect(job)
    assert isinstance(result, Failure) and "has ended" in result.message
    (later,) = engine.embed([window("vision", image_frame(seed=2))])
    assert isinstance(later, Failure) and "has ended" in later.message


def test_a_space_that_only_its_own_process_can_prepare_for_is_refused_by_name() -> None:
    with pytest.raises(SpaceError, match="toy@0 cannot prepare vision and audio and imu in worker processes"):
        describe_space(ToySpace(), MODALITIES)


def test_a_space_whose_preparation_cannot_be_sent_to_another_process_is_refused_by_name() -> None:
    class Local(PreparingSpace):
        def preparation(self, modality: str) -> Preparation:
            return lambda window: toy_tensor(window)

    with pytest.raises(SpaceError, match="cannot prepare vision in worker processes: set workers to 0"):
        describe_space(Local(), [VISION])


def test_rows_that_do_not_fit_together_use_no_shared_memory_afterwards() -> None:
    sent: list[RowRequest] = []
    remote = RemoteSpace(describe_space(PreparingSpace(), MODALITIES))
    runner = RemoteRunner(remote, map_arena(open_arena()), sent.append, size=4096)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="equal size"):
            runner.launch(VISION, [torch.zeros(256), torch.zeros(255)])
    runner.launch(VISION, [torch.zeros(1024)])  # all of it
    assert [request.offset for request in sent] == [0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=60))
def test_blocks_of_shared_memory_never_overlap_and_are_all_given_back(steps: list[tuple[bool, int]]) -> None:
    allocator, used = RowAllocator(16384), dict[int, int]()
    for take, size in steps:
        if take:
            try:
                offset = allocator.allocate(size)
            except MemoryError:
                continue
            used[offset] = size
        elif used:
            offset = sorted(used)[size % len(used)]
            allocator.free(offset)
            del used[offset]
        ends = sorted((offset, offset + size) for offset, size in used.items())
        assert all(end <= following for (_, end), (following, _) in zip(ends, ends[1:], strict=False))
        assert all(end <= 16384 for _, end in ends)
    for offset in used:
        allocator.free(offset)
    assert allocator.allocate(16384) == 0


def test_if_shared_memory_is_full_batches_shrink_and_every_window_is_embedded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    some = [window("vision", image_frame(seed=seed)) for seed in range(9)]
    row = ToySpace().tensor(some[0])
    rows = RowEngine(PreparingSpace(), 16)
    scheduler = Scheduler(rows)
    with remote_engine(rows.space, scheduler, rows, size=4 * row.numel() * row.element_size()) as engine:
        results = engine.embed(some)
        assert engine.batches.limit(VISION) <= 4
    scheduler.close()
    for one, other in zip(results, Engine(ToySpace()).embed(some), strict=True):
        assert isinstance(one, Embedding) and isinstance(other, Embedding) and one.vector @ other.vector > 0.9999
    assert "out of memory" in caplog.text


def windows() -> list[Window]:
    return [
        window("vision", image_frame(seed=1)),
        window("vision", image_frame(seed=1), image_frame(seed=2)),
        window("audio", sound(2.0)),
        window("depth", image_frame("16UC1", (60, 80), np.uint16, 3)),
        window("thermal", image_frame("mono16", (60, 80), np.uint16, 3)),
        window("imu", *motion(), length=5.0),
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_another_process_prepares_windows_as_imagebind_does(checkpoint: Path, device: str) -> None:
    space = ImageBindSpace.load(weights=str(checkpoint), dtype="float32", **SIZES)
    space.device = torch.device(device)  # nothing is computed: only the kind of row depends on it
    for one in windows():
        prepare = pickle.loads(pickle.dumps(space.preparation(one.modality)))
        expected = space.tensor(one) if device == "cpu" else space.device_input(one)
        assert torch.equal(prepare(one), expected)


def test_another_process_prepares_windows_as_the_starter_and_its_spokes_do() -> None:
    space = registry.load_space("starter", device="cpu")
    for one in windows()[:1] + windows()[2:]:
        prepare = pickle.loads(pickle.dumps(space.preparation(one.modality)))
        assert torch.equal(prepare(one), space.tensor(one))
