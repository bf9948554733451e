"""Check every way to compute a vector against the reference: eager float32, one window at a time, host preprocessing.

A way passes if every vector has a cosine of at least `COSINE` with the reference of its own window, and no other
window's reference is closer. The second condition finds rows that were swapped, overwritten or taken from padding,
which a cosine alone can miss. So only windows are used whose references are clearly different.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from sensebind.fusion.models.imagebind_space import ImageBindSpace
from sensebind.fusion.models.registry import Space
from sensebind.fusion.runner import DeviceSpace, Runner
from sensebind.fusion.windows import Window

COSINE = 0.999  # minimum cosine with the reference of the own window
DISTINCT = 0.9985  # maximum cosine between the references of two windows
SIZES = (1, 2, 3, 5, 7, 8)  # of batches: most are padded to a power of two
FULL = 32  # the largest batch
THREADS = 2  # that share one runner
UNFETCHED = 3  # maximum batches that a thread has under way


def agreement(vectors: Tensor, reference: Tensor, windows: Sequence[int]) -> dict[str, Any]:
    """Compare `vectors` float32 (B, D) with rows `windows` of `reference` float32 (N, D), all of unit length.

    `min_cosine`: the lowest cosine with the own row. `wrong_window`: the number of vectors that are closer to another
    row, or not finite.
    """
    cosines = vectors @ reference.T
    own = torch.as_tensor(windows)
    with_own = cosines[torch.arange(len(own)), own]
    wrong = (cosines.argmax(1) != own) | ~torch.isfinite(with_own)
    return {"min_cosine": round(float(with_own.min()), 6), "wrong_window": int(wrong.sum())}


def distinct(vectors: Tensor, cosine: float = DISTINCT) -> list[int]:
    """Indices of rows of unit vectors (N, D), chosen greedily from the first, no two with a cosine above `cosine`."""
    cosines, kept = vectors @ vectors.T, list[int]()
    for row in range(len(vectors)):
        if all(cosines[row, other] <= cosine for other in kept):
            kept.append(row)
    return kept


def reference_vectors(space: Space, windows: Sequence[Window]) -> Tensor:
    """float32 (N, D): each window preprocessed on the host and embedded by itself."""
    return torch.cat([space.embed(w.modality, space.tensor(w)[None]) for w in windows])


def check(
    tested: Space, reference: Space, windows: Sequence[Window], *, turns: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Compare every way in which `tested` embeds `windows`, all of one modality, with `reference`, a float32 space.

    Yields all figures so far; the last have `passed`. `turns`: batches that each thread launches. `seconds`: a thread
    launches no more after this time, but at least one batch of each of `SIZES`.
    Raises `ValueError` where fewer than two windows have clearly different references.
    """
    modality = windows[0].modality
    wanted = reference_vectors(reference, windows)
    kept = distinct(wanted)
    windows, wanted = [windows[i] for i in kept], wanted[kept]
    if len(windows) < 2:
        raise ValueError(f"the vectors of all windows of {modality} are alike, so a swapped row would not be seen")
    others = (wanted @ wanted.T)[~torch.eye(len(wanted), dtype=torch.bool)]
    result: dict[str, Any] = {
        "windows": len(windows),
        "cosine_between_windows": {"mean": round(float(others.mean()), 6), "max": round(float(others.max()), 6)},
    }
    rows, every = torch.stack([tested.tensor(w) for w in windows]), range(len(windows))
    singly = torch.cat([tested.embed(modality, row[None]) for row in rows])
    result["batches_of_one"] = agreement(singly, wanted, every)
    yield result
    result["one_batch"] = agreement(tested.embed(modality, rows), wanted, every)
    if isinstance(tested, DeviceSpace):
        raw = [tested.raw(w) for w in windows]
        if isinstance(tested, ImageBindSpace):
            result["preprocessing"] = _preprocessing(tested, modality, raw, rows)
        yield result
        result |= _device_path(tested, modality, raw, wanted, turns, seconds)
    else:
        result["device_path"] = {"skipped": f"{tested.id} has none"}
    yield result | {"passed": _passed(result)}


def _preprocessing(space: ImageBindSpace, modality: str, raw: Sequence[Tensor], prepared: Tensor) -> dict[str, Any]:
    """Difference between preprocessing on the device and on the host, in the units of the encoder's input."""
    on_device = space.preprocess(modality, torch.stack(list(raw)).to(space.device)).float().cpu()
    difference = (on_device - prepared).abs()
    return {"max_difference": float(difference.max()), "mean_difference": float(difference.mean())}


def _device_path(
    space: DeviceSpace, modality: str, raw: Sequence[Tensor], wanted: Tensor, turns: int, seconds: float
) -> dict[str, Any]:
    """Batches of odd sizes from several threads at once; one full batch; one batch after all memory was released."""
    runner, deadline = Runner(space), time.monotonic() + seconds
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(_thread, runner, modality, raw, wanted, turns, deadline, n) for n in range(THREADS)]
        found = [item for thread in threads for item in thread.result()]
    full = [i % len(raw) for i in range(FULL)]
    result: dict[str, Any] = {
        "device_path": {
            "batches": len(found),
            "min_cosine": min(item["min_cosine"] for item in found),
            "wrong_window": sum(item["wrong_window"] for item in found),
        },
        f"device_path_batch_{FULL}": agreement(runner.launch(modality, [raw[i] for i in full]).fetch(), wanted, full),
        "graphs": {"captured": runner.captured(), "shapes": runner.shapes()},
    }
    runner.release()
    result["device_path_after_release"] = agreement(runner.launch(modality, raw[:1]).fetch(), wanted, [0])
    runner.release()
    return result


def _thread(
    runner: Runner, modality: str, raw: Sequence[Tensor], wanted: Tensor, turns: int, deadline: float, seed: int
) -> list[dict[str, Any]]:
    """Launch batches of random sizes and windows; fetch each at once or while others are under way."""
    rng, waiting, found = random.Random(seed), [], []
    for turn in range(turns):
        if turn >= len(SIZES) and time.monotonic() > deadline:
            break
        size = SIZES[turn] if turn < len(SIZES) else rng.choice(SIZES)
        ids = [rng.randrange(len(raw)) for _ in range(size)]
        waiting.append((ids, runner.launch(modality, [raw[i] for i in ids])))
        while len(waiting) > rng.randint(0, UNFETCHED):
            ids, pending = waiting.pop(0)
            found.append(agreement(pending.fetch(), wanted, ids))
    return found + [agreement(pending.fetch(), wanted, ids) for ids, pending in waiting]


def _passed(result: dict[str, Any]) -> bool:
    checks = [part for part in result.values() if isinstance(part, dict) and "wrong_window" in part]
    return all(check["min_cosine"] >= COSINE and not check["wrong_window"] for check in checks)
