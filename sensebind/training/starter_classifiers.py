"""Trains the prompt classifiers of the starter space: `python -m sensebind.training.starter_classifiers`.

A training scenario is a simulated walk past objects of all kinds, one after the other in a random order. The room
changes every few seconds. Some objects are behind the robot (audio and IMU only), some are silent (cameras only), some
are in the dark. Nothing is recorded: only the windows that end at a tick are computed. `sensebind simulate --held-out`
uses other seeds, so its rooms, colours and sounds are never in a training scenario.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.space import Space, encoder_ids, limited_modalities
from sensebind.fusion.core.windows import Window
from sensebind.fusion.events.prompt import PromptOptions
from sensebind.fusion.events.prompt_calibration import SHIPPED_FOLDER, PromptCalibration
from sensebind.fusion.models import registry
from sensebind.replay.progress import track
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE
from sensebind.simulation.recorder import (
    GROUNDS,
    IMU_RATE,
    SimulatedEvent,
    SimulatedScenario,
    camera_images,
    simulate_imu,
    synthesize_audio,
)
from sensebind.simulation.scenario import DURATION_BY_KIND
from sensebind.training.prompt_classifiers import LabelledStream, LabelSpanNs, TickEmbeddings, train_prompt_classifiers

TICK_INTERVAL = 0.5  # s
ROOM_DURATION = 13.0  # s in one room
UNSEEN_FRACTION = 0.25  # of the objects: audio and IMU only
SILENT_FRACTION = 0.25  # of the objects: cameras only
IMAGE_TICK_FRACTION = 0.4  # of the ticks that have images: more rooms help more than more images of a room
BATCH_SIZE = 32
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
FIRST_SEED = 7000  # of the first training scenario


def training_scenario(seed: int, seconds: float = 150.0) -> SimulatedScenario:
    """The training scenario of a seed: a walk of `seconds` past objects of all kinds, one at a time."""
    noise = np.random.default_rng([seed, 41])
    events: list[SimulatedEvent] = []
    at, kinds = 2.0, [str(kind) for kind in noise.permutation(list(CATALOGUE))]
    while at < seconds - 3:
        if not kinds:
            kinds = [str(kind) for kind in noise.permutation(list(CATALOGUE))]
        kind = kinds.pop()
        duration = DURATION_BY_KIND.get(kind, float(noise.uniform(1.5, 4.5)))
        draw, modalities = noise.random(), frozenset({VISION, DEPTH, THERMAL, AUDIO, IMU})
        if draw < UNSEEN_FRACTION and (CATALOGUE[kind].sound_name or CATALOGUE[kind].floor_vibration[1]):
            modalities = frozenset({AUDIO, IMU})
        elif draw > 1 - SILENT_FRACTION and CATALOGUE[kind].shape:
            modalities = frozenset({VISION, DEPTH, THERMAL})
        position = float(noise.uniform(1.4, 2.2)), float(noise.uniform(-0.4, 0.4))
        events.append(SimulatedEvent(kind, at, at + duration, modalities, *position))
        at += duration + float(noise.uniform(0.3, 1.5))
    places = tuple(
        (start, str(noise.choice(list(GROUNDS)))) for start in np.arange(0.0, seconds, ROOM_DURATION).tolist()
    )
    dark = float(noise.uniform(0, seconds - 12))
    motor = float(noise.uniform(-50, -44))
    return SimulatedScenario(seconds, places, tuple(events), seed, dark=((dark, dark + 12.0),), motor_level=motor)


def embed_scenario(
    scenario: SimulatedScenario, space: Space, image_fraction: float = IMAGE_TICK_FRACTION
) -> LabelledStream:
    """The vectors of a scenario's windows by tick, as from a recording of it, and its ground truth in ns.

    `image_fraction`: fraction of ticks that have images.
    """
    ticks = [(number + 1) * round(TICK_INTERVAL * SECOND) for number in range(int(scenario.duration / TICK_INTERVAL))]
    present: list[dict[str, Embedding]] = [{} for _ in ticks]
    for modality, windows in _simulated_windows(scenario, space, ticks, image_fraction).items():
        tensors = [space.tensor(window) for window in windows]
        for first in range(0, len(windows), BATCH_SIZE):
            vectors = space.embed(modality, torch.stack(tensors[first : first + BATCH_SIZE])).numpy()
            for window, vector in zip(windows[first : first + BATCH_SIZE], vectors, strict=True):
                present[ticks.index(window.tick)][modality] = Embedding(
                    modality, window.start, window.tick, space.id, window.coverage, vector
                )
    spans: list[LabelSpanNs] = [(round(t.onset * SECOND), round(t.offset * SECOND), t.label) for t in scenario.truth()]
    stream: list[TickEmbeddings] = list(zip(ticks, present, strict=True))
    return stream, spans


def _simulated_windows(
    scenario: SimulatedScenario, space: Space, ticks: list[int], image_fraction: float
) -> dict[str, list[Window]]:
    """Modality → the windows that end at the ticks (ns)."""
    rng = np.random.default_rng([scenario.seed, 42])
    found: dict[str, list[Window]] = {modality: [] for modality in (VISION, DEPTH, THERMAL, AUDIO, IMU)}
    image_ticks = [tick for tick in ticks if rng.random() < image_fraction]
    times = [tick / SECOND - float(rng.uniform(0.005, 0.1)) for tick in image_ticks]
    for tick, (t, images) in zip(image_ticks, camera_images(scenario, times), strict=True):
        for modality, pixels in images.items():
            sample = Sample(modality, round(t * SECOND), _frame(pixels, ENCODINGS[modality]))
            found[modality].append(_window(space, modality, tick, (sample,)))
    wave = synthesize_audio(scenario)
    instants = np.arange(0.0, scenario.duration, 1 / IMU_RATE)
    readings = zip(instants.tolist(), simulate_imu(scenario, instants), strict=True)
    imu_samples = [Sample(IMU, round(t * SECOND), Reading(values)) for t, values in readings]
    for tick in ticks:
        start = max(tick - round(space.trained_windows[AUDIO].length * SECOND), 0)
        piece = wave[round(start / SECOND * AUDIO_SAMPLE_RATE) : round(tick / SECOND * AUDIO_SAMPLE_RATE)]
        if len(piece) >= AUDIO_SAMPLE_RATE * space.trained_windows[AUDIO].length / 2:
            found[AUDIO].append(
                _window(space, AUDIO, tick, (Sample(AUDIO, start, Sound(piece[:, None], AUDIO_SAMPLE_RATE)),))
            )
        first, last = (
            round(t / SECOND * IMU_RATE) for t in (tick - round(space.trained_windows[IMU].length * SECOND), tick)
        )
        if first >= 0:
            found[IMU].append(_window(space, IMU, tick, tuple(imu_samples[first:last])))
    return found


def _window(space: Space, modality: str, tick: int, samples: tuple[Sample, ...]) -> Window:
    """A window of full coverage with the length that the space was trained with."""
    return Window(modality, tick - round(space.trained_windows[modality].length * SECOND), tick, 1.0, samples)


def _frame(pixels: npt.NDArray, encoding: str) -> Frame:
    return Frame(pixels.reshape(-1).view(np.uint8), encoding, pixels.shape[0], pixels.shape[1], pixels.strides[0])


def labelled_streams(space: Space, seeds: range) -> Iterator[LabelledStream]:
    """The streams of the training scenarios with these seeds."""
    for seed in track(seeds, "training scenarios", "scenarios"):
        yield embed_scenario(training_scenario(seed), space)


def main() -> None:
    """Train classifiers of the simulator's kinds and write the shipped calibration file `starter_house`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenarios", type=int, default=48, help="training scenarios of 150 s each (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first (default: %(default)s)")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=SHIPPED_FOLDER / "starter_house.safetensors",
        help="file to write (default: the shipped one)",
    )
    args = parser.parse_args()
    space = registry.load_space("starter")
    phrases = {label: space.embed_text(kind.phrases).numpy() for label, kind in CATALOGUE.items()}
    streams = list(labelled_streams(space, range(args.seed, args.seed + args.scenarios)))
    competences = {
        modality: np.array([float(space.competence(modality, kind.phrases).max()) for kind in CATALOGUE.values()])
        for modality in space.modalities
    }
    classifiers, max_negative_evidence = train_prompt_classifiers(
        phrases, streams, competences, limited_modalities(space)
    )
    calibration = PromptCalibration(
        space.id, PromptOptions().prior, {}, classifiers, max_negative_evidence, encoder_ids(space)
    )
    calibration.save(args.out, {"training_scenarios": args.scenarios, "seed": args.seed})
    print(f"{args.out}: {len(phrases)} labels; maximum negative evidence {max_negative_evidence:g} nats")
    if classifiers:
        weights = ", ".join(f"{weight:.2f}" for weight in classifiers.rank_weights)
        print(f"prior {classifiers.prior:.4f}; weights of the modalities by rank: {weights}")


if __name__ == "__main__":
    main()
