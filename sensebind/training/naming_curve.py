"""Fits the curve with which the starter space names intervals of sound: `python -m sensebind.training.naming_curve`.

The data are clips of ESC-10's fold 1 (CC BY 3.0, K. J. Piczak) in robot noise, with the prompts of the ten classes and
of sounds that do not occur. The curve is a logistic regression on the intervals of the streams: at each tick, a label
is right if its clip overlaps the interval so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensebind.evaluation.real.prompt_runs import settings_for
from sensebind.evaluation.real.sound_streams import SoundStream, join_in_robot_noise, read_clips
from sensebind.evaluation.real.sounds_in_noise import class_prompts, label_of
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import AUDIO, SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.proposals.naming import PRIOR_WINDOWS, NamingCurve
from sensebind.fusion.models.starter.concepts import SOUND_CONCEPTS
from sensebind.fusion.stream.drivers import process_samples
from sensebind.replay.session import Settings
from sensebind.simulation.messages import SIMULATION_START
from sensebind.training.prompt_classifiers import nonnegative_logistic_regression

FOLD = "1"
SNRS = (10.0, 10.0, 10.0, 5.0, 15.0, 20.0)  # dB, one stream each
STREAM_SECONDS = 300.0
SEED = 300
SOURCE = "ESC-10 fold 1 in robot noise (CC BY 3.0)"
# Sounds that do not occur, half of them like one that does: twice as many as classes.
ABSENT = (
    "speech", "aeroplane", "coughing", "thunder", "a cow", "keyboard typing", "music", "siren", "a car", "footsteps",
    "laughter", "water dripping", "a motorcycle", "a cat", "hammering", "violin", "telephone", "glass breaking",
    "church bell", "a vacuum cleaner",
)  # fmt: skip
# Sounds are compared by their sound concepts alone: the image concepts of a sound are there to find images for it.
DIMENSIONS = (SOUND_CONCEPTS.start, SOUND_CONCEPTS.stop)
# A curve that only makes the detector pool similarities.
NO_CURVE = NamingCurve(1.0, 1.0, -100.0, "none", DIMENSIONS)
PENALTY = 1e-8  # of the squared weights: cosines are small numbers
MIN_OVERLAP = 0.3  # of an interval with a clip that it shows

Array = npt.NDArray[np.float64]


def pooled_examples(
    stream: SoundStream, space: Space, settings: Settings, detector: PromptDetector
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """For each tick with an open interval and each label of `detector`: the pooled similarity and the margin, (N, 2),
    and whether the label is right, (N,)."""
    labels, state = list(detector.prompts), detector.initial_state()
    rows: list[Array] = []
    truth: list[npt.NDArray[np.bool_]] = []
    for output in process_samples(settings.pipeline(space, None), stream.messages()):
        if not isinstance(output, Embedding) or output.modality == FUSED:
            continue
        state, _ = detector.score(state, output.tick, {output.modality: output})
        own = state.sensor_states[AUDIO]
        proposal = own.proposal
        if proposal is None or own.naming is None or own.naming.interval_start != proposal.start:
            continue
        similarities, competing = own.naming.interval.means(PRIOR_WINDOWS)
        margins = detector.competition(AUDIO).margins(similarities, competing)
        rows.append(np.stack([similarities, np.minimum(margins, 0.0)], axis=1))
        start, end = ((t - SIMULATION_START) / SECOND for t in (proposal.start, max(proposal.end, proposal.start + 1)))
        heard = {
            label_of(name)
            for onset, offset, name in stream.truth.rows()
            if min(offset, end) - max(onset, start) > MIN_OVERLAP * (end - start)
        }
        truth.append(np.array([label in heard for label in labels]))
    return np.concatenate(rows), np.concatenate(truth)


def fit_naming_curve(folder: Path, seeds: Sequence[int], snrs: Sequence[float]) -> NamingCurve:
    """Fit the curve on one stream for each seed. `folder`: that of ESC-10. Raises `SoundDataError`."""
    clips = read_clips(folder, FOLD)
    prompts = class_prompts([clip.name for clip in clips]) | {
        label_of(name): [f"the sound of {name}"] for name in ABSENT
    }
    settings = settings_for([AUDIO], prompts)
    space = settings.space()
    pooling = PromptCalibration(space.id, 0.02, naming={AUDIO: NO_CURVE})
    detector = PromptDetector(prompts, space.embed_text, PromptOptions(calibration=lambda _: pooling))
    rows, truth = [], []
    for seed, snr in zip(seeds, snrs, strict=True):
        found = pooled_examples(join_in_robot_noise(clips, STREAM_SECONDS, snr, seed), space, settings, detector)
        rows.append(found[0])
        truth.append(found[1])
    table, right = np.concatenate(rows), np.concatenate(truth)
    weights = nonnegative_logistic_regression(table, right.astype(np.float64), penalty=PENALTY)
    bias, similarity, margin = (round(float(weight), 2) for weight in weights)
    return NamingCurve(similarity, margin, bias, SOURCE, DIMENSIONS)


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--esc10", type=Path, default=Path("../shared/evaluation/esc10"), metavar="DIR",
        help="folder of ESC-10 (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    print(fit_naming_curve(args.esc10, range(SEED, SEED + len(SNRS)), SNRS))


if __name__ == "__main__":
    main()
