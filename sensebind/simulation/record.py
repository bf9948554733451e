"""A plan of what happens to a robot, recorded by its five senses: an MCAP bag and the truth beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import BagTypes, BagWriter
from sensebind.fusion.io.truth import write_faults, write_truth
from sensebind.simulation import catalogue, failures, imitations, rooms
from sensebind.simulation.failures import SENSORS, Fault
from sensebind.simulation.messages import (
    DELAY,
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
from sensebind.simulation.rooms import Room

Floats = npt.NDArray[np.float64]

FRAME_RATE, IMU_RATE = 10.0, 200.0  # Hz
GRAVITY = 9.80665  # m/s²
WIDTH, HEIGHT = 160, 120  # of what is rendered; the colour image is twice as large
NEAR = 0.8  # m before the robot that something stands which hides what is behind it
BOARD = np.array([0.03, 0.42, 1.2], np.float32)  # its half sizes in m: it hides three quarters of the view
TURN = 0.8  # s that the robot takes to turn to a place, and from it
FELT = 0.5  # s after which a blow has died away
GROUNDS = {"carpet": (0, 0.02), "wood": (14, 0.08), "tiles": (100, 0.25), "gravel": (20, 0.8)}  # hue; m/s² of rolling
MOTOR = -46.0  # dB of full scale, of the robot's own noise


@dataclass(frozen=True, slots=True)
class Truth:
    """Something that was there: from `onset` to `offset`, in seconds from the start."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True, slots=True)
class Happening:
    """Something of a kind from `onset` to `offset` (s), perceived by `senses`, `ahead` and `aside` metres of where
    the robot stands. `clip`: sound float32 at 16 kHz in place of the kind's own; `snr` dB over the motor.
    `photograph`: uint8 (H, W, 3) on a board in place of the kind's shape; `warmth` in kelvin in place of the kind's."""

    kind: str
    onset: float
    offset: float
    senses: frozenset[str] = frozenset(SENSORS)
    ahead: float = 2.2
    aside: float = 0.0
    label: str = ""
    clip: npt.NDArray[np.float32] | None = None
    snr: float | None = None
    told: bool = True  # in the truth; distractors are not
    photograph: npt.NDArray[np.uint8] | None = None
    warmth: float | None = None


@dataclass(frozen=True, slots=True)
class ThermalCamera:
    """`palette`: radiometric (mono16, centikelvin), white-hot, black-hot (mono8, gain by the frame) or iron (rgb8);
    `noise` in kelvin; `blur` in pixels; `size` (width, height)."""

    palette: str = "radiometric"
    noise: float = 0.05
    blur: float = 0.0
    size: tuple[int, int] = (160, 120)


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Where the robot is at a time (s): so many metres ahead and aside of where it began in this place, turned by so
    many radians to the left."""

    at: float
    ahead: float = 0.0
    aside: float = 0.0
    turn: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What happens. `places` are (start in s, ground): a room each, made from the seed; `dark` are spans (s) without
    light; in those of `occluded` something stands right before the robot; `motor` dB of full scale. `path`: from one
    waypoint to the next the robot drives smoothly. `noise_of`: sensor → times its usual noise, 1 and more."""

    duration: float
    places: tuple[tuple[float, str], ...]
    happenings: tuple[Happening, ...]
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    dark: tuple[tuple[float, float], ...] = ()
    thermal_camera: ThermalCamera = field(default_factory=ThermalCamera)
    motor: float = MOTOR
    furniture: int = 5
    path: tuple[Waypoint, ...] = ()
    occluded: tuple[tuple[float, float], ...] = ()
    noise_of: Mapping[str, float] = field(default_factory=dict)

    def noise(self, *which: int) -> np.random.Generator:
        """Chance of its own for each use, so that a change of one leaves the others as they were."""
        return np.random.default_rng([self.seed, *which])

    def truth(self) -> list[Truth]:
        """What happened, in order."""
        told = [Truth(h.onset, min(h.offset, self.duration), h.label or h.kind) for h in self.happenings if h.told]
        return sorted(told, key=lambda t: (t.onset, t.label))

    @cached_property
    def furnished(self) -> list[Room]:
        """A room for each place, cleared where the robot and what it meets stand, with painted things in it."""
        made = []
        for number, (_, ground) in enumerate(self.places):
            noise = self.noise(1, number)
            room = rooms.furnish(noise, self.furniture)
            room = replace(room, size=np.maximum(room.size, np.array([5, 5, 2.4], np.float32)))
            x, y = self.base(room)
            kept = tuple(
                thing for thing in room.things
                if thing.centre[0] - thing.half[:2].max() > x + 3.2 or abs(thing.centre[1] - y) > 1.3
            )  # fmt: skip
            hue, _ = GROUNDS[ground]
            floor = catalogue.pattern(catalogue.Kind("", (), hue=hue, stripes=8 if ground == "tiles" else 0), noise)
            if ground == "gravel":
                floor = np.asarray(np.clip(floor + noise.normal(0, 40, floor.shape), 0, 255), np.uint8)
            painted = [
                catalogue.pattern(catalogue.KINDS[h.kind], noise) if h.photograph is None
                else catalogue.board_pattern(h.photograph)
                for h in self.happenings
            ]  # fmt: skip
            patterns = np.concatenate([room.patterns, np.stack(painted) if painted else room.patterns[:0]])
            patterns[1] = floor
            made.append(replace(room, things=kept, patterns=patterns))
        return made

    @staticmethod
    def base(room: Room) -> tuple[float, float]:
        """Where the robot stands (m): by one wall, with the room before it."""
        return 1.0, float(room.size[1] / 2)

    def place(self, t: float) -> int:
        """The number of the place at a time."""
        starts = [start for start, _ in self.places]
        return max(0, int(np.searchsorted(starts, t, side="right")) - 1)

    def pose(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """(forward, sideways, yaw) of the robot in m and rad from where it stands: it turns in, sways, turns out."""
        starts = np.array([start for start, _ in self.places])
        ends = np.append(starts[1:], self.duration)
        which = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
        since, left = times - starts[which], ends[which] - times
        turning = 1 - _ease(since / TURN) + _ease(1 - left / TURN) * (ends[which] < self.duration)
        draw = self.noise(2).uniform(0.6, 1.4, (len(starts), 4))[which]
        phase = self.noise(3).uniform(0, 6, len(starts))[which]
        x = 0.22 * draw[:, 0] * np.sin(0.9 * draw[:, 1] * times + phase)
        y = 0.08 * draw[:, 2] * np.sin(0.7 * draw[:, 3] * times + 2 * phase)
        yaw = 0.10 * draw[:, 2] * np.sin(0.55 * draw[:, 0] * times + phase) - 0.9 * turning * (len(starts) > 1)
        ahead, aside, turn = self.driven(times)
        return x + ahead, y + aside, yaw + turn

    def driven(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """(ahead, aside, turn) in m and rad that the path asks for; nothing before its first waypoint."""
        x, y, yaw = (np.zeros(len(times)) for _ in range(3))
        before = Waypoint(0.0)
        for point in self.path:
            share = _ease((times - before.at) / max(point.at - before.at, 1e-9))
            x += share * (point.ahead - before.ahead)
            y += share * (point.aside - before.aside)
            yaw += share * (point.turn - before.turn)
            before = point
        return x, y, yaw

    def active(self, t: float, sense: str) -> list[tuple[int, Happening]]:
        """What a sense perceives at a time, with its number."""
        return [
            (number, h) for number, h in enumerate(self.happenings)
            if h.onset <= t < h.offset and sense in h.senses & catalogue.ONE_SENSE.get(h.kind, h.senses)
        ]  # fmt: skip

    def active_sounds(self) -> list[tuple[int, Happening]]:
        """What is to be heard at any time, with its number."""
        return [
            (number, h) for number, h in enumerate(self.happenings)
            if "audio" in h.senses and (h.clip is not None or catalogue.KINDS[h.kind].sound)
        ]  # fmt: skip

    def is_dark(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.dark)

    def is_occluded(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.occluded)

    def roughness(self, sensor: str) -> float:
        """Times a sensor's usual noise."""
        return float(self.noise_of.get(sensor, 1.0))

    def fault(self, sensor: str, t: float) -> str:
        """How a sensor fails at a time; empty where it does not."""
        return next((f.cause for f in self.faults if f.sensor == sensor and f.during(t)), "")


def _ease(s: Floats) -> Floats:
    s = np.clip(s, 0, 1)
    return np.asarray(s**3 * (s * (6 * s - 15) + 10))


def see(plan: Plan, t: float, noise: np.random.Generator) -> rooms.View:
    """What the three cameras see at a time."""
    where = plan.place(t)
    room = plan.furnished[where]
    x, y = plan.base(room)
    (dx,), (dy,), (yaw,) = plan.pose(np.array([t]))
    eye = np.array([x + dx, y + dy, 1.15], np.float32)
    height = 0.22  # rad down

    def scene(shown: frozenset[int]) -> rooms.Room:
        parts = list(room.things)
        for number in sorted(shown):
            h = plan.happenings[number]
            spot, pattern, kind = (x + h.ahead, y + h.aside), rooms.PATTERNS + number, catalogue.KINDS[h.kind]
            kind = kind if h.warmth is None else replace(kind, warmth=h.warmth)
            if h.photograph is not None:
                parts.append(catalogue.board(h.photograph, spot, pattern, kind.warmth))
                continue
            turned = plan.noise(4, number).uniform(-0.5, 0.5)
            parts += catalogue.stand(kind, spot, turned, pattern, plan.noise(5, number))
        if plan.is_occluded(t):
            ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0], np.float32)
            parts.append(rooms.Thing("box", eye + NEAR * ahead, BOARD, float(yaw), 0, 20.0, 0.0))
        light = 0.02 if plan.is_dark(t) else 1.0
        return replace(room, things=tuple(parts), ambient=room.ambient * light, strengths=room.strengths * light)

    views: dict[frozenset[int], rooms.View] = {}
    shown = {sense: frozenset(number for number, _ in plan.active(t, sense)) for sense in failures.CAMERAS}
    for things_seen in shown.values():
        if things_seen not in views:  # senses that perceive the same things share a picture
            steady = np.random.default_rng([plan.seed, 6, where])  # exposure and tint are a room's, not a frame's
            views[things_seen] = rooms.see(
                scene(things_seen), steady, eye, yaw, height, VIEW, WIDTH, HEIGHT, noise, plan.roughness("depth")
            )
    colour, depth, thermal = (views[shown[sense]] for sense in failures.CAMERAS)
    grain = np.rint(plan.roughness("vision") * noise.integers(-4, 5, colour.colour.shape)).astype(np.int16)
    bright = np.clip(colour.colour.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return rooms.View(bright, depth.depth, thermal.kelvin)


def hear(plan: Plan) -> npt.NDArray[np.int16]:
    """int16 (samples,) at 16 kHz: the robot's motors, which follow its motion, and what happens."""
    count = round(plan.duration * RATE)
    t = np.arange(count) / RATE
    x, y, yaw = plan.pose(t[:: RATE // 50])
    speed = np.abs(np.gradient(x)) + np.abs(np.gradient(y)) + np.abs(np.gradient(yaw))
    speed = np.interp(t, t[:: RATE // 50], speed * 50)
    noise = plan.noise(7)
    turns = 2 * np.pi * np.cumsum(70 + 60 * speed) / RATE
    own = (np.sin(turns) + 0.5 * np.sin(2 * turns) + 0.3 * np.sin(5 * turns)) * (0.3 + speed)
    own = own + 0.5 * imitations.band(noise, 60, 5000, plan.duration)[:count]
    level = 10 ** (plan.motor / 20)
    wave = own / own.std() * level
    if (rough := plan.roughness("audio")) > 1:
        wave = wave + 0.5 * level * np.sqrt(rough**2 - 1) * plan.noise(12).standard_normal(count)
    for number, h in plan.active_sounds():
        kind, first = catalogue.KINDS[h.kind], round(h.onset * RATE)
        length = min(round(h.offset * RATE), count) - first
        if length <= 0:
            continue
        piece = h.clip if h.clip is not None else _sound(kind.sound, length, plan.noise(8, number))
        piece = np.asarray(piece[:length], np.float64)
        loud = 10 ** (kind.loudness / 20) if h.snr is None else level * 10 ** (h.snr / 20)
        piece = piece / (_level(piece) + 1e-9) * loud
        fade = min(RATE // 50, len(piece) // 2)
        if fade:
            piece[:fade] *= np.linspace(0, 1, fade)
            piece[-fade:] *= np.linspace(1, 0, fade)
        wave[first : first + len(piece)] += piece
    return np.asarray(np.clip(wave, -1, 1) * 32767, np.int16)


def _level(piece: Floats) -> float:
    """Its level while it sounds: the 90th percentile of that of stretches of 50 ms."""
    step = RATE // 20
    whole = len(piece) // step * step
    if not whole:
        return float(piece.std())
    return float(np.percentile(np.sqrt(np.square(piece[:whole]).reshape(-1, step).mean(axis=1)), 90))


def _sound(name: str, length: int, noise: np.random.Generator) -> Floats:
    make = imitations.named(name)
    pieces: list[Floats] = []
    for _ in range(-(-length // round(imitations.SECONDS * RATE))):
        pieces.append(np.nan_to_num(make(noise)))
    return np.concatenate(pieces)[:length]


def feel(plan: Plan, times: Floats) -> Floats:
    """(N, 6): acceleration in the robot's frame with gravity (m/s²), angular velocity (rad/s)."""
    step, noise = 0.002, plan.noise(9)
    before, now, after = (plan.pose(times + d) for d in (-step, 0, step))
    values = np.zeros((len(times), 6))
    for column in (0, 1):
        values[:, column] = np.clip((after[column] - 2 * now[column] + before[column]) / step**2, -3, 3)
    if plan.path:  # the path turns the robot by more than it sways
        cos, sin = np.cos(now[2]), np.sin(now[2])
        values[:, 0], values[:, 1] = cos * values[:, 0] + sin * values[:, 1], cos * values[:, 1] - sin * values[:, 0]
    values[:, 2] = GRAVITY
    values[:, 5] = np.clip((after[2] - before[2]) / (2 * step), -3, 3)
    speed = np.clip(np.abs(after[0] - before[0]) / (2 * step), 0, 0.6)  # between places it is nowhere
    ground = np.array([GROUNDS[g][1] for _, g in plan.places])[[plan.place(t) for t in times]]
    values[:, :3] += (ground * (0.3 + 3 * speed))[:, None] * noise.standard_normal((len(times), 3))
    for number, h in enumerate(plan.happenings):
        rate, strength = catalogue.KINDS[h.kind].shakes
        if not strength or "imu" not in h.senses:
            continue
        during = (times >= h.onset) & (times < h.offset)
        since, own = times[during] - h.onset, plan.noise(10, number)
        rate *= own.uniform(0.95, 1.05)
        if rate < 5:  # blows, each of which rings and dies away
            shake = np.exp(-(since * rate % 1) / rate / 0.05) * np.sin(2 * np.pi * 22 * since)
        elif h.kind in ("bump", "fall"):
            shake = np.exp(-since / (FELT / 4)) * np.sin(2 * np.pi * rate * since)
        else:
            shake = np.sin(2 * np.pi * rate * since) + 0.4 * np.sin(4 * np.pi * rate * since + 1)
        values[during, :3] += strength * shake[:, None] * own.uniform(0.3, 1.0, 3)
    rough = plan.roughness("imu")
    values[:, :3] += 0.02 + 0.04 * rough * noise.standard_normal((len(times), 3))
    values[:, 3:] += 0.002 + 0.004 * rough * noise.standard_normal((len(times), 3))
    return values


def record(
    plan: Plan, path: str | Path, *, overwrite: bool = False, frame_rate: float = FRAME_RATE,
    extra: Iterator[Logged] | None = None,
) -> list[Truth]:  # fmt: skip
    """Write what happens as an MCAP bag; PATH.truth.tsv (onset, offset, label) and PATH.faults.tsv (onset, offset,
    sensor, fault) beside it, in seconds from the start. Returns the truth.

    Topics: `/camera/image` rgb8 and `/depth/image` 16UC1 in mm, both with CameraInfo, and `/thermal/image`, mono16 in
    centikelvin unless the plan's camera is another, at `frame_rate` (Hz); `/audio` S16LE in blocks of 0.1 s with
    `/info`; `/imu` at 200 Hz; and the messages of `extra`, which come in order of time.
    The same plan gives the same bytes. Raises `RecordingError` where the bag cannot be written.
    """
    types = BagTypes()
    streams = streams_of(measure(plan, frame_rate), types)
    with BagWriter(path, overwrite=overwrite) as bag:
        for logged, topic, type_name, message in merged([*streams, *([extra] if extra else [])]):
            bag.write(topic, type_name, logged, message, latched=topic == INFO)
    truth = plan.truth()
    write_truth(f"{path}.truth.tsv", [(t.onset, t.offset, t.label) for t in truth])
    faults = [(f.onset, min(f.offset, plan.duration), f.sensor, f.cause) for f in plan.faults]
    if faults:
        write_faults(f"{path}.faults.tsv", faults)
    return truth


@dataclass(frozen=True)
class Measured:
    """What sensors that are all well measure: `pictures` are (time in s, sensor → pixels), `wave` int16 at 16 kHz,
    `motion` float64 (N, 6) at `times` (N,) in s."""

    plan: Plan
    pictures: Iterable[tuple[float, dict[str, npt.NDArray[Any]]]]
    wave: npt.NDArray[np.int16]
    times: Floats
    motion: Floats


def measure(plan: Plan, frame_rate: float = FRAME_RATE) -> Measured:
    """What the sensors measure; the pictures come one by one."""
    times = np.arange(0.002, plan.duration, 1 / IMU_RATE)
    frames = (number / frame_rate + 0.013 for number in range(round(plan.duration * frame_rate)))
    return Measured(plan, pictures(plan, frames), hear(plan), times, feel(plan, times))


def streams_of(measured: Measured, types: BagTypes, sensors: Sequence[str] = SENSORS) -> list[Iterator[Logged]]:
    """These sensors' messages: what they measured, but for the plan's faults."""
    cameras = [sensor for sensor in sensors if sensor in failures.CAMERAS]
    streams = [_cameras(measured, types, cameras)] if cameras else []
    streams += [_microphone(measured, types)] if "audio" in sensors else []
    return streams + ([_imu(measured, types)] if "imu" in sensors else [])


def pictures(plan: Plan, times: Iterable[float]) -> Iterator[tuple[float, dict[str, npt.NDArray[Any]]]]:
    """What healthy cameras send at `times` (s, in order): uint8 (H, W, 3) colour, uint16 millimetres, and the thermal
    camera's own."""
    noise = plan.noise(11)
    camera = replace(plan.thermal_camera, noise=plan.thermal_camera.noise * plan.roughness("thermal"))
    for t in times:
        view = see(plan, t, noise)
        colour = cv2.resize(view.colour, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_LINEAR)
        millimetres = np.nan_to_num(np.round(view.depth * 1000)).astype(np.uint16)
        thermal = _thermal(camera, view.kelvin, noise)
        yield t, {"vision": colour, "depth": millimetres, "thermal": thermal}


def _cameras(measured: Measured, types: BagTypes, sensors: Sequence[str]) -> Iterator[Logged]:
    held: dict[str, npt.NDArray[Any]] = {}
    for t, seen in measured.pictures:
        for sensor in sensors:
            sent = failures.picture(measured.plan.fault(sensor, t), sensor, seen, held)
            if sent is None:
                continue
            name, pixels = "camera" if sensor == "vision" else sensor, sent[1]
            stamp = EPOCH + round(t * SECOND)
            if sensor != "thermal":
                size = (pixels.shape[1], pixels.shape[0])
                info = camera_info(types, stamp, name, size)
                yield stamp + DELAY, f"/{name}/camera_info", "sensor_msgs/msg/CameraInfo", info
            message = image(types, stamp, name, failures.encoding(sent[0], pixels), pixels)
            yield stamp + DELAY, f"/{name}/image", "sensor_msgs/msg/Image", message


def _thermal(camera: ThermalCamera, kelvin: npt.NDArray[np.float32], noise: np.random.Generator) -> npt.NDArray[Any]:
    seen = cv2.GaussianBlur(kelvin, (0, 0), camera.blur) if camera.blur else kelvin
    seen = cv2.resize(seen, camera.size, interpolation=cv2.INTER_AREA)
    seen = seen + camera.noise * noise.standard_normal(seen.shape)
    if camera.palette == "radiometric":
        return np.asarray(np.round(100 * seen), np.uint16)
    low, high = np.percentile(seen, (0.5, 99.5))
    grey = np.asarray(np.clip((seen - low) / max(high - low, 2.0), 0, 1) * 255, np.uint8)
    if camera.palette == "black-hot":
        return 255 - grey
    if camera.palette == "iron":
        return np.asarray(cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8)
    return grey


def _microphone(measured: Measured, types: BagTypes) -> Iterator[Logged]:
    plan, wave = measured.plan, measured.wave.copy()
    for f in plan.faults:
        if f.sensor == "audio":
            failures.sound(f.cause, wave, round(f.onset * RATE), round(f.offset * RATE), RATE // 10)
    for logged in sound_messages(types, wave):
        t = (logged[0] - EPOCH) / SECOND - 0.1
        if logged[1] == INFO or plan.fault("audio", t) != "unplugged":
            yield logged


def _imu(measured: Measured, types: BagTypes) -> Iterator[Logged]:
    times, values = measured.times, measured.motion.copy()
    keep = np.ones(len(times), bool)
    for f in measured.plan.faults:
        if f.sensor == "imu":
            part = (times >= f.onset) & (times < f.offset)
            failures.motion(f.cause, values, part)
            keep &= ~part | (f.cause != "unplugged")
    return motion_messages(types, times[keep], values[keep])
