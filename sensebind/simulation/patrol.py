"""A simulated patrol: a robot turns in a room, drives up to what hangs on its walls, and all five senses record it.

Deterministic: the same seed gives the same recording, byte for byte.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import BagTypes, BagWriter
from sensebind.simulation.messages import (
    EPOCH,
    INFO,
    RATE,
    VIEW,
    Logged,
    camera_info,
    image,
    merged,
    motion_messages,
    sound_messages,
)

Floats = npt.NDArray[np.float64]

ROOM = (8.0, 8.0, 3.0)  # m
EYE = 1.5  # m above the floor
DETAIL = 160  # texels a metre
FAR = 5.0  # m, beyond which the depth camera sees nothing: the corners, while it turns
GRAVITY = 9.80665  # m/s²
LEG = 7.5  # s for each wall: turn, drive up, stay, drive back
SOUND_DELAY = 1.5  # s after the onset of what they belong to
PICTURE = 2.6  # m: size of what hangs on a wall

# What hangs on the walls, one each: label, photograph, and its temperature over the room's in kelvin. The
# photographs come with scikit-image, all of them CC0 or public domain.
WALLS = (
    ("person", "astronaut.png", 12.0),
    ("cat", "chelsea.png", 14.0),
    ("coffee", "coffee.png", 35.0),
    ("rocket", "rocket.jpg", 90.0),
)
AMBIENT = 294.0  # K


@dataclass(frozen=True, slots=True)
class Truth:
    """Something that was there: from `onset` to `offset`, in seconds from the start."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True)
class World:
    """The room: a colour and a temperature for every place of its six sides."""

    seed: int

    @cached_property
    def sides(self) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
        """(colours (H, W, 3), kelvin (H, W)) of the walls x=max, y=max, x=0, y=0, of the floor and the ceiling."""
        noise = np.random.default_rng(self.seed)
        sides = []
        for number, (_, photograph, warmth) in enumerate(WALLS):
            wall = _plaster(noise, ROOM[2], ROOM[number % 2], (176 - 9 * number, 172, 160 + 9 * number))
            heat = _haze(noise, wall.shape[:2], AMBIENT, 0.5)
            picture = _photograph(photograph)
            height = min(PICTURE, ROOM[2] - 0.3)
            size = (round(height * DETAIL * picture.shape[1] / picture.shape[0]), round(height * DETAIL))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            top, left = (wall.shape[0] - size[1]) // 2, (wall.shape[1] - size[0]) // 2
            wall[top : top + size[1], left : left + size[0]] = picture
            y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
            heat[top : top + size[1], left : left + size[0]] += warmth * np.exp(-2 * (x**2 + y**2))
            sides.append((wall, heat))
        for colour in ((112, 104, 96), (205, 205, 200)):
            plane = _plaster(noise, ROOM[1], ROOM[0], colour)
            sides.append((plane, _haze(noise, plane.shape[:2], AMBIENT - 1, 0.3)))
        return sides

    def look(
        self, x: float, y: float, yaw: float, width: int, height: int
    ) -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats]:
        """Cast a ray through each pixel: (distance along the view axis, side, across, along), each (H, W).

        `across` and `along` are metres on that side, from its upper left corner.
        """
        focal = width / 2 / np.tan(VIEW / 2)
        right = (np.arange(width) - (width - 1) / 2) / focal
        down = (np.arange(height) - (height - 1) / 2) / focal
        cos, sin = np.cos(yaw), np.sin(yaw)
        dx = np.broadcast_to(cos + sin * right, (height, width))  # of a ray that advances 1 m along the view axis
        dy = np.broadcast_to(sin - cos * right, (height, width))
        dz = np.broadcast_to(-down[:, None], (height, width))
        with np.errstate(divide="ignore", invalid="ignore"):
            tx = np.where(dx > 0, (ROOM[0] - x) / dx, -x / dx)
            ty = np.where(dy > 0, (ROOM[1] - y) / dy, -y / dy)
            tz = np.where(dz > 0, (ROOM[2] - EYE) / dz, -EYE / dz)
        nearest = np.argmin(np.stack([tx, ty, tz]), axis=0)
        t = np.minimum(np.minimum(tx, ty), tz)
        hx, hy, hz = x + t * dx, y + t * dy, EYE + t * dz
        side = np.select(
            [(nearest == 0) & (dx > 0), (nearest == 1) & (dy > 0), nearest == 0, nearest == 1, dz < 0],
            [0, 1, 2, 3, 4],
            5,
        )
        # Seen from inside, left to right: −y on the wall x=max, x on y=max, y on x=0, −x on y=0.
        across = np.select([side == 0, side == 1, side == 2, side == 3], [ROOM[1] - hy, hx, hy, ROOM[0] - hx], hx)
        along = np.where(side < 4, ROOM[2] - hz, hy)
        return t, side, across, along

    def paint(self, side: npt.NDArray[np.int64], across: Floats, along: Floats, layer: int) -> npt.NDArray[Any]:
        """The colours (layer 0) or kelvin (layer 1) that rays met."""
        first = self.sides[0][layer]
        image = np.zeros((*side.shape, *first.shape[2:]), first.dtype)
        for number in np.unique(side):
            texture, mask = self.sides[number][layer], side == number
            u = np.clip((across[mask] * DETAIL).astype(int), 0, texture.shape[1] - 1)
            v = np.clip((along[mask] * DETAIL).astype(int), 0, texture.shape[0] - 1)
            image[mask] = texture[v, u]
        return image


def _photograph(name: str) -> npt.NDArray[np.uint8]:
    import skimage.data

    path = Path(skimage.data.__file__).parent / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise FileNotFoundError(f"scikit-image's photograph '{path}' is missing: install scikit-image again")
    return np.asarray(image, np.uint8)


def _haze(noise: np.random.Generator, shape: tuple[int, ...], mean: float, deviation: float) -> npt.NDArray[np.float32]:
    coarse = noise.standard_normal((shape[0] // 40 + 2, shape[1] // 40 + 2)).astype(np.float32)
    return np.asarray(
        mean + deviation * cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32
    )


def _plaster(
    noise: np.random.Generator, height: float, width: float, colour: tuple[int, int, int]
) -> npt.NDArray[np.uint8]:
    shape = (round(height * DETAIL), round(width * DETAIL))
    grain = _haze(noise, shape, 0, 7)[..., None] + noise.normal(0, 5, (*shape, 1))
    return np.asarray(np.clip(np.array(colour) + grain, 0, 255), np.uint8)


@dataclass(frozen=True)
class Patrol:
    """Where the robot is at a time in seconds: it turns to each wall, drives up, stays 3 s, drives back."""

    duration: float

    def pose(self, t: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """(x, y, yaw) in metres and radians; smooth to the second derivative."""
        t = np.asarray(t, np.float64)
        wall = np.clip(np.floor(t / LEG), 0, None)
        s = t - wall * LEG
        # The yaw of wall n is n · 90°; the turn to the next takes the last 1.5 s of a leg.
        yaw = (wall + _ease((s - (LEG - 1.5)) / 1.5)) * np.pi / 2
        reach = 1.4 * (_ease((s - 0.2) / 1.3) - _ease((s - 4.6) / 1.3))
        heading = wall * np.pi / 2
        return ROOM[0] / 2 + reach * np.cos(heading), ROOM[1] / 2 + reach * np.sin(heading), yaw

    def truth(self) -> list[Truth]:
        """When each picture fills the view."""
        found = []
        for number in range(int(np.ceil(self.duration / LEG))):
            onset = number * LEG + 0.2
            offset = min(number * LEG + LEG - 1.0, self.duration)
            if offset - onset >= 2:
                found.append(Truth(onset, offset, WALLS[number % len(WALLS)][0]))
        return found


def _ease(s: npt.ArrayLike) -> Floats:
    """0 to 1 over 0 to 1, with speed and acceleration 0 at both ends."""
    s = np.clip(np.asarray(s, np.float64), 0, 1)
    return np.asarray(s**3 * (s * (6 * s - 15) + 10))


def sound(patrol: Patrol, noise: np.random.Generator) -> npt.NDArray[np.int16]:
    """(samples,) int16 at 16 kHz: the motor, which follows the speed, quiet noise, and one sound for each wall.

    Three knocks before the person, glass that breaks before the coffee, an alarm of six beeps before the rocket;
    the cat is silent.
    """
    t = np.arange(round(patrol.duration * RATE)) / RATE
    x, y, yaw = patrol.pose(t)
    speed = np.hypot(np.gradient(x, t), np.gradient(y, t)) + np.abs(np.gradient(yaw, t))
    turns = 2 * np.pi * np.cumsum(60 + 40 * speed) / RATE
    wave = 0.02 * (np.sin(turns) + 0.4 * np.sin(2 * turns)) * (0.2 + speed) + 0.004 * noise.standard_normal(len(t))
    made = {"person": _knocks, "coffee": _glass, "rocket": _alarm}
    for item in patrol.truth():
        if item.label in made:
            first = round((item.onset + SOUND_DELAY) * RATE)
            burst = made[item.label](noise)[: max(0, len(t) - first)]
            wave[first : first + len(burst)] += burst
    return np.asarray(np.clip(wave, -1, 1) * 32767, np.int16)


def _knocks(noise: np.random.Generator) -> Floats:
    """Three blows on wood: noise and a low tone that die away within 30 ms."""
    t = np.arange(round(1.2 * RATE)) / RATE
    since = t % 0.4
    return 0.4 * np.exp(-since / 0.03) * (np.sin(2 * np.pi * 180 * since) + 0.5 * noise.standard_normal(len(t)))


def _glass(noise: np.random.Generator) -> Floats:
    """A crash of noise, then 24 shards, each a high tone of its own that dies away."""
    t = np.arange(round(1.0 * RATE)) / RATE
    wave = 0.4 * np.exp(-t / 0.02) * noise.standard_normal(len(t))
    for onset, pitch in zip(noise.exponential(0.15, 24), noise.uniform(2500, 7500, 24), strict=True):
        since = np.maximum(t - onset, 0)
        wave += 0.08 * (t >= onset) * np.exp(-since / 0.06) * np.sin(2 * np.pi * pitch * since)
    return np.asarray(wave)


def _alarm(noise: np.random.Generator) -> Floats:
    """Six beeps of 1200 Hz, two a second."""
    t = np.arange(round(3.0 * RATE)) / RATE
    return np.asarray(0.3 * (t % 0.5 < 0.25) * np.sin(2 * np.pi * 1200 * t))


def motion(patrol: Patrol, times: Floats, noise: np.random.Generator) -> Floats:
    """(N, 6): acceleration in the robot's frame with gravity (m/s²), angular velocity (rad/s); one bump on the way."""
    step = 0.001
    before, now, after = (patrol.pose(times + d) for d in (-step, 0, step))
    ax, ay = ((after[i] - 2 * now[i] + before[i]) / step**2 for i in (0, 1))
    yaw = now[2]
    values = np.zeros((len(times), 6))
    values[:, 0] = ax * np.cos(yaw) + ay * np.sin(yaw)
    values[:, 1] = -ax * np.sin(yaw) + ay * np.cos(yaw)
    bump = times - 0.6 * patrol.duration
    values[:, 2] = GRAVITY + 6 * np.exp(-np.abs(bump) / 0.05) * np.sin(60 * bump)
    values[:, 5] = (after[2] - before[2]) / (2 * step)
    values[:, :3] += 0.02 + 0.05 * noise.standard_normal((len(times), 3))
    values[:, 3:] += 0.002 + 0.005 * noise.standard_normal((len(times), 3))
    return values


def simulate(
    path: str | Path,
    *,
    seed: int = 0,
    duration: float = len(WALLS) * LEG,
    image_rate: float = 15.0,
    thermal_rate: float = 9.0,
    image_size: tuple[int, int] = (640, 480),
    depth_size: tuple[int, int] = (320, 240),
    thermal_size: tuple[int, int] = (160, 120),
    overwrite: bool = False,
    extra: Iterator[Logged] | None = None,
) -> list[Truth]:
    """Write a patrol of `duration` seconds as an MCAP bag, and its truth beside it as PATH.truth.tsv.

    Topics: `/camera/image` rgb8, `/depth/image` 16UC1 in mm, both with CameraInfo, `/thermal/image` mono16 in
    centikelvin, `/audio` S16LE in blocks of 0.1 s with `/info`, `/imu` at 200 Hz; and what `extra` gives, in order of
    time. Sizes are (width, height).
    Raises `RecordingError` where the bag cannot be written.
    """
    world, patrol = World(seed), Patrol(duration)
    noise = np.random.default_rng([seed, 1])
    types = BagTypes()
    streams = [
        _camera(world, patrol, noise, types, image_rate, image_size),
        _depth(world, patrol, noise, types, image_rate, depth_size),
        _thermal(world, patrol, noise, types, thermal_rate, thermal_size),
        _microphone(patrol, noise, types),
        _imu(patrol, noise, types),
        *([extra] if extra is not None else []),
    ]
    with BagWriter(path, overwrite=overwrite) as bag:
        for logged, topic, type_name, message in merged(streams):
            bag.write(topic, type_name, logged, message, latched=topic == INFO)
    truth = patrol.truth()
    with Path(f"{path}.truth.tsv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("onset", "offset", "label"))
        table.writerows((f"{t.onset:.3f}", f"{t.offset:.3f}", t.label) for t in truth)
    return truth


def _times(duration: float, rate: float, phase: float, noise: np.random.Generator) -> Floats:
    """Of a sensor on a clock of its own: even, a little late at the start, with jitter."""
    times = np.arange(phase, duration, 1 / rate)
    return times + noise.uniform(0, 0.02 / rate, len(times))


def _views(
    name: str,
    encoding: str,
    times: Floats,
    patrol: Patrol,
    types: BagTypes,
    size: tuple[int, int],
    pixels: Callable[[float, float, float], npt.NDArray[Any]],
    info: bool,
) -> Iterator[Logged]:
    for t, x, y, yaw in zip(times, *patrol.pose(times), strict=True):
        stamp = EPOCH + round(t * SECOND)
        if info:
            yield (
                stamp + SECOND // 500,
                f"/{name}/camera_info",
                "sensor_msgs/msg/CameraInfo",
                camera_info(types, stamp, name, size),
            )
        yield (
            stamp + SECOND // 500,
            f"/{name}/image",
            "sensor_msgs/msg/Image",
            image(types, stamp, name, encoding, pixels(x, y, yaw)),
        )


def _camera(
    world: World, patrol: Patrol, noise: np.random.Generator, types: BagTypes, rate: float, size: tuple[int, int]
) -> Iterator[Logged]:
    grain = noise.integers(-4, 5, (size[1], size[0], 3)).astype(np.int16)

    def pixels(x: float, y: float, yaw: float) -> npt.NDArray[Any]:
        _, side, across, along = world.look(x, y, yaw, *size)
        # One field of noise, shifted at random: as good as new noise for each frame, and much faster.
        moved = np.roll(grain, noise.integers(0, size[0], 2), axis=(0, 1))
        return np.clip(world.paint(side, across, along, 0) + moved, 0, 255).astype(np.uint8)

    times = _times(patrol.duration, rate, 0.013, noise)
    return _views("camera", "rgb8", times, patrol, types, size, pixels, True)


def _depth(
    world: World, patrol: Patrol, noise: np.random.Generator, types: BagTypes, rate: float, size: tuple[int, int]
) -> Iterator[Logged]:
    def pixels(x: float, y: float, yaw: float) -> npt.NDArray[Any]:
        depth, *_ = world.look(x, y, yaw, *size)
        depth = depth + 0.002 * depth**2 * noise.standard_normal(depth.shape)  # grows as that of stereo does
        lost = (depth > FAR) | (depth < 0.3) | (noise.random(depth.shape) < 0.01)
        return np.where(lost, 0, np.round(depth * 1000)).astype(np.uint16)

    times = _times(patrol.duration, rate, 0.021, noise)
    return _views("depth", "16UC1", times, patrol, types, size, pixels, True)


def _thermal(
    world: World, patrol: Patrol, noise: np.random.Generator, types: BagTypes, rate: float, size: tuple[int, int]
) -> Iterator[Logged]:
    def pixels(x: float, y: float, yaw: float) -> npt.NDArray[Any]:
        _, side, across, along = world.look(x, y, yaw, *size)
        kelvin = world.paint(side, across, along, 1) + 0.05 * noise.standard_normal(side.shape)
        return np.round(100 * kelvin).astype(np.uint16)

    times = _times(patrol.duration, rate, 0.034, noise)
    return _views("thermal", "mono16", times, patrol, types, size, pixels, False)


def _microphone(patrol: Patrol, noise: np.random.Generator, types: BagTypes) -> Iterator[Logged]:
    return sound_messages(types, sound(patrol, noise))


def _imu(patrol: Patrol, noise: np.random.Generator, types: BagTypes) -> Iterator[Logged]:
    times = _times(patrol.duration, 200, 0.002, noise)
    return motion_messages(types, times, motion(patrol, times, noise))
