"""Joins a modality of one space to another space through text that both embed: no paired recordings are needed.

Both spaces embed the same phrases. An orthogonal map (Procrustes) takes the vectors of one space to those of the other,
after the mean of each is subtracted. What is mapped in use are vectors of the other modality. In many spaces these have
another mean than phrases (the modality gap), so the mean of unlabelled vectors is subtracted if they are given. C-MCR
(NeurIPS 2023) and Ex-MCR (NeurIPS 2024) join spaces in this way with small trained networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sensebind.fusion.core.documents import DocumentError, read_text
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import AUDIO, IMAGE_MODALITIES, IMU, TEXT, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.io.sensor_files import read_windows
from sensebind.fusion.models.spokes.bound_space import BoundSpace
from sensebind.fusion.models.spokes.joined import JoinMap
from sensebind.fusion.models.spokes.spoke import JOINED, SpokeSpec
from sensebind.fusion.models.starter.concepts import image_class_names, sound_class_names, sound_class_phrases
from sensebind.replay.session import open_replay
from sensebind.training.data.pairs import AlignError, embed_windows, windows_by_tick

EVERYDAY_PHRASES = Path(__file__).parent / "data" / "everyday_phrases.txt"  # one in a line, by this project
HELD_OUT = 0.1  # fraction of the meanings that measure the map and are left out of its fit
MIN_PHRASES = 50
LOGIT_SCALES = (5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0, 57.0, 80.0, 113.0)  # candidates
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
FILE_SUFFIXES = {  # of files in a folder of unlabelled data
    AUDIO: (".wav", ".flac", ".ogg", ".mp3"), IMU: (".csv",),
    **dict.fromkeys(IMAGE_MODALITIES, (".jpg", ".jpeg", ".png")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SharedPhrases:
    """N phrases. `meanings` (N,): numbers from 0 on, equal for wordings of the same name ("Rain", "the sound of Rain");
    the first phrase of a meaning is its plain wording."""

    phrases: tuple[str, ...]
    meanings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JoinQuality:
    """How well held-out phrases find themselves among each other through the map, and by chance. `logit_scale`: the
    factor of their cosines with the smallest cross-entropy."""

    recall: float
    chance: float
    held_out: int
    logit_scale: float


def shared_phrases(more: Sequence[str] = ()) -> SharedPhrases:
    """The names of ImageNet's and AudioSet's classes, these also as "the sound of …", everyday phrases, and `more`."""
    everyday = EVERYDAY_PHRASES.read_text(encoding="utf-8").splitlines()
    sounds = zip(sound_class_names(), sound_class_phrases(), strict=True)
    wordings = [*sounds, *((phrase,) for phrase in (*image_class_names(), *everyday, *more))]
    numbers: dict[str, int] = {}  # plain wording → its meaning
    found: dict[str, int] = {}  # phrase → its meaning
    for plain, *others in wordings:
        meaning = numbers.setdefault(plain.lower(), len(numbers))
        for phrase in (plain, *others):
            found.setdefault(phrase, meaning)
    return SharedPhrases(tuple(found), tuple(found.values()))


def read_phrases(file: Path) -> list[str]:
    """The phrases in a text file, one in a line. Raises `AlignError`."""
    try:
        return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except (OSError, DocumentError) as error:
        raise AlignError(f"'{file}' cannot be read as phrases: {error}") from error


def fit_join(source: Tensor, hub: Tensor, mean: Tensor | None = None) -> JoinMap:
    """Vectors (N, S) and (N, D) of the same phrases → the map from the source to the hub.

    Its matrix is the orthogonal one (its smaller side is) with the smallest squared error after both means are
    subtracted. `mean` (S,): that of the vectors that will be mapped; None: zeros.
    """
    product = (source - source.mean(dim=0)).T @ (hub - hub.mean(dim=0))
    left, _, right = torch.linalg.svd(product, full_matrices=False)
    return JoinMap(left @ right, torch.zeros(source.shape[1]) if mean is None else mean)


def held_out_quality(source: Tensor, hub: Tensor, meanings: Tensor, seed: int = 0) -> JoinQuality:
    """Vectors of the same phrases, (N, S) and (N, D), and their meanings (N,) → the quality of the map.

    The map is fitted on the phrases of nine tenths of the meanings. The plain wordings of the others are mapped and
    ranked.
    """
    count = int(meanings.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = order[: max(2, round(HELD_OUT * count))]
    training = ~torch.isin(meanings, held)
    join = fit_join(source[training], hub[training], source[training].mean(dim=0))
    rows = torch.tensor([int((meanings == meaning).nonzero()[0]) for meaning in held])
    cosines, own = join(source[rows]) @ hub[rows].T, torch.arange(len(rows))
    losses = [float(cross_entropy(scale * cosines, own)) for scale in LOGIT_SCALES]
    return JoinQuality(
        float((cosines.argmax(dim=1) == own).float().mean()), 1 / len(rows), len(rows),
        LOGIT_SCALES[losses.index(min(losses))],
    )  # fmt: skip


def join_through_text(
    source: Space,
    hub: Space,
    modality: str,
    phrases: SharedPhrases,
    mean: Tensor | None = None,
    name: str = "",
    weights: str = "",
) -> tuple[SpokeSpec, JoinMap, JoinQuality]:
    """The spoke that embeds `modality` with the encoder of `source` into `hub`: its description, its map, its quality.

    `mean` (S,): that of unlabelled vectors of the modality; None: not known. `name` and `weights` are those with which
    `load_space` loads the source. Raises `AlignError` if the spaces cannot
    be joined.
    """
    check_spaces(source, hub, modality)
    if len(phrases.phrases) < MIN_PHRASES:
        raise AlignError(f"{len(phrases.phrases)} phrases are too few to join spaces: give {MIN_PHRASES} or more")
    vectors, targets = source.embed_text(phrases.phrases).float(), hub.embed_text(phrases.phrases).float()
    quality = held_out_quality(vectors, targets, torch.tensor(phrases.meanings))
    window = source.trained_windows[modality]
    spec = SpokeSpec(
        modality, JOINED, hub.id, hub.dimension, length=window.length, frames=window.frames,
        logit_scale=quality.logit_scale, source=name, source_id=source.id, source_weights=weights,
        about={
            "anchors": [TEXT], "phrases": len(phrases.phrases), "held_out": quality.held_out,
            "recall_at_1": round(quality.recall, 4), "centred": mean is not None, "licence": source.licence,
        },
    )  # fmt: skip
    return spec, fit_join(vectors, targets, mean), quality


def check_spaces(source: Space, hub: Space, modality: str) -> None:
    """Raises `AlignError` if `modality` of `source` cannot be joined to `hub` through text."""
    root = source.hub if isinstance(source, BoundSpace) else source
    if root.id == hub.id:
        raise AlignError(f"source and hub are the same space, {hub.id}: choose another --source or --hub")
    if modality == TEXT:
        raise AlignError("text joins the spaces: choose another --modality, for example audio")
    if modality not in source.modalities:
        raise AlignError(f"space {source.id} has no encoder for '{modality}': choose another --source or --modality")
    for option, space in (("source", source), ("hub", hub)):
        if TEXT not in space.modalities:
            raise AlignError(f"space {space.id} does not embed text, which joins the spaces: choose another --{option}")


def mean_vector(space: Space, modality: str, paths: Sequence[Path], values: Mapping[str, Any]) -> Tensor:
    """The mean (D,) of the vectors of unlabelled data: recordings, files, or folders of files.

    `values` are the embedder's parameters. Raises `AlignError` if there are no data or a window cannot be decoded.
    """
    recordings, files = _unlabelled_data(modality, paths)
    vectors = [_recorded_vectors(space, modality, path, values) for path in recordings]
    vectors += [_file_vectors(space, modality, path) for path in files]
    if not vectors:
        raise AlignError(f"'{paths[0]}' has no files of {modality}: --unlabelled needs recordings or files")
    return torch.cat(vectors).mean(dim=0)


def _unlabelled_data(modality: str, paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Recordings and files of `paths`. Of a folder: its recordings, and the files with a suffix of the modality."""
    recordings, files = [], []
    for path in paths:
        if path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file():
            recordings.append(path)
        elif path.is_dir():
            bags = sorted({file.parent for file in path.rglob("metadata.yaml")})
            inside = [file for file in sorted(path.rglob("*")) if not any(bag in file.parents for bag in bags)]
            recordings += [*bags, *(file for file in inside if file.suffix in BAG_SUFFIXES and file.is_file())]
            files += [file for file in inside if file.suffix.lower() in FILE_SUFFIXES.get(modality, ())]
        else:
            files.append(path)
    return recordings, files


def _file_vectors(space: Space, modality: str, path: Path) -> Tensor:
    """The unit vectors (N, D) of all windows of a file."""
    return _vectors(space, modality, path, read_windows(modality, path, space.trained_windows[modality], whole=True))


def _recorded_vectors(space: Space, modality: str, path: Path, values: Mapping[str, Any]) -> Tensor:
    """The unit vectors (N, D) of a recording's windows of `modality`, of all its sensors that `values` name."""
    values = {**values, "modalities": [modality]}
    with open_replay(path, values, (modality,)) as replay:
        samples = (sample for sample in replay.samples() if isinstance(sample, Sample))
        by_sensor = windows_by_tick(samples, values, space.trained_windows)
    found = [window for windows in by_sensor.values() for window in windows.values()]
    if not found:
        raise AlignError(f"'{path}' has no windows of {modality}: set {modality}.topic in --config")
    return _vectors(space, modality, path, found)


def _vectors(space: Space, modality: str, path: Path, windows: Sequence[Window]) -> Tensor:
    """The unit vectors (N, D) of N windows of `path`. Raises `AlignError` if one cannot be decoded."""
    try:
        return embed_windows(space, modality, windows)
    except (EncodingError, ValueError) as error:
        raise AlignError(f"'{path}', {modality}: {error}") from error
