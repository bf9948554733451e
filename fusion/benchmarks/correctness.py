"""Every way to a vector against the plain one: eager float32, one window at a time, prepared on the host.

A way is right where each vector has a cosine of at least `COSINE` with the plain one of its own window, and is nearer
to it than to that of any other window. The second finds rows that were swapped, overwritten or taken from the padding
of a batch, which the first can miss. So windows are used whose plain vectors are apart from each other.
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

COSINE = 0.999  # the least with the plain vector of the same window
APART = 0.9985  # the most between plain vectors of two windows that are used
SIZES = (1, 2, 3, 5, 7, 8)  # of batches: most are padded to a power of two
FULL = 32  # the largest batch
THREADS = 2  # that use the runner at the same time
UNDER_WAY = 3  # batches of a thread that wait to be fetched, at most


def agreement(vectors: Tensor, truth: Tensor, windows: Sequence[int]) -> dict[str, Any]:
    """How well `vectors` float32 (B, D) agree with rows `windows` of `truth` float32 (N, D), all of unit length:
    `cosine`, the lowest with the own row; `mistaken`, how many are nearer to another row, or are not finite."""
    cosines = vectors @ truth.T
    own = torch.as_tensor(windows)
    mine = cosines[torch.arange(len(own)), own]
    mistaken = (cosines.argmax(1) != own) | ~torch.isfinite(mine)
    return {"cosine": round(float(mine.min()), 6), "mistaken": int(mistaken.sum())}


def apart(vectors: Tensor, cosine: float = APART) -> list[int]:
    """Rows of unit vectors (N, D), the first ones first, of which no two have a cosine above `cosine`."""
    cosines, kept = vectors @ vectors.T, list[int]()
    for row in range(len(vectors)):
        if all(cosines[row, other] <= cosine for other in kept):
            kept.append(row)
    return kept


def plain_vectors(space: Space, windows: Sequence[Window]) -> Tensor:
    """float32 (N, D): each window prepared on the host and embedded by itself."""
    return torch.cat([space.embed(w.modality, space.tensor(w)[None]) for w in windows])


def check(
    fast: Space, plain: Space, windows: Sequence[Window], *, turns: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Compare all ways of `fast` to embed `windows`, of one modality, with `plain`, which computes in float32.

    Yields the figures so far after each way; the last have `passed`. `turns`: batches that each thread gives to the
    runner; `seconds`: after which no more are given, once each thread has given a few.
    """
    modality = windows[0].modality
    truth = plain_vectors(plain, windows)
    kept = apart(truth)
    windows, truth = [windows[i] for i in kept], truth[kept]
    others = (truth @ truth.T)[~torch.eye(len(truth), dtype=torch.bool)]
    result: dict[str, Any] = {
        "windows": len(windows),
        "cosine_of_two_windows": {"mean": float(others.mean()), "max": float(others.max())} if len(others) else {},
    }
    rows, every = torch.stack([fast.tensor(w) for w in windows]), range(len(windows))
    result["alone"] = agreement(torch.cat([fast.embed(modality, row[None]) for row in rows]), truth, every)
    yield result
    result["together"] = agreement(fast.embed(modality, rows), truth, every)
    if isinstance(fast, DeviceSpace):
        raw = [fast.raw(w) for w in windows]
        if isinstance(fast, ImageBindSpace):
            result["preparation"] = _preparation(fast, modality, raw, rows)
        yield result
        result |= _runner(fast, modality, raw, truth, turns, seconds)
    else:
        result["runner"] = {"skipped": f"{fast.id} has no device path"}
    yield result | {"passed": _passed(result)}


def _preparation(space: ImageBindSpace, modality: str, raw: Sequence[Tensor], prepared: Tensor) -> dict[str, Any]:
    """How far what the device prepares is from what the host prepares, in the encoder's units."""
    on_device = space.prepare(modality, torch.stack(list(raw)).to(space.device)).float().cpu()
    difference = (on_device - prepared).abs()
    return {"largest_difference": float(difference.max()), "mean_difference": float(difference.mean())}


def _runner(
    space: DeviceSpace, modality: str, raw: Sequence[Tensor], truth: Tensor, turns: int, seconds: float
) -> dict[str, Any]:
    """Batches of odd sizes from several threads at once; one full batch; one after all memory was given back."""
    runner, until = Runner(space), time.monotonic() + seconds
    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(_race, runner, modality, raw, truth, turns, until, seed) for seed in range(THREADS)]
        found = [item for thread in threads for item in thread.result()]
    full = [i % len(raw) for i in range(FULL)]
    result: dict[str, Any] = {
        "runner": {
            "batches": len(found),
            "cosine": min(item["cosine"] for item in found),
            "mistaken": sum(item["mistaken"] for item in found),
        },
        f"runner_{FULL}": agreement(runner.launch(modality, [raw[i] for i in full]).fetch(), truth, full),
        "graphs": f"{runner.captured()} of {runner.shapes()} shapes",
    }
    runner.release()
    result["after_release"] = agreement(runner.launch(modality, raw[:1]).fetch(), truth, [0])
    runner.release()
    return result


def _race(
    runner: Runner, modality: str, raw: Sequence[Tensor], truth: Tensor, turns: int, until: float, seed: int
) -> list[dict[str, Any]]:
    """One thread's batches: random sizes of random windows, fetched at once or while others are under way."""
    rng, waiting, found = random.Random(seed), [], []
    for turn in range(turns):
        if turn >= len(SIZES) and time.monotonic() > until:
            break
        size = SIZES[turn] if turn < len(SIZES) else rng.choice(SIZES)
        ids = [rng.randrange(len(raw)) for _ in range(size)]
        waiting.append((ids, runner.launch(modality, [raw[i] for i in ids])))
        while len(waiting) > rng.randint(0, UNDER_WAY):
            ids, pending = waiting.pop(0)
            found.append(agreement(pending.fetch(), truth, ids))
    return found + [agreement(pending.fetch(), truth, ids) for ids, pending in waiting]


def _passed(result: dict[str, Any]) -> bool:
    ways = [part for part in result.values() if isinstance(part, dict) and "mistaken" in part]
    return all(way["cosine"] >= COSINE and not way["mistaken"] for way in ways)
