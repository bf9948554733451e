"""What the words of the starter space were taught on: `python -m sensebind.training.starter_classifiers`.

A lesson is a simulated walk past everything that the simulator knows, thing after thing, by chance: a new room every
few seconds, some things behind the robot (heard and felt alone), some that keep still (seen alone), some in the dark.
It is not recorded: windows are made where they end, as a recording's would be. Scenarios with `--held-out` share no
room, shade or voice with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.events.prompt import PromptOptions
from sensebind.fusion.events.prompt_calibration import SHIPPED_FOLDER, PromptCalibration
from sensebind.fusion.models import registry
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
UNSEEN_FRACTION, SILENT_FRACTION = (
    0.25,
    0.25,
)  # shares of things that are heard and felt alone, and of those that keep still
IMAGE_TICK_FRACTION = 0.4  # share of ticks with pictures: rooms teach more than the same room again
BATCH_SIZE = 32
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
FIRST_SEED = 7000  # of the first lesson


def lesson(seed: int, seconds: float = 150.0) -> SimulatedScenario:
    """A plan of a walk past things of all kinds, most of which come alone, some with another sound on top."""
    noise = np.random.default_rng([seed, 41])
    happenings: list[SimulatedEvent] = []
    at, kinds = 2.0, [str(kind) for kind in noise.permutation(list(CATALOGUE))]
    while at < seconds - 3:
        if not kinds:
            kinds = [str(kind) for kind in noise.permutation(list(CATALOGUE))]
        kind = kinds.pop()
        lasts = DURATION_BY_KIND.get(kind, float(noise.uniform(1.5, 4.5)))
        lot, senses = noise.random(), frozenset({VISION, DEPTH, THERMAL, AUDIO, IMU})
        if lot < UNSEEN_FRACTION and (CATALOGUE[kind].sound_name or CATALOGUE[kind].floor_vibration[1]):
            senses = frozenset({AUDIO, IMU})
        elif lot > 1 - SILENT_FRACTION and CATALOGUE[kind].shape:
            senses = frozenset({VISION, DEPTH, THERMAL})
        place = float(noise.uniform(1.4, 2.2)), float(noise.uniform(-0.4, 0.4))
        happenings.append(SimulatedEvent(kind, at, at + lasts, senses, *place))
        at += lasts + float(noise.uniform(0.3, 1.5))
    places = tuple(
        (start, str(noise.choice(list(GROUNDS)))) for start in np.arange(0.0, seconds, ROOM_DURATION).tolist()
    )
    dark = float(noise.uniform(0, seconds - 12))
    motor = float(noise.uniform(-50, -44))
    return SimulatedScenario(seconds, places, tuple(happenings), seed, dark=((dark, dark + 12.0),), motor=motor)


def embed_scenario(
    plan: SimulatedScenario, space: Space, image_fraction: float = IMAGE_TICK_FRACTION
) -> LabelledStream:
    """The vectors of a plan's windows at its ticks, as its recording's would be, and what was there when (ns).
    `image_fraction`: the share of ticks with pictures."""
    ticks = [(number + 1) * round(TICK_INTERVAL * SECOND) for number in range(int(plan.duration / TICK_INTERVAL))]
    present: list[dict[str, Embedding]] = [{} for _ in ticks]
    for modality, windows in _simulated_windows(plan, space, ticks, image_fraction).items():
        tensors = [space.tensor(window) for window in windows]
        for first in range(0, len(windows), BATCH_SIZE):
            vectors = space.embed(modality, torch.stack(tensors[first : first + BATCH_SIZE])).numpy()
            for window, vector in zip(windows[first : first + BATCH_SIZE], vectors, strict=True):
                present[ticks.index(window.tick)][modality] = Embedding(
                    modality, window.start, window.tick, space.id, window.coverage, vector
                )
    spans: list[LabelSpanNs] = [(round(t.onset * SECOND), round(t.offset * SECOND), t.label) for t in plan.truth()]
    told: list[TickEmbeddings] = list(zip(ticks, present, strict=True))
    return told, spans


def _simulated_windows(
    plan: SimulatedScenario, space: Space, ticks: list[int], image_fraction: float
) -> dict[str, list[Window]]:
    chance = np.random.default_rng([plan.seed, 42])
    found: dict[str, list[Window]] = {modality: [] for modality in (VISION, DEPTH, THERMAL, AUDIO, IMU)}
    looked = [tick for tick in ticks if chance.random() < image_fraction]
    times = [tick / SECOND - float(chance.uniform(0.005, 0.1)) for tick in looked]
    for tick, (t, seen) in zip(looked, camera_images(plan, times), strict=True):
        for modality, pixels in seen.items():
            sample = Sample(modality, round(t * SECOND), _frame(pixels, ENCODINGS[modality]))
            found[modality].append(_window(space, modality, tick, (sample,)))
    wave = synthesize_audio(plan)
    instants = np.arange(0.0, plan.duration, 1 / IMU_RATE)
    readings = zip(instants.tolist(), simulate_imu(plan, instants), strict=True)
    felt = [Sample(IMU, round(t * SECOND), Reading(values)) for t, values in readings]
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
            found[IMU].append(_window(space, IMU, tick, tuple(felt[first:last])))
    return found


def _window(space: Space, modality: str, tick: int, samples: tuple[Sample, ...]) -> Window:
    return Window(modality, tick - round(space.trained_windows[modality].length * SECOND), tick, 1.0, samples)


def _frame(pixels: npt.NDArray, encoding: str) -> Frame:
    return Frame(pixels.reshape(-1).view(np.uint8), encoding, pixels.shape[0], pixels.shape[1], pixels.strides[0])


def labelled_streams(space: Space, seeds: range) -> Iterator[LabelledStream]:
    """Lessons, perceived."""
    for seed in tqdm(seeds, desc="lessons", unit="lesson", disable=None):
        yield embed_scenario(lesson(seed), space)


def main() -> None:
    """Teach the words of the simulator's kinds and write them to where the starter space looks for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=48, help="of 150 s each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first (default: %(default)s)")
    parser.add_argument(
        "-o", "--out", type=Path, default=SHIPPED_FOLDER / "starter.safetensors", help="(default: what ships)"
    )
    args = parser.parse_args()
    space = registry.load_space("starter")
    phrases = {label: space.embed_text(kind.phrases).numpy() for label, kind in CATALOGUE.items()}
    lessons = list(labelled_streams(space, range(args.seed, args.seed + args.lessons)))
    words, doubt = train_prompt_classifiers(phrases, lessons)
    found = PromptCalibration(space.id, PromptOptions().prior, {}, words, doubt)
    found.save(args.out, {"lessons": args.lessons, "seed": args.seed})
    print(f"{args.out}: {len(phrases)} words; doubt {doubt:g} nats")
    if words:
        print(f"prior {words.prior:.4f}; by rank, senses count " + ", ".join(f"{weight:.2f}" for weight in words.ranks))


if __name__ == "__main__":
    main()
