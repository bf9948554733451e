"""A tour past many things, each in a room of its own: what spokes are bound on, and where binding is measured."""

from __future__ import annotations

import numpy as np

from sensebind.simulation.catalogue import STATIONS
from sensebind.simulation.record import GROUNDS, Happening, Plan, ThermalCamera

STAY = 5.0  # s at each: as long as the longest window
HELD_OUT = 1_000_000  # seeds from here on are for measuring


def tour(seed: int, stations: int = len(STATIONS), camera: ThermalCamera | None = None, stay: float = STAY) -> Plan:
    """A plan that shows every kind of `STATIONS` in a random order, again from the start where there are more.

    Rooms, grounds, distances, sizes, shades, voices and motors are drawn from the seed.
    """
    noise = np.random.default_rng([seed, 17])
    kinds: list[str] = []
    while len(kinds) < stations:
        kinds += [str(kind) for kind in noise.permutation(STATIONS)]
    happenings = tuple(
        Happening(
            kind, number * stay, (number + 1) * stay, ahead=float(noise.uniform(1.3, 2.0)),
            aside=float(noise.uniform(-0.3, 0.3)),
        )
        for number, kind in enumerate(kinds[:stations])
    )  # fmt: skip
    grounds = [str(ground) for ground in noise.choice(list(GROUNDS), stations)]
    places = tuple((number * stay, ground) for number, ground in enumerate(grounds))
    return Plan(
        stations * stay, places, happenings, seed, thermal_camera=camera or ThermalCamera(),
        motor=float(noise.uniform(-52, -42)), furniture=int(noise.integers(3, 7)),
    )  # fmt: skip
