"""What the words of the starter space were taught on: `python -m sensebind.fusion.align.lessons`.

A lesson is a simulated walk past everything that the simulator knows, thing after thing, by chance: a new room every few
seconds, some things behind the robot (heard and felt alone), some in the dark, most for all senses. It is not recorded:
windows are made where they end, as a recording's would be. Scenarios with `--held-out` share no room, shade or voice.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from sensebind.fusion.embeddings import Embedding
from sensebind.fusion.events.calibration import SHIPPED, Calibration
from sensebind.fusion.events.teaching import Span, Stream, Tick, teach
from sensebind.fusion.models import registry
from sensebind.fusion.models.registry import Space
from sensebind.fusion.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.simulation.messages import RATE
from sensebind.fusion.simulation.record import GROUNDS, HEIGHT, IMU_RATE, WIDTH, Happening, Plan, _thermal, feel, hear, see
from sensebind.fusion.simulation.scenario import SHORT
from sensebind.fusion.simulation.things import KINDS
from sensebind.fusion.windows import Window

HOP = 0.5  # s
STAY = 13.0  # s in one room
BEHIND = 0.25  # share of things that are heard and felt alone
LOOK = 0.4  # share of ticks with pictures: rooms teach more than the same room again
BATCH = 32
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
        lasts = SHORT.get(kind, float(noise.uniform(2.5, 6)))
        behind = noise.random() < BEHIND and (KINDS[kind].sound or KINDS[kind].shakes[1])
        senses = frozenset({AUDIO, IMU}) if behind else frozenset({VISION, DEPTH, THERMAL, AUDIO, IMU})
        place = float(noise.uniform(1.4, 2.2)), float(noise.uniform(-0.4, 0.4))
        happenings.append(Happening(kind, at, at + lasts, senses, *place))
        at += lasts + float(noise.uniform(0.3, 2.5))
    places = tuple((start, str(noise.choice(list(GROUNDS)))) for start in np.arange(0.0, seconds, STAY).tolist())
    dark = float(noise.uniform(0, seconds - 12))
    motor = float(noise.uniform(-50, -44))
    return Plan(seconds, places, tuple(happenings), seed, dark=((dark, dark + 12.0),), motor=motor)


def perceive(plan: Plan, space: Space) -> Stream:
    """The vectors of a plan's windows at its ticks, as its recording's would be, and what was there when (ns)."""
    ticks = [(number + 1) * round(HOP * SECOND) for number in range(int(plan.duration / HOP))]
    present: list[dict[str, Embedding]] = [{} for _ in ticks]
    for modality, windows in _windows(plan, space, ticks).items():
        tensors = [space.tensor(window) for window in windows]
        for first in range(0, len(windows), BATCH):
            vectors = space.embed(modality, torch.stack(tensors[first : first + BATCH])).numpy()
            for window, vector in zip(windows[first : first + BATCH], vectors, strict=True):
                present[ticks.index(window.tick)][modality] = Embedding(
                    modality, window.start, window.tick, space.id, window.coverage, vector
                )
    spans: list[Span] = [
        (round(t.onset * SECOND), round(t.offset * SECOND), t.label) for t in plan.truth()
    ]
    told: list[Tick] = list(zip(ticks, present, strict=True))
    return told, spans


def _windows(plan: Plan, space: Space, ticks: list[int]) -> dict[str, list[Window]]:
    chance = np.random.default_rng([plan.seed, 42])
    found: dict[str, list[Window]] = {modality: [] for modality in (VISION, DEPTH, THERMAL, AUDIO, IMU)}
    noise = plan.noise(11)
    for tick in ticks:
        if chance.random() < LOOK:
            t = tick / SECOND - float(chance.uniform(0.005, 0.1))
            for modality, frame in _pictures(plan, t, noise).items():
                found[modality].append(_window(space, modality, tick, (Sample(modality, round(t * SECOND), frame),)))
    wave = hear(plan)
    times = np.arange(0.0, plan.duration, 1 / IMU_RATE)
    felt = [
        Sample(IMU, round(t * SECOND), Reading(values)) for t, values in zip(times, feel(plan, times), strict=True)
    ]
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


def _pictures(plan: Plan, t: float, noise: np.random.Generator) -> dict[str, Frame]:
    view = see(plan, t, noise)
    colour = cv2.resize(view.colour, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
    millimetres = np.nan_to_num(np.round(view.depth * 1000)).astype(np.uint16)
    kelvin = _thermal(plan.thermal_camera, view.kelvin, noise)
    return {VISION: _frame(colour, "rgb8"), DEPTH: _frame(millimetres, "16UC1"), THERMAL: _frame(kelvin, "mono16")}


def _frame(pixels: npt.NDArray, encoding: str) -> Frame:
    return Frame(pixels.reshape(-1).view(np.uint8), encoding, pixels.shape[0], pixels.shape[1], pixels.strides[0])


def streams(space: Space, seeds: range) -> Iterator[Stream]:
    """Lessons, perceived."""
    for seed in tqdm(seeds, desc="lessons", unit="lesson", disable=None):
        yield perceive(lesson(seed), space)


def main() -> None:
    """Teach the words of the simulator's kinds and write them to where the starter space looks for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lessons", type=int, default=40, help="of 150 s each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED / "starter.safetensors", help="(default: what ships)")
    args = parser.parse_args()
    space = registry.load("starter")
    phrases = {label: space.embed_text(kind.phrases).numpy() for label, kind in KINDS.items()}
    words, prior, doubt = teach(phrases, list(streams(space, range(args.seed, args.seed + args.lessons))))
    Calibration(space.id, prior, {}, words, doubt).save(args.out, {"lessons": args.lessons, "seed": args.seed})
    print(f"{args.out}: {len(KINDS)} words; prior {prior:.4f}, doubt {doubt:g} nats")
    for modality, sense in words.senses.items() if words else ():
        print(f"{modality:8} counts {sense.weight:.2f}, knows {int(np.isfinite(sense.biases).sum())} words")


if __name__ == "__main__":
    main()
