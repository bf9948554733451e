"""How well a space's senses find each other, also those that were never trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.core.embeddings import FUSED, Embedding, Vector, unit
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import TEXT, VISION
from sensebind.fusion.core.space import Space
from sensebind.fusion.io.truth import read_truth, truth_beside
from sensebind.replay.session import Settings, open_replay
from sensebind.simulation.record import record
from sensebind.simulation.survey import HELD_OUT, tour

INSIDE = 0.8  # share of a window that must lie in an event to stand for it
HUB = {VISION, TEXT}  # whose own senses were trained together


class AlignmentError(SensebindError):
    """Recordings or truth that alignment cannot be measured on."""


@dataclass(frozen=True, slots=True)
class Moments:
    """N moments: what was there (`labels`), and the unit vectors (N, D) of each sense that perceived them."""

    labels: tuple[str, ...]
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """From each of `n` moments of one sense to those of another: recall, the median rank of the first that shows the
    same, what chance would give at 1, and whether the two were ever trained together."""

    query: str
    target: str
    recall_1: float
    recall_5: float
    median_rank: float
    chance: float
    n: int
    together: bool


def recall(scores: Tensor, groups: Tensor, ranks: Sequence[int] = (1,)) -> list[float]:
    """(N, N) scores of queries (rows) and candidates → the share of rows with one of their own group among the first
    k, for each k. A tie counts against the row."""
    same = groups[:, None] == groups[None, :]
    best = scores.masked_fill(~same, float("-inf")).amax(dim=1, keepdim=True)
    before = ((scores >= best) & ~same).sum(dim=1)
    return [float((before < k).float().mean()) for k in ranks]


def of_recording(path: Path, space: Space) -> Moments:
    """The events of RECORDING.truth.tsv as each modality perceived them, through the whole pipeline.

    Parameters are the defaults. Raises `RecordingError`, `TruthError` and `AlignmentError`.
    """
    settings = Settings.of({})
    found: dict[str, list[Embedding]] = {}
    with open_replay(path, settings.embedder) as replay:
        for output in replay.outputs(settings.pipeline(space)):
            if isinstance(output, Embedding) and output.modality != FUSED:
                found.setdefault(output.modality, []).append(output)
        start = replay.start
    return of_truth(found, read_truth(truth_beside(path) or f"{path}.truth.tsv"), start)


def of_tours(count: int, space: Space) -> list[Moments]:
    """As `of_recording`, of `count` simulated tours in rooms that training never saw."""
    found = []
    with TemporaryDirectory() as folder:
        for number in range(HELD_OUT, HELD_OUT + count):
            path = Path(folder) / f"tour{number}"
            record(tour(number), path)
            found.append(of_recording(path, space))
    return found


def of_truth(
    embeddings: Mapping[str, Sequence[Embedding]], truth: Sequence[tuple[float, float, str]], start: int
) -> Moments:
    """One moment for each event of `truth` (onset, offset in s from `start` in ns, label): each sense's mean vector
    over the windows of which `INSIDE` lies in it. Events that a sense has no such window of are left out."""
    chosen: list[tuple[str, dict[str, Vector]]] = []
    for onset, offset, label in truth:
        first, last = start + round(onset * 1e9), start + round(offset * 1e9)
        found = {}
        for modality, own in embeddings.items():
            inside = [
                e.vector for e in own if min(e.tick, last) - max(e.start, first) >= INSIDE * (e.tick - e.start)
            ]  # fmt: skip
            if inside:
                found[modality] = unit(np.mean(inside, axis=0))
        if len(found) == len(embeddings):
            chosen.append((label, found))
    if len(chosen) < 2:
        raise AlignmentError("fewer than two events of the truth were perceived by every sense: record longer")
    return Moments(
        tuple(label for label, _ in chosen),
        {m: np.stack([vectors[m] for _, vectors in chosen]) for m in embeddings},
    )  # fmt: skip


def together(moments: Sequence[Moments]) -> Moments:
    """The moments of several recordings as one set, of the senses that all have."""
    shared = set.intersection(*(set(m.vectors) for m in moments))
    labels = tuple(label for m in moments for label in m.labels)
    return Moments(labels, {s: np.concatenate([m.vectors[s] for m in moments]) for s in sorted(shared)})


def with_text(moments: Moments, space: Space, phrases: Mapping[str, Sequence[str]]) -> Moments:
    """As a sense of its own, the words for what was there: the mean vector of a label's phrases."""
    own = {}
    for label in set(moments.labels):
        texts = phrases.get(label) or (label.replace("_", " "),)
        own[label] = unit(space.embed_text(texts).numpy().mean(axis=0))
    return Moments(moments.labels, {**moments.vectors, TEXT: np.stack([own[label] for label in moments.labels])})


def matrix(moments: Moments, trained: Mapping[str, Sequence[str]]) -> list[Retrieval]:
    """Retrieval between all ordered pairs of senses. `trained`: sense → those it was bound to.

    Vectors are compared as published: no mean is removed. A moment of the same label counts as found.
    """
    groups = torch.tensor([moments.labels.index(label) for label in moments.labels])
    same = groups[:, None] == groups[None, :]
    chance = float(same.float().mean())
    result = []
    for query in moments.vectors:
        for target in moments.vectors:
            if query == target:
                continue
            scores = torch.from_numpy(moments.vectors[query] @ moments.vectors[target].T)
            best = scores.masked_fill(~same, float("-inf")).amax(dim=1, keepdim=True)
            ranks = 1 + ((scores >= best) & ~same).sum(dim=1)
            one, five = recall(scores, groups, (1, 5))
            met = target in trained.get(query, ()) or query in trained.get(target, ()) or {query, target} == HUB
            result.append(
                Retrieval(query, target, one, five, float(ranks.float().median()), chance, len(groups), met)
            )
    return result


def arithmetic(moments: Moments, first: str, second: str, target: str) -> tuple[float, float]:
    """Adding a vector of `first` of one moment and one of `second` of another: the share of such sums whose two
    nearest moments of `target` are of the two labels, and chance. Vectors are added as unit vectors."""
    labels = moments.labels
    a, b, c = (moments.vectors[m] for m in (first, second, target))
    right = tries = 0
    lucky = 0.0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] == labels[j]:
                continue
            scores = unit(a[i] + b[j]) @ c.T
            best = max(range(len(labels)), key=lambda k: scores[k])
            rest = [k for k in range(len(labels)) if labels[k] != labels[best]]
            second_best = max(rest, key=lambda k: scores[k])
            right += {labels[best], labels[second_best]} == {labels[i], labels[j]}
            tries += 1
            kinds = len(set(labels))
            lucky += 2 / (kinds * (kinds - 1))
    return (right / tries, lucky / tries) if tries else (float("nan"), float("nan"))


def zero_shot(moments: Moments) -> dict[str, float]:
    """Per sense, the share of moments whose own words are the nearest of all labels'. Needs `with_text`."""
    kinds = list(dict.fromkeys(moments.labels))
    words = np.stack([moments.vectors[TEXT][moments.labels.index(kind)] for kind in kinds])
    own = np.array([kinds.index(label) for label in moments.labels])
    return {m: float((v @ words.T).argmax(axis=1).__eq__(own).mean()) for m, v in moments.vectors.items() if m != TEXT}


def table(rows: Sequence[Retrieval]) -> str:
    """R@1 of all pairs, queries down, targets across; a star where the two were never trained together."""
    senses = list(dict.fromkeys(row.query for row in rows))
    found = {(row.query, row.target): row for row in rows}
    lines = ["from \\ to  " + " ".join(f"{sense:>9}" for sense in senses)]
    for query in senses:
        cells = []
        for target in senses:
            row = found.get((query, target))
            cells.append(f"{'–':>9}" if row is None else f"{row.recall_1:8.2f}{' ' if row.together else '*'}")
        lines.append(f"{query:10} " + " ".join(cells))
    first = rows[0]
    lines.append(f"R@1 among {first.n} moments, chance {first.chance:.3f}; * never trained together")
    return "\n".join(lines)


def as_json(rows: Sequence[Retrieval]) -> list[dict[str, object]]:
    """For a file."""
    return [asdict(row) for row in rows]


def plot(rows: Sequence[Retrieval], path: Path) -> None:
    """The table as a picture. Raises `AlignmentError` where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AlignmentError("a plot needs matplotlib: pip install 'sensebind[report]'") from error
    senses = list(dict.fromkeys(row.query for row in rows))
    values = np.full((len(senses), len(senses)), np.nan)
    figure = Figure(figsize=(1.1 * len(senses) + 2, 1.0 * len(senses) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        values[senses.index(row.query), senses.index(row.target)] = row.recall_1
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for row in rows:
        y, x = senses.index(row.query), senses.index(row.target)
        mark = "" if row.together else "*"
        axes.text(x, y, f"{row.recall_1:.2f}{mark}", ha="center", va="center", color="w" if row.recall_1 < 0.6 else "k")
    axes.set_xticks(range(len(senses)), senses)
    axes.set_yticks(range(len(senses)), senses)
    axes.set(xlabel="found in", ylabel="asked by")
    axes.set_title(f"R@1 among {rows[0].n}, chance {rows[0].chance:.3f}\n* never trained together", fontsize=10)
    figure.savefig(path, dpi=120)
