"""Surveys: scenarios that show many objects, each in its own room. Spokes are trained and evaluated on them."""

from __future__ import annotations

import numpy as np

from sensebind.simulation.catalogue import SURVEY_KINDS
from sensebind.simulation.recorder import GROUNDS, SimulatedEvent, SimulatedScenario, ThermalCamera

DWELL_TIME = 5.0  # s at each object: the length of the longest window
FIRST_HELD_OUT_SEED = 1_000_000  # seeds from here on are for evaluation only


def survey_scenario(
    seed: int, stations: int = len(SURVEY_KINDS), camera: ThermalCamera | None = None, dwell_time: float = DWELL_TIME
) -> SimulatedScenario:
    """A scenario with `stations` objects, `dwell_time` s each: all `SURVEY_KINDS` in random order, repeated as needed.

    Rooms, grounds, positions, sizes, colours, sounds and the motor level are drawn from `seed`.
    """
    noise = np.random.default_rng([seed, 17])
    kinds: list[str] = []
    while len(kinds) < stations:
        kinds += [str(kind) for kind in noise.permutation(SURVEY_KINDS)]
    events = tuple(
        SimulatedEvent(
            kind, number * dwell_time, (number + 1) * dwell_time, ahead=float(noise.uniform(1.3, 2.0)),
            aside=float(noise.uniform(-0.3, 0.3)),
        )
        for number, kind in enumerate(kinds[:stations])
    )  # fmt: skip
    grounds = [str(ground) for ground in noise.choice(list(GROUNDS), stations)]
    places = tuple((number * dwell_time, ground) for number, ground in enumerate(grounds))
    return SimulatedScenario(
        stations * dwell_time, places, events, seed, thermal_camera=camera or ThermalCamera(),
        motor_level=float(noise.uniform(-52, -42)), max_furniture=int(noise.integers(3, 7)),
    )  # fmt: skip
