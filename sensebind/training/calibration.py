"""A calibration fitted on streams of which it is known what was there when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sensebind.evaluation.reliability import reliability
from sensebind.fusion.events.evidence import (
    MAX_NEGATIVE_EVIDENCE,
    MAX_POSITIVE_EVIDENCE,
    BoolArray,
    FloatArray,
    logistic,
    logit,
)
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.prompt_calibration import (
    MAX_MARGIN,
    CalibrationError,
    ModalityCalibration,
    PromptCalibration,
)
from sensebind.training.prompt_classifiers import (
    FOLDS,
    MIN_EXAMPLES,
    LabelledStream,
    LabelSpanNs,
    TickEmbeddings,
    nonnegative_logistic_regression,
    train_prompt_classifiers,
)

FIT_ITERATIONS = 2  # the usual is not learnt while something is on, so scores bear on what is fitted


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """One row for every tick and label. `inputs`: modality → (R, 3) of x, lead and coverage, NaN where it is silent."""

    truth: BoolArray  # (R,)
    scores: FloatArray  # (R,) what the detector gave
    inputs: Mapping[str, FloatArray]


def collect_examples(
    detector: PromptDetector, ticks: Sequence[TickEmbeddings], spans: Sequence[LabelSpanNs]
) -> CalibrationExamples:
    """Run a detector over a stream. A label is there at a tick where at least half of the time since the tick before is
    within one of its spans."""
    labels = list(detector.prompts)
    modalities = sorted({m for _, present in ticks for m in present})
    state, before = detector.initial_state(), None
    truth, scores = [], []
    senses: dict[str, list[FloatArray]] = {m: [] for m in modalities}
    for tick, present in ticks:
        state, found = detector.score(state, tick, present)
        heard = state.current_modalities(tick, detector.options.max_age)
        since = tick - 500_000_000 if before is None else before
        for modality in modalities:
            rows = np.full((len(labels), 3), np.nan)
            if modality in heard:
                sense = heard[modality]
                rows[:, 0], rows[:, 1], rows[:, 2] = (
                    sense.deviations,
                    np.clip(sense.margins, -MAX_MARGIN, MAX_MARGIN),
                    sense.coverage,
                )
            senses[modality].append(rows)
        truth += [2 * _overlap_duration(since, tick, label, spans) >= tick - since for label in labels]
        scores += [found[label].score for label in labels]
        before = tick
    return CalibrationExamples(
        np.array(truth, bool),
        np.array(scores, np.float64),
        {m: np.concatenate(rows) if rows else np.zeros((0, 3)) for m, rows in senses.items()},
    )


def _overlap_duration(start: int, end: int, label: str, spans: Sequence[LabelSpanNs]) -> int:
    return sum(max(0, min(end, off) - max(start, on)) for on, off, name in spans if name == label)


def concatenate_examples(parts: Sequence[CalibrationExamples]) -> CalibrationExamples:
    """The rows of all."""
    modalities = sorted({m for part in parts for m in part.inputs})
    return CalibrationExamples(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.scores for part in parts]),
        {
            m: np.concatenate([part.inputs.get(m, np.full((len(part.truth), 3), np.nan)) for part in parts])
            for m in modalities
        },
    )


def fit_calibration(examples: CalibrationExamples, space: str) -> PromptCalibration:
    """A sigmoid for each sense, then the weights with which their evidence adds up. Raises `CalibrationError`.

    Both are logistic regressions by maximum likelihood, with weights that cannot be negative: more similar is never
    less probable. The second one's inputs are the log-odds that `evidence.pool_scores` adds up.
    """
    truth = examples.truth.astype(np.float64)
    if min(int(truth.sum()), int((1 - truth).sum())) < MIN_EXAMPLES:
        raise CalibrationError(
            f"the truth has {int(truth.sum())} ticks with a prompt's label and {int((1 - truth).sum())} without, and a "
            f"fit needs {MIN_EXAMPLES} of each: label more, or name the prompts as the truth does"
        )
    base = float(logit(truth.mean()))
    fitted: dict[str, ModalityCalibration] = {}
    gains = []
    for modality, rows in examples.inputs.items():
        there = ~np.isnan(rows[:, 0])
        if min(truth[there].sum(), (1 - truth[there]).sum()) < MIN_EXAMPLES:
            continue
        (bias, deviation, lead) = nonnegative_logistic_regression(rows[there, :2], truth[there])
        fitted[modality] = ModalityCalibration(deviation, lead, bias)
        told = bias + rows[there, :2] @ np.array([deviation, lead])
        gain = np.zeros(len(truth))
        gain[there] = np.clip(told - base, -MAX_NEGATIVE_EVIDENCE, MAX_POSITIVE_EVIDENCE) * rows[there, 2]
        gains.append(gain)
    prior, *weights = nonnegative_logistic_regression(np.stack(gains, axis=1), truth)
    # The sigmoids are moved with the prior, so that what they add to it stays as fitted.
    senses = {
        m: replace(sense, bias=sense.bias + prior - base, reliability=min(weight, 10.0))
        for (m, sense), weight in zip(fitted.items(), weights, strict=True)
    }
    return PromptCalibration(space, float(np.clip(logistic(prior), 1e-4, 0.5)), senses)


def fit_calibration_on_streams(
    detector: PromptDetector, streams: Sequence[LabelledStream], space: str
) -> PromptCalibration:
    """As `fit_calibration`, on streams, with the words that `train_prompt_classifiers` finds; the detector runs over
    them again with what was fitted first. Raises `CalibrationError`."""
    calibration: PromptCalibration | None = None
    for _ in range(FIT_ITERATIONS):
        calibration = fit_calibration(
            concatenate_examples(
                [collect_examples(with_calibration(detector, calibration), *stream) for stream in streams]
            ),
            space,
        )
    assert calibration is not None
    phrases = dict(zip(detector.prompts, np.split(detector.phrase_vectors, detector.label_starts[1:]), strict=True))
    words, doubt = train_prompt_classifiers(phrases, streams)
    return calibration if words is None else replace(calibration, words=words, doubt=doubt)


def fit_and_assess(
    detector: PromptDetector, streams: Sequence[LabelledStream], space: str
) -> tuple[PromptCalibration, dict[str, Any]]:
    """As `fit_calibration_on_streams`, with what is to be noted beside it: how many `recordings`, `examples` (ticks ×
    labels) and `true` ones among these, and the `figures` of their scores `before` and `after`.

    Of several streams also those of ``each by others``: each of `FOLDS` parts is scored by a calibration that was
    fitted on the other parts. Raises `CalibrationError`.
    """
    before = concatenate_examples([collect_examples(detector, *stream) for stream in streams])
    calibration = fit_calibration_on_streams(detector, streams, space)
    after = concatenate_examples(
        [collect_examples(with_calibration(detector, calibration), *stream) for stream in streams]
    )
    notes = {
        "recordings": len(streams),
        "examples": len(after.truth),
        "true": int(after.truth.sum()),
        "before": probability_metrics(before.scores, before.truth),
        "after": probability_metrics(after.scores, after.truth),
    }
    if len(streams) > 1:
        kept = []
        for part in range(min(len(streams), FOLDS)):
            rest = [stream for i, stream in enumerate(streams) if i % FOLDS != part]
            fitted = with_calibration(detector, fit_calibration_on_streams(detector, rest, space))
            kept += [collect_examples(fitted, *stream) for stream in streams[part::FOLDS]]
        others = concatenate_examples(kept)
        notes["each by others"] = probability_metrics(others.scores, others.truth)
    return calibration, notes


def with_calibration(detector: PromptDetector, calibration: PromptCalibration | None) -> PromptDetector:
    """The same detector with this calibration, or with none."""
    return detector.with_options(replace(detector.options, calibration=lambda space: calibration))


def probability_metrics(scores: FloatArray, truth: BoolArray) -> dict[str, Any]:
    """How good N probabilities are: expected calibration error, Brier score, and the area under the ROC curve."""
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    yes, no = int(truth.sum()), int((~truth).sum())
    area = (ranks[truth].sum() - yes * (yes + 1) / 2) / (yes * no) if yes and no else float("nan")
    return {
        "ece": round(reliability(scores, truth).expected_calibration_error or 0.0, 4),
        "brier": round(float(np.mean(np.square(scores - truth))), 4),
        "roc_auc": round(float(area), 4),
    }
