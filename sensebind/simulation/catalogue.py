"""The catalogue: what a simulated robot may meet, and how each of its senses perceives it.

Shapes are a few boxes, cylinders and balls: nobody would take one for a photograph. Each kind differs from the others
in every sense that it has, which is what binding senses needs; none of it teaches what a real dog looks like.
"""

# ruff: noqa: E501 - a table reads better in long lines
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.simulation.rooms import TILE, Thing

BOX, ROD, BALL = "box", "cylinder", "ball"
Part = tuple[str, tuple[float, float, float], tuple[float, float, float]]  # kind, centre and half sizes in m


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing. `shape` stands on the floor around (0, 0); no shape: not to be seen. `hue` 0..179 and
    `stripes` are its look; `warmth` kelvin over the room's; `sound` a name of `imitations`, played at `loudness` dB
    under full scale; `shakes` (Hz, m/s²) what the robot feels through the floor."""

    label: str
    phrases: tuple[str, ...]
    shape: tuple[Part, ...] = ()
    hue: int = 0
    stripes: int = 0
    warmth: float = 0.0
    sound: str = ""
    loudness: float = -20.0
    shakes: tuple[float, float] = (0.0, 0.0)


def _on_legs(length: float, width: float, height: float, body: float, neck: float = 0.0) -> tuple[Part, ...]:
    legs: list[Part] = [
        (BOX, (x * length * 0.8, y * width * 0.7, height / 2), (0.04, 0.04, height / 2)) for x in (-1, 1) for y in (-1, 1)
    ]
    head: list[Part] = [(BALL, (length * 1.1, 0, height + 2 * body + neck), (neck or body, 0, 0))] if neck or body else []
    return (*legs, (BOX, (0, 0, height + body), (length, width, body)), *head)


KINDS: dict[str, Kind] = {kind.label: kind for kind in (
    Kind("person", ("a person", "somebody nearby", "people talking"), (
        (ROD, (0, 0, 0.45), (0.16, 0, 0.45)), (ROD, (0, 0, 1.2), (0.24, 0, 0.32)), (BALL, (0, 0, 1.68), (0.13, 0, 0))),
        105, 3, 13.0, "people talking", -22, (1.9, 0.5)),
    Kind("dog", ("a dog", "a barking dog"), _on_legs(0.35, 0.12, 0.35, 0.13, 0.12), 14, 0, 14.0, "Dog bark", -16, (3.4, 0.5)),
    Kind("cat", ("a cat", "a meowing cat"), _on_legs(0.22, 0.07, 0.14, 0.08, 0.08), 10, 6, 15.0, "a cat meowing", -24, (4.6, 0.25)),
    Kind("fire", ("a fire", "something burning", "a crackling fire"), (
        (ROD, (0, 0, 0.05), (0.4, 0, 0.05)), (BALL, (0, 0, 0.3), (0.28, 0, 0)), (BALL, (0.05, 0, 0.62), (0.15, 0, 0))),
        8, 0, 180.0, "Fire crackling", -20),
    Kind("pump", ("a running pump", "a machine running"), (
        (BOX, (0, 0, 0.12), (0.5, 0.3, 0.12)), (ROD, (-0.2, 0, 0.5), (0.2, 0, 0.28)), (ROD, (0.25, 0, 0.45), (0.1, 0, 0.25))),
        60, 0, 25.0, "a running pump", -20, (24.0, 0.9)),
    Kind("fan", ("a fan", "ventilation"), (
        (ROD, (0, 0, 0.6), (0.03, 0, 0.6)), (BOX, (0, 0, 1.3), (0.06, 0.4, 0.4))), 85, 8, 4.0, "a fan", -24, (13.0, 0.4)),
    Kind("vacuum_cleaner", ("a vacuum cleaner",), (
        (BALL, (0, 0, 0.22), (0.22, 0, 0)), (ROD, (0.35, 0, 0.6), (0.03, 0, 0.6)), (BOX, (0.55, 0, 0.05), (0.2, 0.15, 0.05))),
        170, 0, 12.0, "a vacuum cleaner", -16, (70.0, 0.4)),
    Kind("washing_machine", ("a washing machine",), (
        (BOX, (0, 0, 0.43), (0.3, 0.3, 0.43)), (BALL, (-0.2, 0, 0.45), (0.2, 0, 0))), 100, 0, 9.0,
        "a waterfall", -24, (17.0, 1.6)),
    Kind("clock", ("a clock", "a ticking clock"), (
        (BOX, (0, 0, 0.9), (0.15, 0.25, 0.9)), (BALL, (0, 0, 1.9), (0.22, 0, 0))), 16, 2, 0.0, "Clock tick", -22, (1.0, 0.25)),
    Kind("telephone", ("a telephone", "a ringing phone"), (
        (ROD, (0, 0, 0.35), (0.25, 0, 0.35)), (BOX, (0, 0, 0.78), (0.14, 0.1, 0.06))), 0, 0, 2.0,
        "a telephone ringing", -18, (20.0, 0.35)),
    Kind("piano", ("a piano", "piano music"), (
        (BOX, (0, 0, 0.6), (0.3, 0.75, 0.6)), (BOX, (-0.4, 0, 0.7), (0.15, 0.7, 0.05))), 12, 20, 0.0, "a piano", -20, (2.8, 0.35)),
    Kind("drums", ("drums", "a drum beat"), (
        (ROD, (0, 0, 0.3), (0.3, 0, 0.3)), (ROD, (0, 0.55, 0.55), (0.2, 0, 0.12)), (ROD, (0, -0.55, 0.55), (0.2, 0, 0.12))),
        165, 4, 0.0, "drums", -18, (2.3, 0.9)),
    Kind("kettle", ("a boiling kettle", "boiling water"), (
        (BOX, (0, 0, 0.4), (0.35, 0.35, 0.4)), (ROD, (0, 0, 0.93), (0.12, 0, 0.13))), 110, 0, 75.0, "boiling water", -24, (7.5, 0.35)),
    Kind("tap", ("running water", "a water tap"), (
        (BOX, (0, 0, 0.8), (0.3, 0.5, 0.12)), (ROD, (0.2, 0, 1.05), (0.03, 0, 0.2)), (ROD, (0, 0, 0.35), (0.08, 0, 0.35))),
        95, 0, -8.0, "water running from a tap", -22, (62.0, 0.3)),
    Kind("motorcycle", ("a motorcycle", "a running engine"), (
        (ROD, (-0.7, 0, 0.32), (0.1, 0, 0.32)), (ROD, (0.7, 0, 0.32), (0.1, 0, 0.32)), (BOX, (0, 0, 0.6), (0.6, 0.12, 0.16)),
        (BOX, (0.5, 0, 0.95), (0.05, 0.35, 0.05))), 178, 2, 60.0, "a motorcycle", -14, (38.0, 1.2)),
    Kind("cow", ("a cow", "a mooing cow"), _on_legs(0.75, 0.3, 0.65, 0.3, 0.2), 0, 5, 12.0, "a cow mooing", -16, (0.7, 1.5)),
    Kind("sheep", ("a sheep", "a bleating sheep"), (
        (BALL, (0, 0, 0.55), (0.38, 0, 0)), (BALL, (0.45, 0, 0.7), (0.13, 0, 0)), (ROD, (0, 0.15, 0.12), (0.05, 0, 0.12)),
        (ROD, (0, -0.15, 0.12), (0.05, 0, 0.12))), 25, 0, 6.0, "a sheep bleating", -20, (1.4, 0.8)),
    Kind("bird_cage", ("birds", "singing birds"), (
        (ROD, (0, 0, 0.6), (0.04, 0, 0.6)), (ROD, (0, 0, 1.45), (0.25, 0, 0.25)), (BALL, (0, 0, 1.7), (0.25, 0, 0))),
        30, 16, 5.0, "birds singing", -22),
    Kind("drill", ("an electric drill", "drilling"), (
        (BOX, (0, 0, 0.45), (0.6, 0.3, 0.04)), (ROD, (0.4, 0.2, 0.2), (0.03, 0, 0.2)), (ROD, (-0.4, -0.2, 0.2), (0.03, 0, 0.2)),
        (BOX, (0, 0, 0.6), (0.18, 0.06, 0.1))), 22, 0, 30.0, "an electric drill", -14, (54.0, 0.7)),
    Kind("printer", ("a printer", "a sewing machine"), (
        (BOX, (0, 0, 0.35), (0.4, 0.3, 0.35)), (BOX, (0, 0, 0.88), (0.25, 0.22, 0.15))), 120, 12, 16.0,
        "a sewing machine", -22, (10.0, 0.5)),
    Kind("hammer", ("hammering", "a carpenter at work"), (
        (BOX, (0, 0, 0.75), (0.7, 0.35, 0.05)), (BOX, (0.5, 0, 0.35), (0.06, 0.3, 0.35)), (BOX, (-0.5, 0, 0.35), (0.06, 0.3, 0.35)),
        (BOX, (0, 0, 0.88), (0.3, 0.05, 0.08))), 18, 30, 3.0, "hammering", -14, (1.7, 1.5)),
    Kind("refrigerator", ("a refrigerator", "an electric hum"), ((BOX, (0, 0, 0.95), (0.33, 0.33, 0.95)),), 90, 0, -14.0,
        "an electric hum", -26, (46.0, 0.35)),
    Kind("radio", ("a radio", "radio static"), (
        (BOX, (0, 0, 0.25), (0.3, 0.5, 0.25)), (BOX, (0, 0, 0.68), (0.12, 0.3, 0.18)), (ROD, (0, 0.25, 1.1), (0.015, 0, 0.3))),
        140, 0, 8.0, "hiss", -24, (85.0, 0.3)),
    Kind("bell", ("a bell", "a church bell"), (
        (ROD, (0, -0.4, 0.7), (0.04, 0, 0.7)), (ROD, (0, 0.4, 0.7), (0.04, 0, 0.7)), (BOX, (0, 0, 1.4), (0.05, 0.45, 0.05)),
        (BALL, (0, 0, 1.05), (0.25, 0, 0))), 24, 0, -3.0, "a church bell", -16, (1.0, 0.6)),
    # Of one sense or two only: what the others cannot tell.
    Kind("glass_breaking", ("breaking glass", "a window shatters"), sound="breaking glass", loudness=-12),
    Kind("alarm", ("an alarm beeping", "a smoke alarm"), sound="an alarm beeping", loudness=-16),
    Kind("knock", ("knocking on a door", "someone knocks"), sound="knocking on a door", loudness=-16),
    Kind("footsteps", ("footsteps", "a person walking"), sound="footsteps", loudness=-22),
    Kind("baby", ("a crying baby", "a baby crying"), sound="Baby cry", loudness=-18),
    Kind("bump", ("a bump", "the robot hits something"), shakes=(6.0, 5.0)),
    Kind("fall", ("something falls to the floor", "a thud"), (
        (BOX, (0, 0, 0.15), (0.3, 0.25, 0.15)),), 150, 2, 0.0, "a door slamming", -12, (9.0, 2.5)),
    Kind("obstacle", ("an obstacle", "something in the way"), ((BOX, (0, 0, 0.6), (0.15, 0.6, 0.6)),), 118, 1, 0.0),
    Kind("hot_spot", ("a hot pipe", "heat behind the wall"), ((BALL, (0.4, 0, 1.2), (0.3, 0, 0)),), 0, 0, 70.0),
    Kind("picture", ("a poster of a person", "a picture"), ((BOX, (0.3, 0, 1.0), (0.01, 0.3, 0.8)),), 105, 3, 0.0),
)}  # fmt: skip
TALL = 1.6  # m, height of a board with a photograph on it
FOOT = 0.05  # m from the floor to its lower edge
ONE_SENSE = {"hot_spot": frozenset({"thermal"})}  # what a kind's shape is perceived by, where not by all cameras
STATIONS = tuple(list(KINDS)[:24])  # those that every sense, or nearly, has something of


def phrases(label: str) -> tuple[str, ...]:
    """What to ask for to find things of this kind. Raises `KeyError`."""
    return KINDS[label].phrases


def pattern(kind: Kind, noise: np.random.Generator) -> npt.NDArray[np.uint8]:
    """How it is painted, uint8 (TILE, TILE, 3): its hue, within a few steps, and its stripes."""
    light = noise.uniform(110, 230)
    pixel = np.array([[[(kind.hue + noise.normal(0, 3)) % 180, noise.uniform(130, 230), light]]], np.uint8)
    colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    across = np.mgrid[:TILE, :TILE][1] / TILE
    dark = 0.45 * (np.sin(2 * np.pi * kind.stripes * across) > 0.3) if kind.stripes else np.zeros((TILE, TILE))
    grain = noise.normal(0, 4, (TILE, TILE, 1))
    return np.asarray(np.clip(colour * (1 - dark[..., None]) + grain, 0, 255), np.uint8)


def stand(kind: Kind, spot: tuple[float, float], yaw: float, number: int, noise: np.random.Generator) -> list[Thing]:
    """Its parts at a place in a room (m), turned by `yaw`, a little larger or smaller, painted with pattern `number`."""
    size, cos, sin = noise.uniform(0.9, 1.12), np.cos(yaw), np.sin(yaw)
    parts = []
    for shape, centre, half in kind.shape:
        x, y, z = (size * value for value in centre)
        place = np.array([spot[0] + cos * x - sin * y, spot[1] + sin * x + cos * y, z], np.float32)
        parts.append(Thing(shape, place, np.array(half, np.float32) * size, yaw, number, TILE, kind.warmth))
    return parts


def board(photograph: npt.NDArray[np.uint8], spot: tuple[float, float], number: int, warmth: float) -> Thing:
    """A flat board at a place in a room (m) that faces the robot, with a photograph (H, W, 3) on it at its own aspect
    ratio; `number` is that of its `board_pattern`, `warmth` kelvin over the room's."""
    height, width = photograph.shape[:2]
    half = np.array([0.01, TALL * width / height / 2, TALL / 2], np.float32)
    centre = np.array([*spot, FOOT + TALL / 2], np.float32)
    return Thing(BOX, centre, half, 0.0, number, TILE / float(2 * half.max()), warmth)


def board_pattern(photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The pattern of a `board`, uint8 (TILE, TILE, 3): a photograph (H, W, 3) whose longer side becomes `TILE`.

    The renderer counts texels from a box's middle, to the left and upwards. The photograph is flipped and rolled, so that
    it is seen upright.
    """
    height, width = (round(TILE * side / max(photograph.shape[:2])) for side in photograph.shape[:2])
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = cv2.resize(
        photograph, (width, height), interpolation=cv2.INTER_AREA
    )
    return np.roll(tile[::-1, ::-1], (TILE // 2, TILE // 2), axis=(0, 1))
