"""Compare every way to compute a vector with the reference: eager float32, one window at a time, host preprocessing.

A way passes if each vector has a cosine of at least `MIN_COSINE` with the reference of its own window, and no other
window's reference is closer. The second condition detects rows that were swapped, overwritten or taken from padding: a
cosine alone can miss them. So only windows with clearly different references are used. The reference itself is compared
with the same network on a CPU. This detects errors that a device makes in every precision.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.models.imagebind.space import ImageBindSpace

MIN_COSINE = 0.999  # minimum cosine with the reference of the own window
MIN_CPU_COSINE = 0.9999  # minimum cosine of a device's float32 vector with a CPU's
CPU_CHECK_WINDOWS = 2  # windows that are compared with a CPU
# Maximum cosine between the references of two windows. With random bf16 weights in imagebind_huge's published sizes,
# the lowest cosine with the own reference is 0.99989, at least 0.0015 above the cosine with any other reference.
MAX_DISTINCT_COSINE = 0.9985
BATCH_SIZES = (1, 2, 3, 5, 7, 8)  # 3, 5 and 7 are padded to a power of two
LARGEST_BATCH = 32  # size of the full batch
THREADS = 2  # threads that share one runner
MAX_UNFETCHED_BATCHES = 3  # batches that a thread has launched and not yet fetched, at most


@dataclass(frozen=True)
class ReferenceVectors:
    """Windows of one modality, and their clearly different references: `vectors` float32 (N, D) of unit length."""

    modality: str
    windows: Sequence[Window]
    vectors: Tensor


def reference_vectors(reference: Space, windows: Sequence[Window]) -> ReferenceVectors:
    """Embed `windows`, all of one modality, with `reference`, a float32 space: each is preprocessed on the host and
    embedded alone. Windows whose vectors are too similar to an earlier one are left out."""
    vectors = torch.cat([reference.embed(w.modality, reference.tensor(w)[None]) for w in windows])
    kept = distinct_rows(vectors)
    return ReferenceVectors(windows[0].modality, [windows[i] for i in kept], vectors[kept])


def compare_with_reference(vectors: Tensor, reference: Tensor, windows: Sequence[int]) -> dict[str, Any]:
    """Compare `vectors` float32 (B, D) with rows `windows` of `reference` float32 (N, D), all of unit length.

    `min_cosine`: the lowest cosine with the own row. `wrong_window`: the number of vectors that are closer to another
    row, or not finite.
    """
    cosines = vectors @ reference.T
    own = torch.as_tensor(windows)
    with_own = cosines[torch.arange(len(own)), own]
    wrong = (cosines.argmax(1) != own) | ~torch.isfinite(with_own)
    return {"min_cosine": round(float(with_own.min()), 6), "wrong_window": int(wrong.sum())}


def distinct_rows(vectors: Tensor, cosine: float = MAX_DISTINCT_COSINE) -> list[int]:
    """Indices of rows of unit vectors (N, D), chosen greedily from the first: no two have a cosine above `cosine`."""
    cosines, kept = vectors @ vectors.T, list[int]()
    for row in range(len(vectors)):
        if all(cosines[row, other] <= cosine for other in kept):
            kept.append(row)
    return kept


def reference_on_cpu(reference: ImageBindSpace, wanted: ReferenceVectors) -> dict[str, Any]:
    """Compare the first `CPU_CHECK_WINDOWS` references with vectors of a copy of the network on the CPU."""
    network = copy.deepcopy(reference.load_encoder(wanted.modality)).to("cpu")
    rows = torch.stack([reference.tensor(window) for window in wanted.windows[:CPU_CHECK_WINDOWS]])
    vectors = network.embed(wanted.modality, rows)
    found = compare_with_reference(wanted.vectors[: len(rows)], vectors, range(len(rows)))
    return found | {"passed": found["min_cosine"] >= MIN_CPU_COSINE}


def check_space(
    tested: Space,
    wanted: ReferenceVectors,
    *,
    batches_per_thread: int,
    seconds: float,
    earlier_checks: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Compare every way in which `tested` embeds the windows of `wanted` with their references.

    Yields all figures so far; the last have `passed`. `batches_per_thread`: batches that each thread launches.
    `seconds`: after this time a thread launches no more batches, but at least one of each of `BATCH_SIZES`.
    `earlier_checks`: figures of earlier checks of these windows, which must have passed too. Raises `ValueError` if
    fewer than two windows are distinct.
    """
    modality, windows, vectors = wanted.modality, wanted.windows, wanted.vectors
    if len(windows) < 2:
        raise ValueError(f"all windows of {modality} have the same vector: a swapped row could not be detected")
    others = (vectors @ vectors.T)[~torch.eye(len(vectors), dtype=torch.bool)]
    result: dict[str, Any] = {
        **(earlier_checks or {}),
        "windows": len(windows),
        "cosine_between_windows": {"mean": round(float(others.mean()), 6), "max": round(float(others.max()), 6)},
    }
    rows, every = torch.stack([tested.tensor(w) for w in windows]), range(len(windows))
    singly = torch.cat([tested.embed(modality, row[None]) for row in rows])
    result["batches_of_one"] = compare_with_reference(singly, vectors, every)
    yield result
    result["one_batch"] = compare_with_reference(tested.embed(modality, rows), vectors, every)
    if tested.graph_capturable(modality):
        raw = [tested.device_input(w) for w in windows]
        if isinstance(tested, ImageBindSpace):
            result["preprocessing"] = _preprocessing_error(tested, modality, raw, rows)
        yield result
        result |= check_device_path(tested, [wanted], batches_per_thread=batches_per_thread, seconds=seconds)
    else:
        result["device_path"] = {"skipped": f"the encoders of {tested.id} cannot be CUDA graphs"}
    yield result | {"passed": _passed(result)}


def check_device_path(
    space: Space, wanted: Sequence[ReferenceVectors], *, batches_per_thread: int, seconds: float
) -> dict[str, Any]:
    """Compare the vectors of a `GpuRunner` with the references: batches of several sizes and random modalities from
    several threads at once; one full batch; one batch after all memory was released.

    `graphs`: the number of shapes that are CUDA graphs. On a GPU all must be; if a capture failed, `error` has the
    reason. `batches_per_thread`, `seconds`: see `check_space`.
    """
    runner, deadline = GpuRunner(space), time.monotonic() + seconds
    rows = {item.modality: [space.device_input(window) for window in item.windows] for item in wanted}
    vectors = {item.modality: item.vectors for item in wanted}
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [
            pool.submit(_run_batches, runner, rows, vectors, batches_per_thread, deadline, n) for n in range(THREADS)
        ]
        found = [item for thread in threads for item in thread.result()]
    first = wanted[0].modality
    full = [i % len(rows[first]) for i in range(LARGEST_BATCH)]
    whole = runner.launch(first, [rows[first][i] for i in full]).fetch()
    captured, shapes = runner.graph_count(), runner.shape_count()
    complete = captured == shapes or not runner.on_gpu or not all(map(space.graph_capturable, rows))
    result: dict[str, Any] = {
        "device_path": {
            "batches": len(found),
            "min_cosine": min(item["min_cosine"] for item in found),
            "wrong_window": sum(item["wrong_window"] for item in found),
        },
        f"device_path_batch_{LARGEST_BATCH}": compare_with_reference(whole, vectors[first], full),
        "graphs": {"captured": captured, "shapes": shapes, "passed": complete},
    }
    if runner.capture_error():
        result["graphs"]["error"] = runner.capture_error()[:500]
    runner.free_memory()
    again = runner.launch(first, rows[first][:1]).fetch()
    result["device_path_after_release"] = compare_with_reference(again, vectors[first], [0])
    runner.free_memory()
    return result | {"passed": _passed(result)}


def _preprocessing_error(
    space: ImageBindSpace, modality: str, raw: Sequence[Tensor], prepared: Tensor
) -> dict[str, Any]:
    """Difference between preprocessing on the device and on the host, in the units of the encoder's input."""
    on_device = space.preprocess(modality, torch.stack(list(raw)).to(space.device)).float().cpu()
    difference = (on_device - prepared).abs()
    return {"max_difference": float(difference.max()), "mean_difference": float(difference.mean())}


def _run_batches(
    runner: GpuRunner,
    rows: Mapping[str, Sequence[Tensor]],
    vectors: Mapping[str, Tensor],
    batches_per_thread: int,
    deadline: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Launch batches of random modalities, sizes and windows; fetch each at once or after later ones were launched."""
    rng, waiting, found = random.Random(seed), [], []
    modalities = sorted(rows)
    for turn in range(batches_per_thread):
        if turn >= len(BATCH_SIZES) and time.monotonic() > deadline:
            break
        modality = rng.choice(modalities)
        size = BATCH_SIZES[turn] if turn < len(BATCH_SIZES) else rng.choice(BATCH_SIZES)
        ids = [rng.randrange(len(rows[modality])) for _ in range(size)]
        waiting.append((modality, ids, runner.launch(modality, [rows[modality][i] for i in ids])))
        while len(waiting) > rng.randint(0, MAX_UNFETCHED_BATCHES):
            modality, ids, pending = waiting.pop(0)
            found.append(compare_with_reference(pending.fetch(), vectors[modality], ids))
    return found + [
        compare_with_reference(pending.fetch(), vectors[modality], ids) for modality, ids, pending in waiting
    ]


def _passed(result: Mapping[str, Any]) -> bool:
    parts = [part for part in result.values() if isinstance(part, dict)]
    right = all(part["min_cosine"] >= MIN_COSINE and not part["wrong_window"] for part in parts if "min_cosine" in part)
    return right and all(part["passed"] for part in parts if "passed" in part)
