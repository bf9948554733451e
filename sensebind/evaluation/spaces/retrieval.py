"""Retrieval between all modalities of a space, also those that were never trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.core.embeddings import FUSED, Embedding, Vector, l2_normalize
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import TEXT, VISION
from sensebind.fusion.core.space import Space
from sensebind.fusion.io.ground_truth import find_truth_file, read_truth
from sensebind.replay.session import Settings, open_replay
from sensebind.simulation.recorder import record
from sensebind.simulation.survey import FIRST_HELD_OUT_SEED, survey_scenario

MIN_OVERLAP = 0.8  # fraction of a window that must lie in an event
HUB_MODALITIES = {VISION, TEXT}  # trained together in every hub


class RetrievalError(SensebindError):
    """Recordings or truth that retrieval cannot be measured on."""


@dataclass(frozen=True, slots=True)
class EventEmbeddings:
    """N events: their `labels`, and modality → unit vectors (N, D)."""

    labels: tuple[str, ...]
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """Retrieval from modality `query` to modality `target` among `n` events: recall at 1 and 5, median rank of the
    first event with the same label, recall at 1 by chance, and whether the two modalities were trained together."""

    query: str
    target: str
    recall_1: float
    recall_5: float
    median_rank: float
    chance: float
    n: int
    together: bool


def recall_at_k(scores: Tensor, groups: Tensor, ks: Sequence[int] = (1,)) -> list[float]:
    """For each k, the fraction of queries (rows of `scores` (N, N)) with a candidate (column) of their group among the
    best k. `groups` (N,). A tie counts as a miss, and so does a score that is not a number."""
    before = _first_ranks(scores, groups[:, None] == groups[None, :]) - 1
    return [float((before < k).float().mean()) for k in ks]


def _first_ranks(scores: Tensor, same: Tensor) -> Tensor:
    """Rank (N,) of the first candidate of a query's own group, 1 for the best. Ties, and scores that are not numbers,
    count against it."""
    best = scores.masked_fill(~same, float("-inf")).amax(dim=1, keepdim=True)
    return 1 + (~(scores < best) & ~same).sum(dim=1)


def embeddings_of_recording(path: Path, space: Space) -> EventEmbeddings:
    """The embeddings of the events in RECORDING.truth.tsv, from the pipeline with default parameters.

    Raises `RecordingError`, `TruthError` and `RetrievalError`.
    """
    settings = Settings.of({})
    found: dict[str, list[Embedding]] = {}
    with open_replay(path, settings.embedder) as replay:
        for output in replay.outputs(settings.pipeline(space)):
            if isinstance(output, Embedding) and output.modality != FUSED:
                found.setdefault(output.modality, []).append(output)
        start = replay.start
    return embeddings_of_events(found, read_truth(find_truth_file(path) or f"{path}.truth.tsv"), start)


def embeddings_of_surveys(count: int, space: Space) -> list[EventEmbeddings]:
    """As `embeddings_of_recording`, for `count` simulated surveys with held-out seeds."""
    found = []
    with TemporaryDirectory() as folder:
        for number in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + count):
            path = Path(folder) / f"survey{number}"
            record(survey_scenario(number), path)
            found.append(embeddings_of_recording(path, space))
    return found


def embeddings_of_events(
    embeddings: Mapping[str, Sequence[Embedding]], truth: Sequence[tuple[float, float, str]], start: int
) -> EventEmbeddings:
    """For each event of `truth` (onset, offset in s from `start` in ns, label), the mean vector of each modality over
    windows that lie in it by `MIN_OVERLAP` or more. Events without such windows of all modalities are left out. Raises
    `RetrievalError` for fewer than two events."""
    chosen: list[tuple[str, dict[str, Vector]]] = []
    for onset, offset, label in truth:
        first, last = start + round(onset * 1e9), start + round(offset * 1e9)
        found = {}
        for modality, own in embeddings.items():
            inside = [
                e.vector for e in own if min(e.tick, last) - max(e.start, first) >= MIN_OVERLAP * (e.tick - e.start)
            ]  # fmt: skip
            if inside:
                found[modality] = l2_normalize(np.mean(inside, axis=0))
        if len(found) == len(embeddings):
            chosen.append((label, found))
    if len(chosen) < 2:
        raise RetrievalError("fewer than two events of the truth have windows of every modality: record longer")
    return EventEmbeddings(
        tuple(label for label, _ in chosen),
        {m: np.stack([vectors[m] for _, vectors in chosen]) for m in embeddings},
    )  # fmt: skip


def concatenate(events: Sequence[EventEmbeddings]) -> EventEmbeddings:
    """The events of several recordings as one set, with the modalities that all recordings have."""
    shared = set.intersection(*(set(m.vectors) for m in events))
    labels = tuple(label for m in events for label in m.labels)
    return EventEmbeddings(labels, {s: np.concatenate([m.vectors[s] for m in events]) for s in sorted(shared)})


def add_text(events: EventEmbeddings, space: Space, phrases: Mapping[str, Sequence[str]]) -> EventEmbeddings:
    """Add the modality text: the mean vector of the phrases of each label (default: the label itself)."""
    own = {}
    for label in set(events.labels):
        texts = phrases.get(label) or (label.replace("_", " "),)
        own[label] = l2_normalize(space.embed_text(texts).numpy().mean(axis=0))
    return EventEmbeddings(events.labels, {**events.vectors, TEXT: np.stack([own[label] for label in events.labels])})


def retrieval_matrix(events: EventEmbeddings, trained: Mapping[str, Sequence[str]]) -> list[RetrievalResult]:
    """Retrieval between all ordered pairs of modalities. `trained`: modality → modalities that it was trained with.

    Vectors are compared as published: no mean is subtracted. Every event with the same label is a hit.
    """
    groups = torch.tensor([events.labels.index(label) for label in events.labels])
    same = groups[:, None] == groups[None, :]
    chance = float(same.float().mean())
    result = []
    for query in events.vectors:
        for target in events.vectors:
            if query == target:
                continue
            scores = torch.from_numpy(events.vectors[query] @ events.vectors[target].T)
            ranks = _first_ranks(scores, same)
            one, five = recall_at_k(scores, groups, (1, 5))
            together = (
                target in trained.get(query, ())
                or query in trained.get(target, ())
                or {query, target} == HUB_MODALITIES
            )
            result.append(
                RetrievalResult(query, target, one, five, float(ranks.float().median()), chance, len(groups), together)
            )
    return result


def embedding_arithmetic(events: EventEmbeddings, first: str, second: str, target: str) -> tuple[float, float]:
    """Sums of a unit vector of modality `first` of one event and one of `second` of another: (the fraction of sums
    whose two nearest labels in `target` are the labels of these events, chance)."""
    labels = events.labels
    a, b, c = (events.vectors[m] for m in (first, second, target))
    right = tries = 0
    chance_sum = 0.0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] == labels[j]:
                continue
            scores = l2_normalize(a[i] + b[j]) @ c.T
            best = max(range(len(labels)), key=lambda k: scores[k])
            rest = [k for k in range(len(labels)) if labels[k] != labels[best]]
            second_best = max(rest, key=lambda k: scores[k])
            right += {labels[best], labels[second_best]} == {labels[i], labels[j]}
            tries += 1
            kinds = len(set(labels))
            chance_sum += 2 / (kinds * (kinds - 1))
    return (right / tries, chance_sum / tries) if tries else (float("nan"), float("nan"))


def zero_shot_accuracy(events: EventEmbeddings) -> dict[str, float]:
    """Modality → fraction of events with their own label's text as the nearest. Needs `add_text`."""
    kinds = list(dict.fromkeys(events.labels))
    texts = np.stack([events.vectors[TEXT][events.labels.index(kind)] for kind in kinds])
    own = np.array([kinds.index(label) for label in events.labels])
    return {m: float((v @ texts.T).argmax(axis=1).__eq__(own).mean()) for m, v in events.vectors.items() if m != TEXT}


def retrieval_table(rows: Sequence[RetrievalResult]) -> str:
    """R@1 of all pairs: queries in rows, targets in columns. A star: the two were never trained together."""
    modalities = list(dict.fromkeys(row.query for row in rows))
    found = {(row.query, row.target): row for row in rows}
    lines = ["from \\ to  " + " ".join(f"{modality:>9}" for modality in modalities)]
    for query in modalities:
        cells = []
        for target in modalities:
            row = found.get((query, target))
            cells.append(f"{'–':>9}" if row is None else f"{row.recall_1:8.2f}{' ' if row.together else '*'}")
        lines.append(f"{query:10} " + " ".join(cells))
    first = rows[0]
    lines.append(f"R@1 among {first.n} events, chance {first.chance:.3f}; * never trained together")
    return "\n".join(lines)


def as_json(rows: Sequence[RetrievalResult]) -> list[dict[str, object]]:
    """The rows as dicts, for a JSON file."""
    return [asdict(row) for row in rows]


def plot_retrieval(rows: Sequence[RetrievalResult], path: Path) -> None:
    """Write the table as an image. Raises `RetrievalError` if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RetrievalError("a plot needs matplotlib: pip install 'sensebind[report]'") from error
    modalities = list(dict.fromkeys(row.query for row in rows))
    values = np.full((len(modalities), len(modalities)), np.nan)
    figure = Figure(figsize=(1.1 * len(modalities) + 2, 1.0 * len(modalities) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        values[modalities.index(row.query), modalities.index(row.target)] = row.recall_1
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for row in rows:
        y, x = modalities.index(row.query), modalities.index(row.target)
        mark = "" if row.together else "*"
        axes.text(x, y, f"{row.recall_1:.2f}{mark}", ha="center", va="center", color="w" if row.recall_1 < 0.6 else "k")
    axes.set_xticks(range(len(modalities)), modalities)
    axes.set_yticks(range(len(modalities)), modalities)
    axes.set(xlabel="target", ylabel="query")
    axes.set_title(f"R@1 among {rows[0].n} events, chance {rows[0].chance:.3f}\n* never trained together", fontsize=10)
    figure.savefig(path, dpi=120)
