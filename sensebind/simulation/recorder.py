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
from sensebind.fusion.io.ground_truth import write_faults, write_truth
from sensebind.fusion.io.recordings import BagWriter, RosbagsMessageFactory
from sensebind.simulation import catalogue, rooms, sensor_faults, synthetic_sounds
from sensebind.simulation.messages import (
    AUDIO_INFO_TOPIC,
    AUDIO_SAMPLE_RATE,
    FIELD_OF_VIEW,
    MESSAGE_DELAY,
    SIMULATION_START,
    LoggedMessage,
    camera_info_message,
    image_message,
    imu_messages,
    merge_by_log_time,
    microphone_messages,
)
from sensebind.simulation.rooms import Room
from sensebind.simulation.sensor_faults import SIMULATED_SENSORS, Fault

Floats = npt.NDArray[np.float64]

FRAME_RATE, IMU_RATE = 10.0, 200.0  # Hz
GRAVITY = 9.80665  # m/s²
RENDER_WIDTH, RENDER_HEIGHT = 160, 120  # of what is rendered; the colour image is twice as large
OCCLUDER_DISTANCE = 0.8  # m before the robot that something stands which hides what is behind it
OCCLUDER_HALF_SIZE = np.array([0.03, 0.42, 1.2], np.float32)  # its half sizes in m: it hides three quarters of the view
TURN_DURATION = 0.8  # s that the robot takes to turn to a place, and from it
IMPACT_DECAY_TIME = 0.5  # s after which a blow has died away
GROUNDS = {"carpet": (0, 0.02), "wood": (14, 0.08), "tiles": (100, 0.25), "gravel": (20, 0.8)}  # hue; m/s² of rolling
MOTOR_LEVEL = -46.0  # dB of full scale, of the robot's own noise


@dataclass(frozen=True, slots=True)
class GroundTruthEvent:
    """Something that was there: from `onset` to `offset`, in seconds from the start."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True, slots=True)
class SimulatedEvent:
    """Something of a kind from `onset` to `offset` (s), perceived by `senses`, `ahead` and `aside` metres of where
    the robot stands. `audio_clip`: sound float32 at 16 kHz in place of the kind's own; `snr` dB over the motor.
    `photograph`: uint8 (H, W, 3) on a board in place of the kind's shape; `warmth` in kelvin in place of the kind's."""

    kind: str
    onset: float
    offset: float
    senses: frozenset[str] = frozenset(SIMULATED_SENSORS)
    ahead: float = 2.2
    aside: float = 0.0
    label: str = ""
    audio_clip: npt.NDArray[np.float32] | None = None
    snr: float | None = None
    in_ground_truth: bool = True  # in the truth; distractors are not
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
class SimulatedScenario:
    """What happens. `places` are (start in s, ground): a room each, made from the seed; `dark` are spans (s) without
    light; in those of `occluded` something stands right before the robot; `motor` dB of full scale. `path`: from one
    waypoint to the next the robot drives smoothly. `noise_of`: sensor → times its usual noise, 1 and more."""

    duration: float
    places: tuple[tuple[float, str], ...]
    events: tuple[SimulatedEvent, ...]
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    dark: tuple[tuple[float, float], ...] = ()
    thermal_camera: ThermalCamera = field(default_factory=ThermalCamera)
    motor: float = MOTOR_LEVEL
    max_furniture: int = 5
    path: tuple[Waypoint, ...] = ()
    occluded: tuple[tuple[float, float], ...] = ()
    noise_of: Mapping[str, float] = field(default_factory=dict)

    def noise(self, *which: int) -> np.random.Generator:
        """Chance of its own for each use, so that a change of one leaves the others as they were."""
        return np.random.default_rng([self.seed, *which])

    def truth(self) -> list[GroundTruthEvent]:
        """What happened, in order."""
        told = [
            GroundTruthEvent(h.onset, min(h.offset, self.duration), h.label or h.kind)
            for h in self.events
            if h.in_ground_truth
        ]
        return sorted(told, key=lambda t: (t.onset, t.label))

    @cached_property
    def rooms(self) -> list[Room]:
        """A room for each place, cleared where the robot and what it meets stand, with painted things in it."""
        made = []
        for number, (_, ground) in enumerate(self.places):
            noise = self.noise(1, number)
            room = rooms.random_room(noise, self.max_furniture)
            room = replace(room, size=np.maximum(room.size, np.array([5, 5, 2.4], np.float32)))
            x, y = self.start_position(room)
            kept = tuple(
                thing for thing in room.objects
                if thing.centre[0] - thing.half_size[:2].max() > x + 3.2 or abs(thing.centre[1] - y) > 1.3
            )  # fmt: skip
            hue, _ = GROUNDS[ground]
            floor = catalogue.kind_texture(
                catalogue.CatalogueKind("", (), hue=hue, stripe_count=8 if ground == "tiles" else 0), noise
            )
            if ground == "gravel":
                floor = np.asarray(np.clip(floor + noise.normal(0, 40, floor.shape), 0, 255), np.uint8)
            painted = [
                catalogue.kind_texture(catalogue.CATALOGUE[h.kind], noise) if h.photograph is None
                else catalogue.photograph_texture(h.photograph)
                for h in self.events
            ]  # fmt: skip
            patterns = np.concatenate([room.textures, np.stack(painted) if painted else room.textures[:0]])
            patterns[1] = floor
            made.append(replace(room, objects=kept, textures=patterns))
        return made

    @staticmethod
    def start_position(room: Room) -> tuple[float, float]:
        """Where the robot stands (m): by one wall, with the room before it."""
        return 1.0, float(room.size[1] / 2)

    def room_index(self, t: float) -> int:
        """The number of the place at a time."""
        starts = [start for start, _ in self.places]
        return max(0, int(np.searchsorted(starts, t, side="right")) - 1)

    def pose(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """(forward, sideways, yaw) of the robot in m and rad from where it stands: it turns in, sways, turns out."""
        starts = np.array([start for start, _ in self.places])
        ends = np.append(starts[1:], self.duration)
        which = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
        since, left = times - starts[which], ends[which] - times
        turning = (
            1
            - _smootherstep(since / TURN_DURATION)
            + _smootherstep(1 - left / TURN_DURATION) * (ends[which] < self.duration)
        )
        draw = self.noise(2).uniform(0.6, 1.4, (len(starts), 4))[which]
        phase = self.noise(3).uniform(0, 6, len(starts))[which]
        x = 0.22 * draw[:, 0] * np.sin(0.9 * draw[:, 1] * times + phase)
        y = 0.08 * draw[:, 2] * np.sin(0.7 * draw[:, 3] * times + 2 * phase)
        yaw = 0.10 * draw[:, 2] * np.sin(0.55 * draw[:, 0] * times + phase) - 0.9 * turning * (len(starts) > 1)
        ahead, aside, turn = self.path_offset(times)
        return x + ahead, y + aside, yaw + turn

    def path_offset(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """(ahead, aside, turn) in m and rad that the path asks for; nothing before its first waypoint."""
        x, y, yaw = (np.zeros(len(times)) for _ in range(3))
        before = Waypoint(0.0)
        for point in self.path:
            share = _smootherstep((times - before.at) / max(point.at - before.at, 1e-9))
            x += share * (point.ahead - before.ahead)
            y += share * (point.aside - before.aside)
            yaw += share * (point.turn - before.turn)
            before = point
        return x, y, yaw

    def active_events(self, t: float, modality: str) -> list[tuple[int, SimulatedEvent]]:
        """What a sense perceives at a time, with its number."""
        return [
            (number, h) for number, h in enumerate(self.events)
            if h.onset <= t < h.offset and modality in h.senses & catalogue.MODALITIES_OF_KIND.get(h.kind, h.senses)
        ]  # fmt: skip

    def audible_events(self) -> list[tuple[int, SimulatedEvent]]:
        """What is to be heard at any time, with its number."""
        return [
            (number, h) for number, h in enumerate(self.events)
            if "audio" in h.senses and (h.audio_clip is not None or catalogue.CATALOGUE[h.kind].sound_name)
        ]  # fmt: skip

    def is_dark(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.dark)

    def is_occluded(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.occluded)

    def noise_scale(self, sensor: str) -> float:
        """Times a sensor's usual noise."""
        return float(self.noise_of.get(sensor, 1.0))

    def fault_at(self, sensor: str, t: float) -> str:
        """How a sensor fails at a time; empty where it does not."""
        return next((f.canonical_kind for f in self.faults if f.sensor == sensor and f.is_active(t)), "")


def _smootherstep(s: Floats) -> Floats:
    s = np.clip(s, 0, 1)
    return np.asarray(s**3 * (s * (6 * s - 15) + 10))


def _room_with_events(
    plan: SimulatedScenario, t: float, shown: frozenset[int], eye: npt.NDArray[np.float32], yaw: float
) -> rooms.Room:
    """The room at a time, with the objects of the events `shown` (by number), the occluder and the light."""
    room = plan.rooms[plan.room_index(t)]
    x, y = plan.start_position(room)
    parts = list(room.objects)
    for number in sorted(shown):
        h = plan.events[number]
        spot, pattern, kind = (
            (x + h.ahead, y + h.aside),
            rooms.ROOM_TEXTURE_COUNT + number,
            catalogue.CATALOGUE[h.kind],
        )
        kind = kind if h.warmth is None else replace(kind, temperature_offset=h.warmth)
        if h.photograph is not None:
            parts.append(catalogue.photograph_board(h.photograph, spot, pattern, kind.temperature_offset))
            continue
        turned = plan.noise(4, number).uniform(-0.5, 0.5)
        parts += catalogue.place_kind(kind, spot, turned, pattern, plan.noise(5, number))
    if plan.is_occluded(t):
        ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0], np.float32)
        parts.append(rooms.SceneObject("box", eye + OCCLUDER_DISTANCE * ahead, OCCLUDER_HALF_SIZE, yaw, 0, 20.0, 0.0))
    light = 0.02 if plan.is_dark(t) else 1.0
    return replace(
        room,
        objects=tuple(parts),
        ambient_light=room.ambient_light * light,
        light_intensities=room.light_intensities * light,
    )


def render_cameras(plan: SimulatedScenario, t: float, noise: np.random.Generator) -> rooms.RenderedView:
    """What the three cameras see at a time."""
    where = plan.room_index(t)
    x, y = plan.start_position(plan.rooms[where])
    (dx,), (dy,), (yaw,) = plan.pose(np.array([t]))
    eye = np.array([x + dx, y + dy, 1.15], np.float32)
    height = 0.22  # rad down

    views: dict[frozenset[int], rooms.RenderedView] = {}
    shown = {
        sense: frozenset(number for number, _ in plan.active_events(t, sense))
        for sense in sensor_faults.CAMERA_MODALITIES
    }
    for shown_events in shown.values():
        if shown_events not in views:  # senses that perceive the same things share a picture
            steady = np.random.default_rng([plan.seed, 6, where])  # exposure and tint are a room's, not a frame's
            views[shown_events] = rooms.render(
                _room_with_events(plan, t, shown_events, eye, float(yaw)),
                steady,
                eye,
                yaw,
                height,
                FIELD_OF_VIEW,
                RENDER_WIDTH,
                RENDER_HEIGHT,
                noise,
                plan.noise_scale("depth"),
            )
    colour, depth, thermal = (views[shown[sense]] for sense in sensor_faults.CAMERA_MODALITIES)
    grain = np.rint(plan.noise_scale("vision") * noise.integers(-4, 5, colour.colour.shape)).astype(np.int16)
    bright = np.clip(colour.colour.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return rooms.RenderedView(bright, depth.depth, thermal.kelvin)


def synthesize_audio(plan: SimulatedScenario) -> npt.NDArray[np.int16]:
    """int16 (samples,) at 16 kHz: the robot's motors, which follow its motion, and what happens."""
    count = round(plan.duration * AUDIO_SAMPLE_RATE)
    t = np.arange(count) / AUDIO_SAMPLE_RATE
    x, y, yaw = plan.pose(t[:: AUDIO_SAMPLE_RATE // 50])
    speed = np.abs(np.gradient(x)) + np.abs(np.gradient(y)) + np.abs(np.gradient(yaw))
    speed = np.interp(t, t[:: AUDIO_SAMPLE_RATE // 50], speed * 50)
    noise = plan.noise(7)
    turns = 2 * np.pi * np.cumsum(70 + 60 * speed) / AUDIO_SAMPLE_RATE
    own = (np.sin(turns) + 0.5 * np.sin(2 * turns) + 0.3 * np.sin(5 * turns)) * (0.3 + speed)
    own = own + 0.5 * synthetic_sounds.band_noise(noise, 60, 5000, plan.duration)[:count]
    level = 10 ** (plan.motor / 20)
    wave = own / own.std() * level
    if (rough := plan.noise_scale("audio")) > 1:
        wave = wave + 0.5 * level * np.sqrt(rough**2 - 1) * plan.noise(12).standard_normal(count)
    for number, h in plan.audible_events():
        kind, first = catalogue.CATALOGUE[h.kind], round(h.onset * AUDIO_SAMPLE_RATE)
        length = min(round(h.offset * AUDIO_SAMPLE_RATE), count) - first
        if length <= 0:
            continue
        piece = (
            h.audio_clip
            if h.audio_clip is not None
            else _synthetic_sound(kind.sound_name, length, plan.noise(8, number))
        )
        piece = np.asarray(piece[:length], np.float64)
        loud = 10 ** (kind.sound_level / 20) if h.snr is None else level * 10 ** (h.snr / 20)
        piece = piece / (_active_level(piece) + 1e-9) * loud
        fade = min(AUDIO_SAMPLE_RATE // 50, len(piece) // 2)
        if fade:
            piece[:fade] *= np.linspace(0, 1, fade)
            piece[-fade:] *= np.linspace(1, 0, fade)
        wave[first : first + len(piece)] += piece
    return np.asarray(np.clip(wave, -1, 1) * 32767, np.int16)


def _active_level(piece: Floats) -> float:
    """Its level while it sounds: the 90th percentile of that of stretches of 50 ms."""
    step = AUDIO_SAMPLE_RATE // 20
    whole = len(piece) // step * step
    if not whole:
        return float(piece.std())
    return float(np.percentile(np.sqrt(np.square(piece[:whole]).reshape(-1, step).mean(axis=1)), 90))


def _synthetic_sound(name: str, length: int, noise: np.random.Generator) -> Floats:
    make = synthetic_sounds.synthesizer_named(name)
    pieces: list[Floats] = []
    for _ in range(-(-length // round(synthetic_sounds.SOUND_DURATION * AUDIO_SAMPLE_RATE))):
        pieces.append(np.nan_to_num(make(noise)))
    return np.concatenate(pieces)[:length]


def simulate_imu(plan: SimulatedScenario, times: Floats) -> Floats:
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
    ground = np.array([GROUNDS[g][1] for _, g in plan.places])[[plan.room_index(t) for t in times]]
    values[:, :3] += (ground * (0.3 + 3 * speed))[:, None] * noise.standard_normal((len(times), 3))
    for number, h in enumerate(plan.events):
        rate, strength = catalogue.CATALOGUE[h.kind].floor_vibration
        if not strength or "imu" not in h.senses:
            continue
        during = (times >= h.onset) & (times < h.offset)
        since, own = times[during] - h.onset, plan.noise(10, number)
        rate *= own.uniform(0.95, 1.05)
        if rate < 5:  # blows, each of which rings and dies away
            shake = np.exp(-(since * rate % 1) / rate / 0.05) * np.sin(2 * np.pi * 22 * since)
        elif h.kind in ("bump", "fall"):
            shake = np.exp(-since / (IMPACT_DECAY_TIME / 4)) * np.sin(2 * np.pi * rate * since)
        else:
            shake = np.sin(2 * np.pi * rate * since) + 0.4 * np.sin(4 * np.pi * rate * since + 1)
        values[during, :3] += strength * shake[:, None] * own.uniform(0.3, 1.0, 3)
    rough = plan.noise_scale("imu")
    values[:, :3] += 0.02 + 0.04 * rough * noise.standard_normal((len(times), 3))
    values[:, 3:] += 0.002 + 0.004 * rough * noise.standard_normal((len(times), 3))
    return values


def record(
    plan: SimulatedScenario, path: str | Path, *, overwrite: bool = False, frame_rate: float = FRAME_RATE,
    extra: Iterator[LoggedMessage] | None = None,
) -> list[GroundTruthEvent]:  # fmt: skip
    """Write what happens as an MCAP bag; PATH.truth.tsv (onset, offset, label) and PATH.faults.tsv (onset, offset,
    sensor, fault) beside it, in seconds from the start. Returns the truth.

    Topics: `/camera/image` rgb8 and `/depth/image` 16UC1 in mm, both with CameraInfo, and `/thermal/image`, mono16 in
    centikelvin unless the plan's camera is another, at `frame_rate` (Hz); `/audio` S16LE in blocks of 0.1 s with
    `/info`; `/imu` at 200 Hz; and the messages of `extra`, which come in order of time.
    The same plan gives the same bytes. Raises `RecordingError` where the bag cannot be written.
    """
    types = RosbagsMessageFactory()
    streams = message_streams(simulate_sensors(plan, frame_rate), types)
    with BagWriter(path, overwrite=overwrite) as bag:
        for logged, topic, type_name, message in merge_by_log_time([*streams, *([extra] if extra else [])]):
            bag.write(topic, type_name, logged, message, latched=topic == AUDIO_INFO_TOPIC)
    truth = plan.truth()
    write_truth(f"{path}.truth.tsv", [(t.onset, t.offset, t.label) for t in truth])
    faults = [(f.onset, min(f.offset, plan.duration), f.sensor, f.canonical_kind) for f in plan.faults]
    if faults:
        write_faults(f"{path}.faults.tsv", faults)
    return truth


@dataclass(frozen=True)
class SimulatedSensorData:
    """What sensors that are all well measure: `images` are (time in s, sensor → pixels), `audio` int16 at 16 kHz,
    `imu` float64 (N, 6) at `imu_times` (N,) in s."""

    plan: SimulatedScenario
    images: Iterable[tuple[float, dict[str, npt.NDArray[Any]]]]
    audio: npt.NDArray[np.int16]
    imu_times: Floats
    imu: Floats


def simulate_sensors(plan: SimulatedScenario, frame_rate: float = FRAME_RATE) -> SimulatedSensorData:
    """What the sensors measure; the pictures come one by one."""
    times = np.arange(0.002, plan.duration, 1 / IMU_RATE)
    frames = (number / frame_rate + 0.013 for number in range(round(plan.duration * frame_rate)))
    return SimulatedSensorData(
        plan, camera_images(plan, frames), synthesize_audio(plan), times, simulate_imu(plan, times)
    )


def message_streams(
    measured: SimulatedSensorData, types: RosbagsMessageFactory, sensors: Sequence[str] = SIMULATED_SENSORS
) -> list[Iterator[LoggedMessage]]:
    """These sensors' messages: what they measured, but for the plan's faults."""
    cameras = [sensor for sensor in sensors if sensor in sensor_faults.CAMERA_MODALITIES]
    streams = [_camera_messages(measured, types, cameras)] if cameras else []
    streams += [_microphone_messages(measured, types)] if "audio" in sensors else []
    return streams + ([_imu_messages(measured, types)] if "imu" in sensors else [])


def camera_images(
    plan: SimulatedScenario, times: Iterable[float]
) -> Iterator[tuple[float, dict[str, npt.NDArray[Any]]]]:
    """What healthy cameras send at `times` (s, in order): uint8 (H, W, 3) colour, uint16 millimetres, and the thermal
    camera's own."""
    noise = plan.noise(11)
    camera = replace(plan.thermal_camera, noise=plan.thermal_camera.noise * plan.noise_scale("thermal"))
    for t in times:
        view = render_cameras(plan, t, noise)
        colour = cv2.resize(view.colour, (2 * RENDER_WIDTH, 2 * RENDER_HEIGHT), interpolation=cv2.INTER_LINEAR)
        millimetres = np.nan_to_num(np.round(view.depth * 1000)).astype(np.uint16)
        thermal = _thermal_image(camera, view.kelvin, noise)
        yield t, {"vision": colour, "depth": millimetres, "thermal": thermal}


def _camera_messages(
    measured: SimulatedSensorData, types: RosbagsMessageFactory, sensors: Sequence[str]
) -> Iterator[LoggedMessage]:
    held: dict[str, npt.NDArray[Any]] = {}
    for t, seen in measured.images:
        for sensor in sensors:
            sent = sensor_faults.image_with_fault(measured.plan.fault_at(sensor, t), sensor, seen, held)
            if sent is None:
                continue
            name, pixels = "camera" if sensor == "vision" else sensor, sent[1]
            stamp = SIMULATION_START + round(t * SECOND)
            if sensor != "thermal":
                size = (pixels.shape[1], pixels.shape[0])
                info = camera_info_message(types, stamp, name, size)
                yield stamp + MESSAGE_DELAY, f"/{name}/camera_info", "sensor_msgs/msg/CameraInfo", info
            message = image_message(types, stamp, name, sensor_faults.image_encoding(sent[0], pixels), pixels)
            yield stamp + MESSAGE_DELAY, f"/{name}/image", "sensor_msgs/msg/Image", message


def _thermal_image(
    camera: ThermalCamera, kelvin: npt.NDArray[np.float32], noise: np.random.Generator
) -> npt.NDArray[Any]:
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


def _microphone_messages(measured: SimulatedSensorData, types: RosbagsMessageFactory) -> Iterator[LoggedMessage]:
    scenario, wave = measured.plan, measured.audio.copy()
    for f in scenario.faults:
        if f.sensor == "audio":
            sensor_faults.apply_audio_fault(
                f.canonical_kind,
                wave,
                round(f.onset * AUDIO_SAMPLE_RATE),
                round(f.offset * AUDIO_SAMPLE_RATE),
                AUDIO_SAMPLE_RATE // 10,
            )
    for logged in microphone_messages(types, wave):
        t = (logged[0] - SIMULATION_START) / SECOND - 0.1
        if logged[1] == AUDIO_INFO_TOPIC or scenario.fault_at("audio", t) != "unplugged":
            yield logged


def _imu_messages(measured: SimulatedSensorData, types: RosbagsMessageFactory) -> Iterator[LoggedMessage]:
    times, values = measured.imu_times, measured.imu.copy()
    keep = np.ones(len(times), bool)
    for f in measured.plan.faults:
        if f.sensor == "imu":
            part = (times >= f.onset) & (times < f.offset)
            sensor_faults.apply_imu_fault(f.canonical_kind, values, part)
            keep &= ~part | (f.canonical_kind != "unplugged")
    return imu_messages(types, times[keep], values[keep])
