"""The catalogue of simulated objects and events: their shape, texture, temperature, sound and vibration.

A shape is a few boxes, cylinders and balls, so a model does not learn from it how a real dog looks. Each kind differs
from the others in every modality that it has, because spokes are trained on these differences.
"""

# ruff: noqa: E501 - a table reads better in long lines
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.simulation.rooms import TEXTURE_SIZE, SceneObject

BOX, CYLINDER, BALL = "box", "cylinder", "ball"
ShapePart = tuple[str, tuple[float, float, float], tuple[float, float, float]]  # kind, centre and half sizes in m


@dataclass(frozen=True, slots=True)
class CatalogueKind:
    """One kind of object or event. `shape`: parts that stand on the floor around (0, 0); empty if it is invisible.
    `hue` 0..179 and `stripe_count`: its texture. `temperature_offset`: kelvin above the room. `sound_name`: argument of
    `synthetic_sounds.synthesizer_named`, empty if it is silent; `sound_level`: dB of full scale. `floor_vibration`:
    frequency in Hz and strength in m/s² of the vibration at the robot's IMU."""

    label: str
    phrases: tuple[str, ...]
    shape: tuple[ShapePart, ...] = ()
    hue: int = 0
    stripe_count: int = 0
    temperature_offset: float = 0.0
    sound_name: str = ""
    sound_level: float = -20.0
    floor_vibration: tuple[float, float] = (0.0, 0.0)


def _four_legged_shape(
    length: float, width: float, height: float, body: float, neck: float = 0.0
) -> tuple[ShapePart, ...]:
    legs: list[ShapePart] = [
        (BOX, (x * length * 0.8, y * width * 0.7, height / 2), (0.04, 0.04, height / 2))
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    head: list[ShapePart] = (
        [(BALL, (length * 1.1, 0, height + 2 * body + neck), (neck or body, 0, 0))] if neck or body else []
    )
    return (*legs, (BOX, (0, 0, height + body), (length, width, body)), *head)


CATALOGUE: dict[str, CatalogueKind] = {kind.label: kind for kind in (
    CatalogueKind("person", ("a person", "somebody nearby", "people talking"), (
        (CYLINDER, (0, 0, 0.45), (0.16, 0, 0.45)), (CYLINDER, (0, 0, 1.2), (0.24, 0, 0.32)), (BALL, (0, 0, 1.68), (0.13, 0, 0))),
        105, 3, 13.0, "people talking", -22, (1.9, 0.5)),
    CatalogueKind("dog", ("a dog", "a barking dog"), _four_legged_shape(0.35, 0.12, 0.35, 0.13, 0.12), 14, 0, 14.0, "Dog bark", -16, (3.4, 0.5)),
    CatalogueKind("cat", ("a cat", "a meowing cat"), _four_legged_shape(0.22, 0.07, 0.14, 0.08, 0.08), 10, 6, 15.0, "a cat meowing", -24, (4.6, 0.25)),
    CatalogueKind("fire", ("a fire", "something burning", "a crackling fire"), (
        (CYLINDER, (0, 0, 0.05), (0.4, 0, 0.05)), (BALL, (0, 0, 0.3), (0.28, 0, 0)), (BALL, (0.05, 0, 0.62), (0.15, 0, 0))),
        8, 0, 180.0, "Fire crackling", -20),
    CatalogueKind("pump", ("a running pump", "a machine running"), (
        (BOX, (0, 0, 0.12), (0.5, 0.3, 0.12)), (CYLINDER, (-0.2, 0, 0.5), (0.2, 0, 0.28)), (CYLINDER, (0.25, 0, 0.45), (0.1, 0, 0.25))),
        60, 0, 25.0, "a running pump", -20, (24.0, 0.9)),
    CatalogueKind("fan", ("a fan", "ventilation"), (
        (CYLINDER, (0, 0, 0.6), (0.03, 0, 0.6)), (BOX, (0, 0, 1.3), (0.06, 0.4, 0.4))), 85, 8, 4.0, "a fan", -24, (13.0, 0.4)),
    CatalogueKind("vacuum_cleaner", ("a vacuum cleaner",), (
        (BALL, (0, 0, 0.22), (0.22, 0, 0)), (CYLINDER, (0.35, 0, 0.6), (0.03, 0, 0.6)), (BOX, (0.55, 0, 0.05), (0.2, 0.15, 0.05))),
        170, 0, 12.0, "a vacuum cleaner", -16, (70.0, 0.4)),
    CatalogueKind("washing_machine", ("a washing machine",), (
        (BOX, (0, 0, 0.43), (0.3, 0.3, 0.43)), (BALL, (-0.2, 0, 0.45), (0.2, 0, 0))), 100, 0, 9.0,
        "a waterfall", -24, (17.0, 1.6)),
    CatalogueKind("clock", ("a clock", "a ticking clock"), (
        (BOX, (0, 0, 0.9), (0.15, 0.25, 0.9)), (BALL, (0, 0, 1.9), (0.22, 0, 0))), 16, 2, 0.0, "Clock tick", -22, (1.0, 0.25)),
    CatalogueKind("telephone", ("a telephone", "a ringing phone"), (
        (CYLINDER, (0, 0, 0.35), (0.25, 0, 0.35)), (BOX, (0, 0, 0.78), (0.14, 0.1, 0.06))), 0, 0, 2.0,
        "a telephone ringing", -18, (20.0, 0.35)),
    CatalogueKind("piano", ("a piano", "piano music"), (
        (BOX, (0, 0, 0.6), (0.3, 0.75, 0.6)), (BOX, (-0.4, 0, 0.7), (0.15, 0.7, 0.05))), 12, 20, 0.0, "a piano", -20, (2.8, 0.35)),
    CatalogueKind("drums", ("drums", "a drum beat"), (
        (CYLINDER, (0, 0, 0.3), (0.3, 0, 0.3)), (CYLINDER, (0, 0.55, 0.55), (0.2, 0, 0.12)), (CYLINDER, (0, -0.55, 0.55), (0.2, 0, 0.12))),
        165, 4, 0.0, "drums", -18, (2.3, 0.9)),
    CatalogueKind("kettle", ("a boiling kettle", "boiling water"), (
        (BOX, (0, 0, 0.4), (0.35, 0.35, 0.4)), (CYLINDER, (0, 0, 0.93), (0.12, 0, 0.13))), 110, 0, 75.0, "boiling water", -24, (7.5, 0.35)),
    CatalogueKind("tap", ("running water", "a water tap"), (
        (BOX, (0, 0, 0.8), (0.3, 0.5, 0.12)), (CYLINDER, (0.2, 0, 1.05), (0.03, 0, 0.2)), (CYLINDER, (0, 0, 0.35), (0.08, 0, 0.35))),
        95, 0, -8.0, "water running from a tap", -22, (62.0, 0.3)),
    CatalogueKind("motorcycle", ("a motorcycle", "a running engine"), (
        (CYLINDER, (-0.7, 0, 0.32), (0.1, 0, 0.32)), (CYLINDER, (0.7, 0, 0.32), (0.1, 0, 0.32)), (BOX, (0, 0, 0.6), (0.6, 0.12, 0.16)),
        (BOX, (0.5, 0, 0.95), (0.05, 0.35, 0.05))), 178, 2, 60.0, "a motorcycle", -14, (38.0, 1.2)),
    CatalogueKind("cow", ("a cow", "a mooing cow"), _four_legged_shape(0.75, 0.3, 0.65, 0.3, 0.2), 0, 5, 12.0, "a cow mooing", -16, (0.7, 1.5)),
    CatalogueKind("sheep", ("a sheep", "a bleating sheep"), (
        (BALL, (0, 0, 0.55), (0.38, 0, 0)), (BALL, (0.45, 0, 0.7), (0.13, 0, 0)), (CYLINDER, (0, 0.15, 0.12), (0.05, 0, 0.12)),
        (CYLINDER, (0, -0.15, 0.12), (0.05, 0, 0.12))), 25, 0, 6.0, "a sheep bleating", -20, (1.4, 0.8)),
    CatalogueKind("bird_cage", ("birds", "singing birds"), (
        (CYLINDER, (0, 0, 0.6), (0.04, 0, 0.6)), (CYLINDER, (0, 0, 1.45), (0.25, 0, 0.25)), (BALL, (0, 0, 1.7), (0.25, 0, 0))),
        30, 16, 5.0, "birds singing", -22),
    CatalogueKind("drill", ("an electric drill", "drilling"), (
        (BOX, (0, 0, 0.45), (0.6, 0.3, 0.04)), (CYLINDER, (0.4, 0.2, 0.2), (0.03, 0, 0.2)), (CYLINDER, (-0.4, -0.2, 0.2), (0.03, 0, 0.2)),
        (BOX, (0, 0, 0.6), (0.18, 0.06, 0.1))), 22, 0, 30.0, "an electric drill", -14, (54.0, 0.7)),
    CatalogueKind("printer", ("a printer", "a sewing machine"), (
        (BOX, (0, 0, 0.35), (0.4, 0.3, 0.35)), (BOX, (0, 0, 0.88), (0.25, 0.22, 0.15))), 120, 12, 16.0,
        "a sewing machine", -22, (10.0, 0.5)),
    CatalogueKind("hammer", ("hammering", "a carpenter at work"), (
        (BOX, (0, 0, 0.75), (0.7, 0.35, 0.05)), (BOX, (0.5, 0, 0.35), (0.06, 0.3, 0.35)), (BOX, (-0.5, 0, 0.35), (0.06, 0.3, 0.35)),
        (BOX, (0, 0, 0.88), (0.3, 0.05, 0.08))), 18, 30, 3.0, "hammering", -14, (1.7, 1.5)),
    CatalogueKind("refrigerator", ("a refrigerator", "an electric hum"), ((BOX, (0, 0, 0.95), (0.33, 0.33, 0.95)),), 90, 0, -14.0,
        "an electric hum", -26, (46.0, 0.35)),
    CatalogueKind("radio", ("a radio", "radio static"), (
        (BOX, (0, 0, 0.25), (0.3, 0.5, 0.25)), (BOX, (0, 0, 0.68), (0.12, 0.3, 0.18)), (CYLINDER, (0, 0.25, 1.1), (0.015, 0, 0.3))),
        140, 0, 8.0, "hiss", -24, (85.0, 0.3)),
    CatalogueKind("bell", ("a bell", "a church bell"), (
        (CYLINDER, (0, -0.4, 0.7), (0.04, 0, 0.7)), (CYLINDER, (0, 0.4, 0.7), (0.04, 0, 0.7)), (BOX, (0, 0, 1.4), (0.05, 0.45, 0.05)),
        (BALL, (0, 0, 1.05), (0.25, 0, 0))), 24, 0, -3.0, "a church bell", -16, (1.0, 0.6)),
    # Kinds that some modalities cannot detect.
    CatalogueKind("glass_breaking", ("breaking glass", "a window shatters"), sound_name="breaking glass", sound_level=-12),
    CatalogueKind("alarm", ("an alarm beeping", "a smoke alarm"), sound_name="an alarm beeping", sound_level=-16),
    CatalogueKind("knock", ("knocking on a door", "someone knocks"), sound_name="knocking on a door", sound_level=-16),
    CatalogueKind("footsteps", ("footsteps", "a person walking"), sound_name="footsteps", sound_level=-22),
    CatalogueKind("baby", ("a crying baby", "a baby crying"), sound_name="Baby cry", sound_level=-18),
    CatalogueKind("bump", ("a bump", "the robot hits something"), floor_vibration=(6.0, 5.0)),
    CatalogueKind("fall", ("something falls to the floor", "a thud"), (
        (BOX, (0, 0, 0.15), (0.3, 0.25, 0.15)),), 150, 2, 0.0, "a door slamming", -12, (9.0, 2.5)),
    CatalogueKind("obstacle", ("an obstacle", "something in the way"), ((BOX, (0, 0, 0.6), (0.15, 0.6, 0.6)),), 118, 1, 0.0),
    CatalogueKind("hot_spot", ("a hot pipe", "heat behind the wall"), ((BALL, (0.4, 0, 1.2), (0.3, 0, 0)),), 0, 0, 70.0),
    CatalogueKind("picture", ("a poster of a person", "a picture"), ((BOX, (0.3, 0, 1.0), (0.01, 0.3, 0.8)),), 105, 3, 0.0),
)}  # fmt: skip
BOARD_HEIGHT = 1.6  # m: height of a board with a photograph
BOARD_CLEARANCE = 0.05  # m from the floor to the lower edge of the board
MODALITIES_OF_KIND = {"hot_spot": frozenset({"thermal"})}  # kind → cameras that show its shape, if not all
SURVEY_KINDS = tuple(list(CATALOGUE)[:24])  # kinds that all modalities, or nearly all, can detect


def phrases(label: str) -> tuple[str, ...]:
    """Phrases that describe this kind, for prompts. Raises `KeyError`."""
    return CATALOGUE[label].phrases


def kind_texture(kind: CatalogueKind, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A texture of a kind, uint8 (TEXTURE_SIZE, TEXTURE_SIZE, 3): its hue, slightly varied, and its stripes."""
    light = rng.uniform(110, 230)
    pixel = np.array([[[(kind.hue + rng.normal(0, 3)) % 180, rng.uniform(130, 230), light]]], np.uint8)
    colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    across = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE][1] / TEXTURE_SIZE
    dark = (
        0.45 * (np.sin(2 * np.pi * kind.stripe_count * across) > 0.3)
        if kind.stripe_count
        else np.zeros((TEXTURE_SIZE, TEXTURE_SIZE))
    )
    grain = rng.normal(0, 4, (TEXTURE_SIZE, TEXTURE_SIZE, 1))
    return np.asarray(np.clip(colour * (1 - dark[..., None]) + grain, 0, 255), np.uint8)


def place_kind(
    kind: CatalogueKind, position: tuple[float, float], yaw: float, texture: int, rng: np.random.Generator
) -> list[SceneObject]:
    """The parts of a kind at `position` (x, y) in m, turned by `yaw` (rad), scaled by 0.9 to 1.12. `texture` is an index
    of the room's textures."""
    size, cos, sin = rng.uniform(0.9, 1.12), np.cos(yaw), np.sin(yaw)
    parts = []
    for shape, centre, half in kind.shape:
        x, y, z = (size * value for value in centre)
        place = np.array([position[0] + cos * x - sin * y, position[1] + sin * x + cos * y, z], np.float32)
        parts.append(
            SceneObject(
                shape, place, np.array(half, np.float32) * size, yaw, texture, TEXTURE_SIZE, kind.temperature_offset
            )
        )
    return parts


def photograph_board(
    photograph: npt.NDArray[np.uint8], position: tuple[float, float], texture: int, warmth: float
) -> SceneObject:
    """A flat board at `position` (x, y) in m that faces the robot and shows a photograph (H, W, 3) at its aspect ratio.

    `texture`: index of its `photograph_texture` in the room's textures. `warmth`: kelvin above the room.
    """
    height, width = photograph.shape[:2]
    half = np.array([0.01, BOARD_HEIGHT * width / height / 2, BOARD_HEIGHT / 2], np.float32)
    centre = np.array([*position, BOARD_CLEARANCE + BOARD_HEIGHT / 2], np.float32)
    return SceneObject(BOX, centre, half, 0.0, texture, TEXTURE_SIZE / float(2 * half.max()), warmth)


def photograph_texture(photograph: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The texture of a `photograph_board`, uint8 (TEXTURE_SIZE, TEXTURE_SIZE, 3): a photograph (H, W, 3) scaled so that
    its longer side is `TEXTURE_SIZE`.

    The renderer counts texels from the centre of a box, to the left and upwards. So the photograph is flipped and rolled
    to appear upright.
    """
    height, width = (round(TEXTURE_SIZE * side / max(photograph.shape[:2])) for side in photograph.shape[:2])
    tile = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 3), np.uint8)
    top, left = (TEXTURE_SIZE - height) // 2, (TEXTURE_SIZE - width) // 2
    tile[top : top + height, left : left + width] = cv2.resize(
        photograph, (width, height), interpolation=cv2.INTER_AREA
    )
    return np.roll(tile[::-1, ::-1], (TEXTURE_SIZE // 2, TEXTURE_SIZE // 2), axis=(0, 1))
