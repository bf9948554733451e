"""Training pairs of a spoke: inputs of a modality and the hub's vectors of the same moments; the held-out split.

Pairs are made from recordings, in windows as on the robot, or from folders of files with equal names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import sensors_of
from sensebind.fusion.core.documents import DocumentError, read_text
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import SECOND, TEXT, VISION, Sample
from sensebind.fusion.core.space import Hub, Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.io import sensor_files
from sensebind.fusion.stream.windower import Windower

HUB_BATCH_SIZE = 16  # windows that the hub embeds together
SUFFIXES_OF_TEXT = (".txt",)


class AlignError(SensebindError):
    """Data or settings that a spoke cannot be trained with; the message names the remedy."""


@dataclass(frozen=True)
class Pairs:
    """N pairs.

    Attributes:
        inputs: (N, …), tensors of the spoke.
        targets: float32 (N, D), the hub's unit vectors of the same moments.
        class_ids: (N,), equal for pairs with the same meaning (the same caption).
        blocks: (N,), numbers of blocks of time or of files; whole blocks are held out.
        spans: int64 (N, 2), start and end of the pair's windows in ns, on the clock of its source.
        sources: (N,), numbers of the recordings or other sources.
        hub_images: (N, 3, H, W), the hub's images in 0..1, for augmentation; empty if there are none.
    """

    inputs: Tensor
    targets: Tensor
    class_ids: Tensor
    blocks: Tensor
    spans: Tensor
    sources: Tensor
    hub_images: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, rows: Tensor) -> Pairs:
        """The pairs with these indices."""
        views = self.hub_images[rows] if len(self.hub_images) else self.hub_images
        return Pairs(
            self.inputs[rows], self.targets[rows], self.class_ids[rows], self.blocks[rows], self.spans[rows],
            self.sources[rows], views,
        )  # fmt: skip


def class_id(name: str) -> int:
    """The class id of a name; it is the same in every set of pairs."""
    return zlib.crc32(name.encode())


def concatenate_pairs(parts: Sequence[Pairs], share_groups: bool = False) -> Pairs:
    """All pairs together. Blocks and sources of different parts get different numbers, class ids too unless
    `share_groups`. Raises `AlignError` if there are no parts."""
    if not parts:
        raise AlignError("there are no pairs")
    result, groups, blocks = [], 0, 0
    for number, part in enumerate(parts):
        result.append(
            replace(
                part, class_ids=part.class_ids + groups, blocks=part.blocks + blocks, sources=part.sources * 0 + number
            )
        )
        blocks = int(result[-1].blocks.max()) + 1
        groups = 0 if share_groups else int(result[-1].class_ids.max()) + 1
    names = ("inputs", "targets", "class_ids", "blocks", "spans", "sources", "hub_images")
    return Pairs(**{name: torch.cat([getattr(part, name) for part in result]) for name in names})


def split(pairs: Pairs, share: float = 0.2, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Split into (training, held out). Whole blocks are held out: a fraction `share` of them, at least one.

    Neighbouring frames are nearly the same, so a split between them would measure memorisation. Training pairs whose
    windows overlap a held-out window are left out. Raises `AlignError` if there are fewer than two blocks or no
    training pair is left.
    """
    names = pairs.blocks.unique()
    if len(names) < 2:
        raise AlignError(
            "all pairs are in one block of time, so no block can be held out: record longer, give more recordings, or "
            "make blocks shorter (--block)"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    held = names[order[: min(len(names) - 1, max(1, round(share * len(names))))]]
    out = torch.isin(pairs.blocks, held)
    clean = ~out
    for source in pairs.sources[out].unique():
        of_source = pairs.sources == source
        spans = pairs.spans[out & of_source]
        merged = _merged(spans)
        starts, ends = pairs.spans[:, 0], pairs.spans[:, 1]
        for first, last in merged:
            clean &= ~(of_source & (starts < last) & (ends > first))
    if not clean.any():
        raise AlignError(
            "each other pair overlaps a held-out one, so none is left for training: make blocks longer (--block)"
        )
    return pairs.select(clean.nonzero()[:, 0]), pairs.select(out.nonzero()[:, 0])


def _merged(spans: Tensor) -> list[tuple[int, int]]:
    """The spans in order, with overlapping ones merged."""
    result: list[tuple[int, int]] = []
    for first, last in sorted((int(a), int(b)) for a, b in spans):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result


def windows_by_tick(
    samples: Iterator[Sample], values: Mapping[str, Any], trained_windows: Mapping[str, Any]
) -> dict[str, dict[int, Window]]:
    """Samples → sensor → tick → window, as the pipeline makes them."""
    specs = build.make_window_specs(values, trained_windows)
    windowers = {sensor: Windower(spec) for sensor, spec in specs.items()}
    found: dict[str, dict[int, Window]] = {sensor: {} for sensor in specs}

    def add(closed: Sequence[Window]) -> None:
        for window in closed:
            found[window.sensor][window.tick] = window

    for sample in samples:
        add(windowers[sample.sensor].accept(sample))
    for windower in windowers.values():
        add(windower.flush())
    return found


def pairs_from_recording(
    path: Path,
    modality: str,
    hub: Hub,
    tensor: Callable[[Window], Tensor],
    values: Mapping[str, Any],
    trained_windows: Mapping[str, Any],
    block: float = 10.0,
    keep_views: bool = False,
    anchor: str = VISION,
) -> Pairs:
    """Pairs of `modality` and the hub's `anchor` at the same ticks of a recording. Of a modality with several sensors,
    the first that the recording has is used: other cameras see something else at the same time.

    `tensor` turns a window into the spoke's input. `values` are the embedder's parameters, `trained_windows` those
    of each modality. `block` is the length of a block in s. `keep_views`: keep the hub's images. Raises `AlignError`
    if a topic is missing, if no tick has windows of both, or if a window cannot be decoded.
    """
    from sensebind.replay.session import open_replay

    with open_replay(path, values, (anchor, modality)) as replay:
        modality_of = sensors_of({**values, "modalities": (anchor, modality)})
        first = {modality_of[sensor]: sensor for sensor in reversed(list(replay.topics))}
        missing = [m for m in (anchor, modality) if m not in first]
        if missing:
            raise AlignError(f"'{path}' has no topic of {' and '.join(missing)}: set {missing[0]}.topic")
        samples = (s for s in replay.samples() if isinstance(s, Sample))
        found = windows_by_tick(samples, values, trained_windows)
        calibrations = replay.reader.calibrations
    chosen: list[tuple[Window, Window, Tensor]] = []
    sensors = [first[anchor], first[modality]]
    for tick in sorted(found[sensors[0]].keys() & found[sensors[1]].keys()):
        pair = [replace(found[sensor][tick], calibration=calibrations[sensor]) for sensor in sensors]
        try:
            chosen.append((pair[0], pair[1], tensor(pair[1])))
        except (EncodingError, ValueError) as error:
            raise AlignError(f"'{path}', {modality}: {error}") from error
    if not chosen:
        raise AlignError(f"'{path}' has no tick with windows of both {anchor} and {modality}")
    start = min(w.start for pair in chosen for w in pair[:2])
    spans = torch.tensor([[min(a.start, b.start), a.tick] for a, b, _ in chosen])
    return Pairs(
        torch.stack([t for _, _, t in chosen]),
        embed_windows(hub, anchor, [a for a, _, _ in chosen]),
        torch.arange(len(chosen)),
        torch.tensor([int((a.tick - start) / SECOND // block) for a, _, _ in chosen]),
        spans,
        torch.zeros(len(chosen), dtype=torch.long),
        _hub_images([a for a, _, _ in chosen]) if keep_views else torch.empty(0),
    )


def embed_windows(space: Space, modality: str, chosen: Sequence[Window]) -> Tensor:
    """N windows of a modality of the space → float32 (N, D)."""
    from sensebind.replay.embed_files import embed_tensors
    from sensebind.replay.progress import track

    batches = [chosen[i : i + HUB_BATCH_SIZE] for i in range(0, len(chosen), HUB_BATCH_SIZE)]
    vectors = [
        embed_tensors(space, modality, [space.tensor(window) for window in batch])
        for batch in track(batches, f"embedding {modality}", "batches")
    ]
    return torch.cat([torch.from_numpy(part) for part in vectors])


def _hub_images(chosen: Sequence[Window]) -> Tensor:
    from sensebind.fusion.models.spokes.spoke import image_tensor

    return torch.stack([image_tensor(window) for window in chosen])


def pairs_from_folder(
    folder: Path, modality: str, hub: Hub, tensor: Callable[[Window], Tensor], trained_window: Any,
    block: int = 8, keep_views: bool = False,
) -> Pairs:  # fmt: skip
    """Pairs of files with equal names (suffixes aside) in FOLDER/<modality> and FOLDER/vision or FOLDER/text.

    A text file has one caption; equal captions are one group. A block is `block` consecutive files by name. Raises
    `AlignError` if a folder is missing, if no names match, or if a file cannot be decoded.
    """
    anchor = next((m for m in (VISION, TEXT) if (folder / m).is_dir()), None)
    if anchor is None or not (folder / modality).is_dir():
        raise AlignError(f"'{folder}' must hold folders '{modality}' and 'vision' or 'text' with files of equal names")
    own, others = (_by_stem(folder / m) for m in (modality, anchor))
    names = sorted(own.keys() & others.keys())
    if not names:
        raise AlignError(f"'{folder / modality}' and '{folder / anchor}' have no file name in common")
    inputs: list[Tensor] = []
    owners: list[int] = []
    for number, name in enumerate(names):
        try:
            parts = [tensor(window) for window in sensor_files.read_windows(modality, own[name], trained_window)]
        except EncodingError as error:
            raise AlignError(f"'{own[name]}': {error}") from error
        inputs += parts
        owners += [number] * len(parts)
    rows = torch.tensor(owners)
    views = torch.empty(0)
    if anchor == TEXT:
        captions = [_read_caption(others[name]) for name in names]
        groups = torch.tensor([captions.index(caption) for caption in captions])
        targets = hub.embed_text(captions)
    else:
        images = [sensor_files.read_windows(VISION, others[name], hub.trained_windows[VISION])[0] for name in names]
        groups, targets = torch.arange(len(names)), embed_windows(hub, VISION, images)
        views = _hub_images(images)[rows] if keep_views else views
    span = torch.stack([rows, rows + 1], dim=1)
    return Pairs(
        torch.stack(inputs), targets[rows], groups[rows], rows // block, span, torch.zeros(len(rows), dtype=torch.long),
        views,
    )  # fmt: skip


def _read_caption(path: Path) -> str:
    try:
        return read_text(path).strip()
    except DocumentError as error:
        raise AlignError(str(error)) from error


def _by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}


def summary(pairs: Pairs) -> str:
    """The numbers of pairs, of different targets and of blocks."""
    count = len(np.unique(pairs.blocks.numpy()))
    return f"{len(pairs)} pairs of {len(pairs.class_ids.unique())} different targets in {count} blocks"
