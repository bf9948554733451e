"""A calibration fitted on streams of which it is known what was there when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sensebind.evaluation.calibration import reliability
from sensebind.fusion.events.calibration import LEAD, Calibration, CalibrationError, SenseCalibration
from sensebind.fusion.events.evidence import CERTAINTY, DOUBT, Array, Flags, logistic, logit
from sensebind.fusion.events.prompts import PromptDetector
from sensebind.training.probes import FEWEST, FOLDS, Span, Stream, Tick, regress, teach

ROUNDS = 2  # the usual is not learnt while something is on, so scores bear on what is fitted


@dataclass(frozen=True, slots=True)
class Examples:
    """One row for every tick and label. `senses`: modality → (R, 3) of x, lead and coverage, NaN where it is silent."""

    truth: Flags  # (R,)
    scores: Array  # (R,) what the detector gave
    senses: Mapping[str, Array]


def collect(detector: PromptDetector, ticks: Sequence[Tick], spans: Sequence[Span]) -> Examples:
    """Run a detector over a stream. A label is there at a tick where at least half of the time since the tick before is
    within one of its spans."""
    labels = list(detector.prompts)
    modalities = sorted({m for _, present in ticks for m in present})
    state, before = detector.start(), None
    truth, scores = [], []
    senses: dict[str, list[Array]] = {m: [] for m in modalities}
    for tick, present in ticks:
        state, found = detector.score(state, tick, present)
        heard = state.heard(tick, detector.options.max_age)
        since = tick - 500_000_000 if before is None else before
        for modality in modalities:
            rows = np.full((len(labels), 3), np.nan)
            if modality in heard:
                sense = heard[modality]
                rows[:, 0], rows[:, 1], rows[:, 2] = sense.x, np.clip(sense.ahead, -LEAD, LEAD), sense.coverage
            senses[modality].append(rows)
        truth += [2 * _shared(since, tick, label, spans) >= tick - since for label in labels]
        scores += [found[label].score for label in labels]
        before = tick
    return Examples(
        np.array(truth, bool),
        np.array(scores, np.float64),
        {m: np.concatenate(rows) if rows else np.zeros((0, 3)) for m, rows in senses.items()},
    )


def _shared(start: int, end: int, label: str, spans: Sequence[Span]) -> int:
    return sum(max(0, min(end, off) - max(start, on)) for on, off, name in spans if name == label)


def joined(parts: Sequence[Examples]) -> Examples:
    """The rows of all."""
    modalities = sorted({m for part in parts for m in part.senses})
    return Examples(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.scores for part in parts]),
        {
            m: np.concatenate([part.senses.get(m, np.full((len(part.truth), 3), np.nan)) for part in parts])
            for m in modalities
        },
    )


def fit(examples: Examples, space: str) -> Calibration:
    """A sigmoid for each sense, then the weights with which their evidence adds up. Raises `CalibrationError`.

    Both are logistic regressions by maximum likelihood, with weights that cannot be negative: more similar is never
    less probable. The second one's inputs are the log-odds that `event.pool` adds up.
    """
    truth = examples.truth.astype(np.float64)
    if min(int(truth.sum()), int((1 - truth).sum())) < FEWEST:
        raise CalibrationError(
            f"the truth has {int(truth.sum())} ticks with a prompt's label and {int((1 - truth).sum())} without, and a "
            f"fit needs {FEWEST} of each: label more, or name the prompts as the truth does"
        )
    base = float(logit(truth.mean()))
    fitted: dict[str, SenseCalibration] = {}
    gains = []
    for modality, rows in examples.senses.items():
        there = ~np.isnan(rows[:, 0])
        if min(truth[there].sum(), (1 - truth[there]).sum()) < FEWEST:
            continue
        (bias, deviation, lead) = regress(rows[there, :2], truth[there])
        fitted[modality] = SenseCalibration(deviation, lead, bias)
        told = bias + rows[there, :2] @ np.array([deviation, lead])
        gain = np.zeros(len(truth))
        gain[there] = np.clip(told - base, -DOUBT, CERTAINTY) * rows[there, 2]
        gains.append(gain)
    prior, *weights = regress(np.stack(gains, axis=1), truth)
    # The sigmoids are moved with the prior, so that what they add to it stays as fitted.
    senses = {
        m: replace(sense, bias=sense.bias + prior - base, reliability=min(weight, 10.0))
        for (m, sense), weight in zip(fitted.items(), weights, strict=True)
    }
    return Calibration(space, float(np.clip(logistic(prior), 1e-4, 0.5)), senses)


def fit_streams(detector: PromptDetector, streams: Sequence[Stream], space: str) -> Calibration:
    """As `fit`, on streams, with the words that `teach` finds; the detector runs over them again with what was fitted
    first. Raises `CalibrationError`."""
    calibration: Calibration | None = None
    for _ in range(ROUNDS):
        calibration = fit(joined([collect(calibrated(detector, calibration), *stream) for stream in streams]), space)
    assert calibration is not None
    phrases = dict(zip(detector.prompts, np.split(detector.phrases, detector.groups[1:]), strict=True))
    words, doubt = teach(phrases, streams)
    return calibration if words is None else replace(calibration, words=words, doubt=doubt)


def fit_and_assess(
    detector: PromptDetector, streams: Sequence[Stream], space: str
) -> tuple[Calibration, dict[str, Any]]:
    """As `fit_streams`, with what is to be noted beside it: how many `recordings`, `examples` (ticks × labels) and
    `true` ones among these, and the `figures` of their scores `before` and `after`.

    Of several streams also those of ``each by others``: each of `FOLDS` parts is scored by a calibration that was
    fitted on the other parts. Raises `CalibrationError`.
    """
    before = joined([collect(detector, *stream) for stream in streams])
    calibration = fit_streams(detector, streams, space)
    after = joined([collect(calibrated(detector, calibration), *stream) for stream in streams])
    notes = {
        "recordings": len(streams),
        "examples": len(after.truth),
        "true": int(after.truth.sum()),
        "before": figures(before.scores, before.truth),
        "after": figures(after.scores, after.truth),
    }
    if len(streams) > 1:
        kept = []
        for part in range(min(len(streams), FOLDS)):
            rest = [stream for i, stream in enumerate(streams) if i % FOLDS != part]
            fitted = calibrated(detector, fit_streams(detector, rest, space))
            kept += [collect(fitted, *stream) for stream in streams[part::FOLDS]]
        others = joined(kept)
        notes["each by others"] = figures(others.scores, others.truth)
    return calibration, notes


def calibrated(detector: PromptDetector, calibration: Calibration | None) -> PromptDetector:
    """The same detector with this calibration, or with none."""
    return detector.with_options(replace(detector.options, calibration=lambda space: calibration))


def figures(scores: Array, truth: Flags) -> dict[str, Any]:
    """How good N probabilities are: expected calibration error, Brier score, and the area under the ROC curve."""
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    yes, no = int(truth.sum()), int((~truth).sum())
    area = (ranks[truth].sum() - yes * (yes + 1) / 2) / (yes * no) if yes and no else float("nan")
    return {
        "ece": round(reliability(scores, truth).error or 0.0, 4),
        "brier": round(float(np.mean(np.square(scores - truth))), 4),
        "roc_auc": round(float(area), 4),
    }
