"""Simulated scenarios, and their recording: an MCAP bag with five sensors, and the ground truth beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.atomic import staged
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.ground_truth import write_faults, write_truth
from sensebind.fusion.io.recordings import BagWriter, RecordingError, RosbagsMessageFactory, require_writable_bag
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
RENDER_WIDTH, RENDER_HEIGHT = 160, 120  # pixels of the rendered images; the colour image is enlarged to twice this size
OCCLUDER_DISTANCE = 0.8  # m from the camera to the board that hides the view
OCCLUDER_HALF_SIZE = np.array([0.03, 0.42, 1.2], np.float32)  # m: it hides three quarters of the view
TURN_DURATION = 0.8  # s of the turn when the robot enters or leaves a room
IMPACT_DECAY_TIME = 0.5  # s after which the vibration of an impact has decayed
GROUNDS = {"carpet": (0, 0.02), "wood": (14, 0.08), "tiles": (100, 0.25), "gravel": (20, 0.8)}  # hue; vibration, m/s²
MOTOR_LEVEL = -46.0  # level of the motor noise, dB of full scale


@dataclass(frozen=True, slots=True)
class GroundTruthEvent:
    """An event of the ground truth. `onset` and `offset` in s from the start."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True, slots=True)
class SimulatedEvent:
    """An event from `onset` to `offset` (s), `ahead` and `aside` m from the robot's start position in the room. Only
    `modalities` can detect it. `kind` is a key of `CATALOGUE`, and the default of `label`.

    These replace a property of the kind: `sound`, a name of `synthetic_sounds.SYNTHESIZERS`; `audio_clip`, sound
    float32 (N,) at 16 kHz, with `snr`, its level in dB over the motor noise; `photograph`, uint8 (H, W, 3) on a board;
    `warmth`, kelvin above the room.
    """

    kind: str
    onset: float
    offset: float
    modalities: frozenset[str] = frozenset(SIMULATED_SENSORS)
    ahead: float = 2.2
    aside: float = 0.0
    label: str = ""
    audio_clip: npt.NDArray[np.float32] | None = None
    snr: float | None = None
    in_ground_truth: bool = True  # False for distractors
    photograph: npt.NDArray[np.uint8] | None = None
    warmth: float | None = None
    sound: str = ""

    @property
    def sound_name(self) -> str:
        """The name of its synthetic sound; empty if it has none."""
        return self.sound or catalogue.CATALOGUE[self.kind].sound_name


@dataclass(frozen=True, slots=True)
class ThermalCamera:
    """A thermal camera. `palette`: radiometric (mono16, centikelvin), white-hot, black-hot (both mono8) or iron (rgb8),
    the last three with a gain for each image. `noise`: standard deviation in kelvin. `blur`: standard deviation in
    pixels of a rendered image. `size` (width, height) in pixels."""

    palette: str = "radiometric"
    noise: float = 0.05
    blur: float = 0.0
    size: tuple[int, int] = (160, 120)


@dataclass(frozen=True, slots=True)
class Waypoint:
    """A pose of the robot at time `at` (s): `ahead` and `aside` in m from the start position in the room, `turn` in rad
    to the left."""

    at: float
    ahead: float = 0.0
    aside: float = 0.0
    turn: float = 0.0


@dataclass(frozen=True)
class SimulatedScenario:
    """A scenario of `duration` s.

    `places`: (start in s, ground), one room each, generated from the seed. `dark`: spans (s) without light. `occluded`:
    spans (s) in which a board close to the robot hides most of the view. `motor`: level of the motor noise, dB of full
    scale. `path`: waypoints; the robot moves smoothly between them. `noise_scales`: sensor → factor of its usual noise,
    1 or more.
    """

    duration: float
    places: tuple[tuple[float, str], ...]
    events: tuple[SimulatedEvent, ...]
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    dark: tuple[tuple[float, float], ...] = ()
    thermal_camera: ThermalCamera = field(default_factory=ThermalCamera)
    motor_level: float = MOTOR_LEVEL
    max_furniture: int = 5
    path: tuple[Waypoint, ...] = ()
    occluded: tuple[tuple[float, float], ...] = ()
    noise_scales: Mapping[str, float] = field(default_factory=dict)

    def noise(self, *which: int) -> np.random.Generator:
        """A random generator for each use, so that a change in one use does not change the values of others."""
        return np.random.default_rng([self.seed, *which])

    def truth(self) -> list[GroundTruthEvent]:
        """The events of the ground truth, sorted by onset and label."""
        truth = [
            GroundTruthEvent(event.onset, min(event.offset, self.duration), event.label or event.kind)
            for event in self.events
            if event.in_ground_truth
        ]
        return sorted(truth, key=lambda t: (t.onset, t.label))

    @cached_property
    def rooms(self) -> list[Room]:
        """A room for each place, with free space for robot and events, and with the textures of floor and events."""
        made = []
        for number, (_, ground) in enumerate(self.places):
            noise = self.noise(1, number)
            room = rooms.random_room(noise, self.max_furniture)
            room = replace(room, size=np.maximum(room.size, np.array([5, 5, 2.4], np.float32)))
            x, y = self.start_position(room)
            kept = tuple(
                obj for obj in room.objects
                if obj.centre[0] - obj.half_size[:2].max() > x + 3.2 or abs(obj.centre[1] - y) > 1.3
            )  # fmt: skip
            hue, _ = GROUNDS[ground]
            floor = catalogue.kind_texture(
                catalogue.CatalogueKind("", (), hue=hue, stripe_count=8 if ground == "tiles" else 0), noise
            )
            if ground == "gravel":
                floor = np.asarray(np.clip(floor + noise.normal(0, 40, floor.shape), 0, 255), np.uint8)
            painted = [
                catalogue.kind_texture(catalogue.CATALOGUE[event.kind], noise) if event.photograph is None
                else catalogue.photograph_texture(event.photograph)
                for event in self.events
            ]  # fmt: skip
            patterns = np.concatenate([room.textures, np.stack(painted) if painted else room.textures[:0]])
            patterns[1] = floor
            made.append(replace(room, objects=kept, textures=patterns))
        return made

    @staticmethod
    def start_position(room: Room) -> tuple[float, float]:
        """The start position (x, y) in m: near the middle of a wall, facing the room."""
        return 1.0, float(room.size[1] / 2)

    def room_index(self, t: float) -> int:
        """The index of the place at time `t` (s)."""
        starts = [start for start, _ in self.places]
        return max(0, int(np.searchsorted(starts, t, side="right")) - 1)

    def pose(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """(forward, sideways, yaw) of the robot in m and rad from the start position, at `times` (N,) in s: a turn when
        it enters a room, sway, the path, and a turn when it leaves."""
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
        """(ahead, aside, turn) of the path at `times` (N,) in s, in m and rad. It begins with zeros at time 0."""
        x, y, yaw = (np.zeros(len(times)) for _ in range(3))
        before = Waypoint(0.0)
        for point in self.path:
            fraction = _smootherstep((times - before.at) / max(point.at - before.at, 1e-9))
            x += fraction * (point.ahead - before.ahead)
            y += fraction * (point.aside - before.aside)
            yaw += fraction * (point.turn - before.turn)
            before = point
        return x, y, yaw

    def active_events(self, t: float, modality: str) -> list[tuple[int, SimulatedEvent]]:
        """The events that a modality can detect at time `t` (s): (index, event)."""
        return [
            (number, event) for number, event in enumerate(self.events)
            if event.onset <= t < event.offset
            and modality in event.modalities & catalogue.MODALITIES_OF_KIND.get(event.kind, event.modalities)
        ]  # fmt: skip

    def audible_events(self) -> list[tuple[int, SimulatedEvent]]:
        """All events with sound: (index, event)."""
        return [
            (number, event) for number, event in enumerate(self.events)
            if "audio" in event.modalities and (event.audio_clip is not None or event.sound_name)
        ]  # fmt: skip

    def is_dark(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.dark)

    def is_occluded(self, t: float) -> bool:
        return any(first <= t < last for first, last in self.occluded)

    def noise_scale(self, sensor: str) -> float:
        """Factor of a sensor's usual noise."""
        return float(self.noise_scales.get(sensor, 1.0))

    def fault_at(self, sensor: str, t: float) -> str:
        """The canonical name of a sensor's fault at time `t` (s); empty without a fault."""
        return next((f.canonical_kind for f in self.faults if f.sensor == sensor and f.is_active(t)), "")


def _smootherstep(s: Floats) -> Floats:
    s = np.clip(s, 0, 1)
    return np.asarray(s**3 * (s * (6 * s - 15) + 10))


def _room_with_events(
    scenario: SimulatedScenario, t: float, shown: frozenset[int], eye: npt.NDArray[np.float32], yaw: float
) -> rooms.Room:
    """The room at time `t` (s), with the objects of the events `shown` (indices), the occluder and the light."""
    room = scenario.rooms[scenario.room_index(t)]
    x, y = scenario.start_position(room)
    parts = list(room.objects)
    for number in sorted(shown):
        event = scenario.events[number]
        position, pattern, kind = (
            (x + event.ahead, y + event.aside),
            rooms.ROOM_TEXTURE_COUNT + number,
            catalogue.CATALOGUE[event.kind],
        )
        kind = kind if event.warmth is None else replace(kind, temperature_offset=event.warmth)
        if event.photograph is not None:
            parts.append(catalogue.photograph_board(event.photograph, position, pattern, kind.temperature_offset))
            continue
        turned = scenario.noise(4, number).uniform(-0.5, 0.5)
        parts += catalogue.place_kind(kind, position, turned, pattern, scenario.noise(5, number))
    if scenario.is_occluded(t):
        ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0], np.float32)
        parts.append(rooms.SceneObject("box", eye + OCCLUDER_DISTANCE * ahead, OCCLUDER_HALF_SIZE, yaw, 0, 20.0, 0.0))
    light = 0.02 if scenario.is_dark(t) else 1.0
    return replace(
        room,
        objects=tuple(parts),
        ambient_light=room.ambient_light * light,
        light_intensities=room.light_intensities * light,
    )


def render_cameras(scenario: SimulatedScenario, t: float, noise: np.random.Generator) -> rooms.RenderedView:
    """The images of the three cameras at time `t` (s)."""
    room_index = scenario.room_index(t)
    x, y = scenario.start_position(scenario.rooms[room_index])
    (dx,), (dy,), (yaw,) = scenario.pose(np.array([t]))
    eye = np.array([x + dx, y + dy, 1.15], np.float32)
    pitch = 0.22  # rad, downwards

    views: dict[frozenset[int], rooms.RenderedView] = {}
    shown = {
        modality: frozenset(number for number, _ in scenario.active_events(t, modality))
        for modality in sensor_faults.CAMERA_MODALITIES
    }
    for shown_events in shown.values():
        if shown_events not in views:  # modalities with the same events share a view
            # Exposure and tint do not change within a room.
            steady = np.random.default_rng([scenario.seed, 6, room_index])
            views[shown_events] = rooms.render(
                _room_with_events(scenario, t, shown_events, eye, float(yaw)),
                steady,
                eye,
                yaw,
                pitch,
                FIELD_OF_VIEW,
                RENDER_WIDTH,
                RENDER_HEIGHT,
                noise,
                scenario.noise_scale("depth"),
            )
    colour, depth, thermal = (views[shown[modality]] for modality in sensor_faults.CAMERA_MODALITIES)
    grain = np.rint(scenario.noise_scale("vision") * noise.integers(-4, 5, colour.colour.shape)).astype(np.int16)
    bright = np.clip(colour.colour.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    return rooms.RenderedView(bright, depth.depth, thermal.kelvin)


def synthesize_audio(scenario: SimulatedScenario) -> npt.NDArray[np.int16]:
    """Audio int16 (samples,) at 16 kHz: motor noise, which follows the robot's motion, and the sounds of events."""
    count = round(scenario.duration * AUDIO_SAMPLE_RATE)
    t = np.arange(count) / AUDIO_SAMPLE_RATE
    x, y, yaw = scenario.pose(t[:: AUDIO_SAMPLE_RATE // 50])
    speed = np.abs(np.gradient(x)) + np.abs(np.gradient(y)) + np.abs(np.gradient(yaw))
    speed = np.interp(t, t[:: AUDIO_SAMPLE_RATE // 50], speed * 50)
    noise = scenario.noise(7)
    turns = 2 * np.pi * np.cumsum(70 + 60 * speed) / AUDIO_SAMPLE_RATE
    own = (np.sin(turns) + 0.5 * np.sin(2 * turns) + 0.3 * np.sin(5 * turns)) * (0.3 + speed)
    own = own + 0.5 * synthetic_sounds.band_noise(noise, 60, 5000, scenario.duration)[:count]
    level = 10 ** (scenario.motor_level / 20)
    wave = own / own.std() * level
    if (rough := scenario.noise_scale("audio")) > 1:
        wave = wave + 0.5 * level * np.sqrt(rough**2 - 1) * scenario.noise(12).standard_normal(count)
    for number, event in scenario.audible_events():
        kind, first = catalogue.CATALOGUE[event.kind], round(event.onset * AUDIO_SAMPLE_RATE)
        length = min(round(event.offset * AUDIO_SAMPLE_RATE), count) - first
        if length <= 0:
            continue
        piece = (
            event.audio_clip
            if event.audio_clip is not None
            else _synthetic_sound(event.sound_name, length, scenario.noise(8, number))
        )
        piece = np.asarray(piece[:length], np.float64)
        loud = 10 ** (kind.sound_level / 20) if event.snr is None else level * 10 ** (event.snr / 20)
        piece = piece / (_active_level(piece) + 1e-9) * loud
        fade = min(AUDIO_SAMPLE_RATE // 50, len(piece) // 2)
        if fade:
            piece[:fade] *= np.linspace(0, 1, fade)
            piece[-fade:] *= np.linspace(1, 0, fade)
        wave[first : first + len(piece)] += piece
    return np.asarray(np.clip(wave, -1, 1) * 32767, np.int16)


def _active_level(piece: Floats) -> float:
    """The level of a sound without its pauses: the 90th percentile of the levels of blocks of 50 ms."""
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


def simulate_imu(scenario: SimulatedScenario, times: Floats) -> Floats:
    """IMU readings (N, 6) at `times` (N,) in s: acceleration with gravity (m/s²), angular velocity (rad/s)."""
    step, noise = 0.002, scenario.noise(9)
    before, now, after = (scenario.pose(times + d) for d in (-step, 0, step))
    values = np.zeros((len(times), 6))
    for column in (0, 1):
        values[:, column] = np.clip((after[column] - 2 * now[column] + before[column]) / step**2, -3, 3)
    if scenario.path:  # into the robot's frame
        cos, sin = np.cos(now[2]), np.sin(now[2])
        values[:, 0], values[:, 1] = cos * values[:, 0] + sin * values[:, 1], cos * values[:, 1] - sin * values[:, 0]
    values[:, 2] = GRAVITY
    values[:, 5] = np.clip((after[2] - before[2]) / (2 * step), -3, 3)
    speed = np.clip(np.abs(after[0] - before[0]) / (2 * step), 0, 0.6)  # limited, because the pose jumps between rooms
    ground = np.array([GROUNDS[g][1] for _, g in scenario.places])[[scenario.room_index(t) for t in times]]
    values[:, :3] += (ground * (0.3 + 3 * speed))[:, None] * noise.standard_normal((len(times), 3))
    for number, event in enumerate(scenario.events):
        rate, strength = catalogue.CATALOGUE[event.kind].floor_vibration
        if not strength or "imu" not in event.modalities:
            continue
        during = (times >= event.onset) & (times < event.offset)
        since, own = times[during] - event.onset, scenario.noise(10, number)
        rate *= own.uniform(0.95, 1.05)
        if rate < 5:  # impacts, each with a vibration that decays
            shake = np.exp(-(since * rate % 1) / rate / 0.05) * np.sin(2 * np.pi * 22 * since)
        elif event.kind in ("bump", "fall"):
            shake = np.exp(-since / (IMPACT_DECAY_TIME / 4)) * np.sin(2 * np.pi * rate * since)
        else:
            shake = np.sin(2 * np.pi * rate * since) + 0.4 * np.sin(4 * np.pi * rate * since + 1)
        values[during, :3] += strength * shake[:, None] * own.uniform(0.3, 1.0, 3)
    rough = scenario.noise_scale("imu")
    values[:, :3] += 0.02 + 0.04 * rough * noise.standard_normal((len(times), 3))
    values[:, 3:] += 0.002 + 0.004 * rough * noise.standard_normal((len(times), 3))
    return values


def record(
    scenario: SimulatedScenario, path: str | Path, *, overwrite: bool = False, frame_rate: float = FRAME_RATE,
    extra: Iterator[LoggedMessage] | None = None, progress: Callable[[float], None] = lambda seconds: None,
) -> list[GroundTruthEvent]:  # fmt: skip
    """Simulate a scenario and write an MCAP bag, PATH.truth.tsv (onset, offset, label) and, if a sensor fails,
    PATH.faults.tsv (onset, offset, sensor, fault), with times in s from the start. Returns the truth.

    Topics: `/camera/image` rgb8 and `/depth/image` 16UC1 in mm, both with CameraInfo, and `/thermal/image`, mono16 in
    centikelvin unless the thermal camera has another palette, at `frame_rate` (Hz); `/audio` S16LE in blocks of 0.1 s
    with `/info`; `/imu` at 200 Hz; and the messages of `extra`, sorted by log time.
    The same scenario gives the same bytes. The files appear when all are complete. `progress` is called with the
    seconds that are simulated so far. Raises `RecordingError` if the bag cannot be written.
    """
    types = RosbagsMessageFactory()
    streams = message_streams(simulate_sensors(scenario, frame_rate), types)
    require_writable_bag(path, overwrite=overwrite)
    is_new = not Path(path).exists()
    for file in (Path(f"{path}.truth.tsv"), Path(f"{path}.faults.tsv")):
        if is_new and file.exists():  # nobody asked to replace it: it may be a truth that a person wrote
            raise RecordingError(f"'{file}' exists, but no bag '{path}': name another bag, or move the file away")
    truth, path = scenario.truth(), Path(path)
    faults = [(f.onset, min(f.offset, scenario.duration), f.sensor, f.canonical_kind) for f in scenario.faults]
    with staged(path.parent) as folder:
        with BagWriter(folder / path.name) as bag:
            for logged, topic, type_name, message in merge_by_log_time([*streams, *([extra] if extra else [])]):
                progress((logged - SIMULATION_START) / SECOND)
                bag.write(topic, type_name, logged, message, latched=topic == AUDIO_INFO_TOPIC)
        write_truth(folder / f"{path.name}.truth.tsv", [(t.onset, t.offset, t.label) for t in truth])
        if faults:
            write_faults(folder / f"{path.name}.faults.tsv", faults)
    if not faults:
        Path(f"{path}.faults.tsv").unlink(missing_ok=True)  # of a bag that was overwritten
    return truth


@dataclass(frozen=True)
class SimulatedSensorData:
    """The data of all sensors without faults: `images` are (time in s, sensor → pixels), `audio` int16 at 16 kHz,
    `imu` float64 (N, 6) at `imu_times` (N,) in s."""

    plan: SimulatedScenario
    images: Iterable[tuple[float, dict[str, npt.NDArray[Any]]]]
    audio: npt.NDArray[np.int16]
    imu_times: Floats
    imu: Floats


def simulate_sensors(scenario: SimulatedScenario, frame_rate: float = FRAME_RATE) -> SimulatedSensorData:
    """The data of all sensors without faults. Images are rendered one by one while they are iterated."""
    times = np.arange(0.002, scenario.duration, 1 / IMU_RATE)
    frames = (number / frame_rate + 0.013 for number in range(round(scenario.duration * frame_rate)))
    return SimulatedSensorData(
        scenario, camera_images(scenario, frames), synthesize_audio(scenario), times, simulate_imu(scenario, times)
    )


def message_streams(
    measured: SimulatedSensorData, types: RosbagsMessageFactory, sensors: Sequence[str] = SIMULATED_SENSORS
) -> list[Iterator[LoggedMessage]]:
    """The messages of these sensors, with the faults of the scenario."""
    cameras = [sensor for sensor in sensors if sensor in sensor_faults.CAMERA_MODALITIES]
    streams = [_camera_messages(measured, types, cameras)] if cameras else []
    streams += [_microphone_messages(measured, types)] if "audio" in sensors else []
    return streams + ([_imu_messages(measured, types)] if "imu" in sensors else [])


def camera_images(
    scenario: SimulatedScenario, times: Iterable[float]
) -> Iterator[tuple[float, dict[str, npt.NDArray[Any]]]]:
    """Images of cameras without faults at `times` (s, ascending): (time, sensor → pixels). Colour uint8 (H, W, 3),
    depth uint16 (H, W) in mm with 0 for no reading, thermal in the format of the thermal camera."""
    noise = scenario.noise(11)
    camera = replace(scenario.thermal_camera, noise=scenario.thermal_camera.noise * scenario.noise_scale("thermal"))
    for t in times:
        view = render_cameras(scenario, t, noise)
        colour = cv2.resize(view.colour, (2 * RENDER_WIDTH, 2 * RENDER_HEIGHT), interpolation=cv2.INTER_LINEAR)
        millimetres = np.nan_to_num(np.round(view.depth * 1000)).astype(np.uint16)
        thermal = _thermal_image(camera, view.kelvin, noise)
        yield t, {"vision": colour, "depth": millimetres, "thermal": thermal}


def _camera_messages(
    measured: SimulatedSensorData, types: RosbagsMessageFactory, sensors: Sequence[str]
) -> Iterator[LoggedMessage]:
    frozen_images: dict[str, npt.NDArray[Any]] = {}
    for t, images in measured.images:
        for sensor in sensors:
            sent = sensor_faults.image_with_fault(measured.plan.fault_at(sensor, t), sensor, images, frozen_images)
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
    image = cv2.GaussianBlur(kelvin, (0, 0), camera.blur) if camera.blur else kelvin
    image = cv2.resize(image, camera.size, interpolation=cv2.INTER_AREA)
    image = image + camera.noise * noise.standard_normal(image.shape)
    if camera.palette == "radiometric":
        return np.asarray(np.round(100 * image), np.uint16)
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.asarray(np.clip((image - low) / max(high - low, 2.0), 0, 1) * 255, np.uint8)
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
