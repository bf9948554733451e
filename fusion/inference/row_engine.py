"""The engine of rows, in the process of the space: embeds windows that the processes of the robots have prepared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from sensebind.fusion.core.space import Space
from sensebind.fusion.inference.batch_runner import BatchRunner, RowFailure, RowVector


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One window of a modality, prepared for the encoder (`Space.preparation`)."""

    modality: str
    tensor: torch.Tensor


@dataclass(slots=True)
class RowJob:
    """Rows that were submitted together. `groups`: the indices of rows that were launched together, and their
    results."""

    rows: Sequence[Row]
    groups: list[tuple[list[int], Iterator[RowVector | RowFailure]]] = field(default_factory=list)


class RowEngine:
    """Embeds rows of several processes in shared batches. Safe to call from several threads. See `BatchRunner`."""

    def __init__(self, space: Space, batch_size: int) -> None:
        self.space = space
        self.batches = BatchRunner(space, batch_size)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the host does other work."""
        return self.batches.is_asynchronous

    def windows_per_time_slice(self, modality: str) -> int:
        """See `Engine.windows_per_time_slice`."""
        return self.batches.rows_per_time_slice(modality)

    def submit(self, rows: Sequence[Row]) -> RowJob:
        """Begin to embed rows of any modalities and shapes."""
        alike: defaultdict[tuple[str, torch.Size, torch.dtype], list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            alike[row.modality, row.tensor.shape, row.tensor.dtype].append(index)
        job = RowJob(rows)
        for (modality, _, _), indices in alike.items():
            launched = self.batches.launch(modality, [rows[i].tensor for i in indices])
            job.groups.append((indices, self.batches.results(launched)))
        return job

    def embed(self, rows: Sequence[Row]) -> list[RowVector | RowFailure]:
        """One result for each row, in order."""
        return list(self.iter_results(self.submit(rows)))

    def failed_job(self, rows: Sequence[Row], message: str) -> RowJob:
        """A job whose results are all failures."""
        return RowJob(rows, [(list(range(len(rows))), iter([RowFailure(message)] * len(rows)))])

    def failure(self, row: Row, message: str) -> RowFailure:
        """The result of a row that could not be embedded."""
        return RowFailure(message)

    def iter_results(self, job: RowJob) -> Iterator[RowVector | RowFailure]:
        """One result for each row, in order. Read it to its end."""
        ready: dict[int, RowVector | RowFailure] = {}
        for index in range(len(job.rows)):
            while index not in ready:
                indices, results = job.groups.pop(0)
                ready.update(zip(indices, results, strict=True))
            yield ready.pop(index)
