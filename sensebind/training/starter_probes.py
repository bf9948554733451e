"""What the words of the starter space were taught on: `python -m sensebind.training.starter_probes`.

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
from sensebind.fusion.events.calibration import SHIPPED, Calibration
from sensebind.fusion.events.prompts import PromptOptions
from sensebind.fusion.models import registry
from sensebind.simulation.catalogue import KINDS
from sensebind.simulation.messages import RATE
from sensebind.simulation.record import GROUNDS, IMU_RATE, Happening, Plan, feel, hear, pictures
from sensebind.simulation.scenario import SHORT
from sensebind.training.probes import Span, Stream, Tick, teach

HOP = 0.5  # s
STAY = 13.0  # s in one room
BEHIND, SILENT = 0.25, 0.25  # shares of things that are heard and felt alone, and of those that keep still
LOOK = 0.4  # share of ticks with pictures: rooms teach more than the same room again
BATCH = 32
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
SEED = 7000  # of the first lesson


def lesson(seed: int, seconds: float = 150.0) -> Plan:
    """A plan of a walk past things of all kinds, most of which come alone, some with another sound on top."""
    noise = np.random.default_rng([seed, 41])
    happenings: list[Happening] = []
    at, kinds = 2.0, [str(kind) for kind in noise.permutation(list(KINDS))]
    while at < seconds - 3:
        if not kinds:
            kinds = [str(kind) for kind in noise.permutation(list(KINDS))]
        kind = kinds.pop()
        lasts = SHORT.get(kind, float(noise.uniform(1.5, 4.5)))
        lot, senses = noise.random(), frozenset({VISION, DEPTH, THERMAL, AUDIO, IMU})
        if lot < BEHIND and (KINDS[kind].sound or KINDS[kind].shakes[1]):
            senses = frozenset({AUDIO, IMU})
        elif lot > 1 - SILENT and KINDS[kind].shape:
            senses = frozenset({VISION, DEPTH, THERMAL})
        place = float(noise.uniform(1.4, 2.2)), float(noise.uniform(-0.4, 0.4))
        happenings.append(Happening(kind, at, at + lasts, senses, *place))
        at += lasts + float(noise.uniform(0.3, 1.5))
    places = tuple((start, str(noise.choice(list(GROUNDS)))) for start in np.arange(0.0, seconds, STAY).tolist())
    dark = float(noise.uniform(0, seconds - 12))
    motor = float(noise.uniform(-50, -44))
    return Plan(seconds, places, tuple(happenings), seed, dark=((dark, dark + 12.0),), motor=motor)


def perceive(plan: Plan, space: Space, look: float = LOOK) -> Stream:
    """The vectors of a plan's windows at its ticks, as its recording's would be, and what was there when (ns).
    `look`: the share of ticks with pictures."""
    ticks = [(number + 1) * round(HOP * SECOND) for number in range(int(plan.duration / HOP))]
    present: list[dict[str, Embedding]] = [{} for _ in ticks]
    for modality, windows in _windows(plan, space, ticks, look).items():
        tensors = [space.tensor(window) for window in windows]
        for first in range(0, len(windows), BATCH):
            vectors = space.embed(modality, torch.stack(tensors[first : first + BATCH])).numpy()
            for window, vector in zip(windows[first : first + BATCH], vectors, strict=True):
                present[ticks.index(window.tick)][modality] = Embedding(
                    modality, window.start, window.tick, space.id, window.coverage, vector
                )
    spans: list[Span] = [(round(t.onset * SECOND), round(t.offset * SECOND), t.label) for t in plan.truth()]
    told: list[Tick] = list(zip(ticks, present, strict=True))
    return told, spans


def _windows(plan: Plan, space: Space, ticks: list[int], look: float) -> dict[str, list[Window]]:
    chance = np.random.default_rng([plan.seed, 42])
    found: dict[str, list[Window]] = {modality: [] for modality in (VISION, DEPTH, THERMAL, AUDIO, IMU)}
    looked = [tick for tick in ticks if chance.random() < look]
    times = [tick / SECOND - float(chance.uniform(0.005, 0.1)) for tick in looked]
    for tick, (t, seen) in zip(looked, pictures(plan, times), strict=True):
        for modality, pixels in seen.items():
            sample = Sample(modality, round(t * SECOND), _frame(pixels, ENCODINGS[modality]))
            found[modality].append(_window(space, modality, tick, (sample,)))
    wave = hear(plan)
    instants = np.arange(0.0, plan.duration, 1 / IMU_RATE)
    readings = zip(instants.tolist(), feel(plan, instants), strict=True)
    felt = [Sample(IMU, round(t * SECOND), Reading(values)) for t, values in readings]
    for tick in ticks:
        start = max(tick - round(space.apertures[AUDIO].length * SECOND), 0)
        piece = wave[round(start / SECOND * RATE) : round(tick / SECOND * RATE)]
        if len(piece) >= RATE * space.apertures[AUDIO].length / 2:
            found[AUDIO].append(_window(space, AUDIO, tick, (Sample(AUDIO, start, Sound(piece[:, None], RATE)),)))
        first, last = (round(t / SECOND * IMU_RATE) for t in (tick - round(space.apertures[IMU].length * SECOND), tick))
        if first >= 0:
            found[IMU].append(_window(space, IMU, tick, tuple(felt[first:last])))
    return found


def _window(space: Space, modality: str, tick: int, samples: tuple[Sample, ...]) -> Window:
    return Window(modality, tick - round(space.apertures[modality].length * SECOND), tick, 1.0, samples)


def _frame(pixels: npt.NDArray, encoding: str) -> Frame:
    return Frame(pixels.reshape(-1).view(np.uint8), encoding, pixels.shape[0], pixels.shape[1], pixels.strides[0])


def streams(space: Space, seeds: range) -> Iterator[Stream]:
    """Lessons, perceived."""
    for seed in tqdm(seeds, desc="lessons", unit="lesson", disable=None):
        yield perceive(lesson(seed), space)


def main() -> None:
    """Teach the words of the simulator's kinds and write them to where the starter space looks for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=48, help="of 150 s each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED / "starter.safetensors", help="(default: what ships)")
    args = parser.parse_args()
    space = registry.load("starter")
    phrases = {label: space.embed_text(kind.phrases).numpy() for label, kind in KINDS.items()}
    lessons = list(streams(space, range(args.seed, args.seed + args.lessons)))
    words, doubt = teach(phrases, lessons)
    found = Calibration(space.id, PromptOptions().prior, {}, words, doubt)
    found.save(args.out, {"lessons": args.lessons, "seed": args.seed})
    print(f"{args.out}: {len(phrases)} words; doubt {doubt:g} nats")
    if words:
        print(f"prior {words.prior:.4f}; by rank, senses count " + ", ".join(f"{weight:.2f}" for weight in words.ranks))


if __name__ == "__main__":
    main()
