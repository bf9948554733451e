"""A faulty or silent sensor is reported within 3 s. A working sensor is not. Other detectors ignore a faulty one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from helpers.scripted_modalities import (
    DOG,
    HOP,
    PROMPTS,
    ROOM,
    SPACE,
    START,
    ScriptedModalities,
    assert_well_formed,
    embed_text,
    play,
    same_scene,
)
from sensebind.fusion.config.detectors import make_detectors
from sensebind.fusion.config.parameters import detector_values
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.core.windows import Window
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.fault import FAULT_CAUSES, FaultDetector, FaultOptions
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.health import checks as health
from sensebind.fusion.health.checks import SensorHealthMonitor, is_looping

RATE = 16_000
SCENES = dict.fromkeys(("vision", "audio", "thermal"), ROOM)
Scenes = Mapping[str, Mapping[str, float]]  # modality → concepts that it perceives


# Symptoms in raw data


def frames(modality: str, images: list[np.ndarray], encoding: str) -> list[Window]:
    """A window of one frame for each image, half a second apart."""
    windows = []
    for number, pixels in enumerate(images):
        tick = START + (number + 1) * HOP
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        frame = Frame(data, encoding, pixels.shape[0], pixels.shape[1], pixels.strides[0])
        windows.append(Window(modality, tick - HOP, tick, 1.0, (Sample(modality, tick - HOP // 5, frame),)))
    return windows


def sounds(wave: np.ndarray, seconds: float = 2.0) -> list[Window]:
    """Windows of `seconds`, half a second apart, with blocks of 0.1 s."""
    step = RATE // 10
    blocks = [
        Sample(AUDIO, START + i * SECOND // 10, Sound(wave[i * step : (i + 1) * step, None], RATE))
        for i in range(len(wave) // step)
    ]
    count, windows = round(seconds * 10), []
    for last in range(count, len(blocks) + 1, 5):
        tick = START + last * SECOND // 10
        windows.append(Window(AUDIO, tick - round(seconds * SECOND), tick, 1.0, tuple(blocks[last - count : last])))
    return windows


def motions(values: np.ndarray, rate: float = 100.0) -> list[Window]:
    """Windows of 5 s, half a second apart."""
    samples = [Sample(IMU, START + round(i * SECOND / rate), Reading(row)) for i, row in enumerate(values)]
    length, step = round(5 * rate), round(rate / 2)
    return [
        Window(IMU, samples[i].stamp, samples[i].stamp + 5 * SECOND, 1.0, tuple(samples[i : i + length]))
        for i in range(0, len(samples) - length + 1, step)
    ]


def symptoms_of(windows: list[Window]) -> list[tuple[str, ...]]:
    monitor = SensorHealthMonitor()
    return [monitor.check(window) for window in windows]


def scene(seed: int, noise: float = 2.0, light: float = 1.0, colour: bool = True) -> np.ndarray:
    """A colour image, uint8 (120, 160, 3), always of the same scene. `seed` is that of the noise."""
    y, x = np.mgrid[:120, :160] / 40
    grey = 110 + 60 * np.sin(2 * x + y) + 40 * np.cos(3 * y)
    tint = np.array([1.0, 0.8, 0.6]) if colour else np.ones(3)
    random = np.random.default_rng(seed)
    grain = noise * random.standard_normal((120, 160, 3 if colour else 1))
    return np.clip(light * grey[..., None] * tint + grain, 0, 255).astype(np.uint8)


def background_sound(seconds: float, level: float = 0.004, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return np.clip(32767 * level * noise, -32768, 32767).astype(np.int16)


def driving_imu(seconds: float, seed: int = 0, rate: float = 100.0) -> np.ndarray:
    """A robot that speeds up, brakes and turns on level ground. float64 (N, 6)."""
    t, random = np.arange(round(seconds * rate)) / rate, np.random.default_rng(seed)
    values = np.zeros((len(t), 6))
    values[:, 0] = 0.8 * np.sin(1.3 * t)
    values[:, 2] = 9.81
    values[:, 5] = 0.9 * np.sin(0.7 * t)
    values[:, :3] += 0.3 * random.standard_normal((len(t), 3))
    values[:, 3:] += 0.01 + 0.02 * random.standard_normal((len(t), 3))
    return values


def depth(seed: int) -> np.ndarray:
    base = 1500 + 900 * np.sin(np.mgrid[:120, :160][1] / 30)
    return (base + 3 * np.random.default_rng(seed).standard_normal(base.shape)).astype(np.uint16)


def kelvin(seed: int, scale: float = 1.0) -> np.ndarray:
    base = scale * (29_400 + 300 * np.sin(np.mgrid[:120, :160][1] / 20))
    return (base + 5 * np.random.default_rng(seed).standard_normal(base.shape)).astype(np.uint16)


def with_clock(image: np.ndarray, number: int) -> np.ndarray:
    """The image with a clock in its corner that shows `number`."""
    image = image.copy()
    image[2:4, 2:6] = 40 + 10 * number
    return image


def test_working_sensors_have_no_symptoms_in_still_dark_loud_or_rough_scenes() -> None:
    ten = range(10)
    assert not any(symptoms_of(frames(VISION, [scene(i) for i in ten], "rgb8"))), "a still scene with noise"
    assert not any(symptoms_of(frames(VISION, [scene(i, light=0.02) for i in ten], "rgb8"))), (
        "a dark scene with structure"
    )
    assert not any(symptoms_of(frames(VISION, [scene(i, colour=False) for i in ten], "mono8"))), "a grey camera"
    assert not any(symptoms_of(frames(DEPTH, [depth(i) for i in ten], "16UC1")))
    assert not any(symptoms_of(frames(THERMAL, [kelvin(i) for i in ten], "mono16")))
    bang = background_sound(8)
    bang[4 * RATE : 4 * RATE + 800] = 32767  # 50 ms at full scale
    assert not any(symptoms_of(sounds(bang)))
    tone = background_sound(8) + (20_000 * np.sin(2 * np.pi * 1000 * np.arange(8 * RATE) / RATE)).astype(np.int16)
    assert not any(symptoms_of(sounds(tone)))
    assert not any(symptoms_of(motions(driving_imu(20))))
    bumps = driving_imu(20)
    bumps[900:910, 2] += 30
    assert not any(symptoms_of(motions(bumps)))


BLACK, FULL = np.zeros((120, 160, 3), np.uint8), np.full((120, 160, 3), 255, np.uint8)
UNPHYSICAL_IMU = np.array([3.0, -2.0, 4.0, 0.2, 0.2, -0.2])


@pytest.mark.parametrize(
    ("windows", "symptom"),
    [
        (frames(VISION, [scene(0)] * 4, "rgb8"), "frozen"),
        (frames(VISION, [with_clock(scene(0), i) for i in range(4)], "rgb8"), "frozen"),
        (frames(DEPTH, [depth(0)] * 4, "16UC1"), "frozen"),
        (frames(VISION, [BLACK] * 4, "rgb8"), "dark"),
        (frames(VISION, [np.random.default_rng(i).integers(0, 3, BLACK.shape).astype(np.uint8) for i in range(4)],
                "bgr8"), "dark"),
        (frames(DEPTH, [np.zeros((9, 9), np.uint16)] * 4, "16UC1"), "dark"),
        (frames(VISION, [FULL] * 4, "rgb8"), "blinded"),
        (frames(THERMAL, [np.full((9, 9), 65535, np.uint16)] * 4, "mono16"), "blinded"),
        (frames(THERMAL, [kelvin(i, 1.5) for i in range(4)], "mono16"), "miscalibrated"),
        (frames(THERMAL, [depth(i) for i in range(4)], "mono16"), "swapped"),
        (frames(DEPTH, [scene(i)[..., 0].astype(np.uint16) for i in range(4)], "16UC1"), "swapped"),
        (sounds(np.zeros(3 * RATE, np.int16)), "muted"),
        (sounds(np.full(3 * RATE, 0.25, np.float32)), "muted"),
        (sounds(np.clip(background_sound(3).astype(int) * 400, -32768, 32767).astype(np.int16)), "saturated"),
        (sounds(np.resize(background_sound(0.13), 3 * RATE)), "frozen"),
        (motions(np.tile(driving_imu(0.01), (700, 1))), "frozen"),
        (motions(np.zeros((700, 6))), "muted"),
        (motions(np.full((700, 6), 156.9)), "saturated"),
        (motions(driving_imu(7)[:, [3, 4, 5, 0, 1, 2]]), "swapped"),
        (motions(driving_imu(7) / [9.81, 9.81, 9.81, 1, 1, 1]), "miscalibrated"),
        (motions(driving_imu(7) * 0.6 + UNPHYSICAL_IMU), "miscalibrated"),
        (frames(VISION, [kelvin(i) for i in range(4)], "mono16"), "swapped"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].modality,
)  # fmt: skip
def test_each_fault_gives_its_symptom_and_no_other(windows: list[Window], symptom: str) -> None:
    assert set(symptoms_of(windows)[1:]) == {(symptom,)}


def test_the_data_that_several_checks_use_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[str]()
    for name in ("_subsample", "_newest_second"):
        make = getattr(health, name)
        monkeypatch.setattr(health, name, lambda x, name=name, make=make: made.update([name]) or make(x))
    assert not any(symptoms_of(frames(VISION, [scene(seed) for seed in range(5)], "rgb8")))
    windows = sounds(background_sound(6))
    assert not any(symptoms_of(windows))
    assert made == {"_subsample": 5, "_newest_second": len(windows)}


@pytest.mark.parametrize("size", [*range(45), 1600, 16001])
def test_peak_and_noise_levels_are_those_of_twenty_parts(size: int) -> None:
    wave = np.random.default_rng(size).standard_normal(size)
    parts = np.array_split(wave, 20)
    level = [10 * np.log10((np.square(p - p.mean()).mean() if p.size else 0.0) + 1e-12) for p in parts]
    assert health.peak_and_noise_levels(wave) == pytest.approx((max(level), max(min(level[:10]), min(level[10:]))))


def test_a_microphone_is_compared_with_its_noise_floor() -> None:
    unplugged = np.concatenate([background_sound(10), background_sound(4, level=0.00002)])
    found = symptoms_of(sounds(unplugged))
    assert not any(found[:17]) and found[-1] == ("muted",)
    assert not any(symptoms_of(sounds(background_sound(10, level=0.00002)))), "a silent room from the start"
    faint = np.concatenate(
        [
            background_sound(10, 0.02),
            (background_sound(4, 0.02) // 300)
            + (background_sound(4, 0.3) // 300) * (np.arange(64_000) % 16_000 > 12_000),
        ]
    )
    assert symptoms_of(sounds(faint.astype(np.int16)))[-1] == ("miscalibrated",)


def test_a_colour_camera_that_turns_grey_is_swapped() -> None:
    grey = [np.repeat(scene(i, colour=False), 3, axis=2) for i in range(20)]
    found = symptoms_of(frames(VISION, [scene(i) for i in range(12)] + grey[12:], "rgb8"))
    assert not any(found[:12]) and set(found[12:]) == {("swapped",)}
    assert not any(symptoms_of(frames(VISION, grey, "rgb8"))), "grey from the start"


def test_a_camera_with_a_new_image_format_is_swapped_until_the_format_becomes_the_baseline() -> None:
    other = [np.ascontiguousarray(scene(i)[::2, ::2]) for i in range(140)]
    found = symptoms_of(frames(VISION, [scene(i) for i in range(12)] + other, "rgb8"))
    assert not any(found[:12]) and set(found[12:130]) == {("swapped",)} and not any(found[-5:])
    assert not any(symptoms_of(frames(VISION, [scene(0), *other[:20]], "rgb8"))), "one image is not a baseline"


def test_a_depth_scale_that_changes_suddenly_is_miscalibrated_until_it_changes_back() -> None:
    scaled = [np.asarray(depth(i) * 1.5, np.uint16) if 5 <= i < 10 else depth(i) for i in range(14)]
    found = symptoms_of(frames(DEPTH, scaled, "16UC1"))
    assert set(found[5:10]) == {("miscalibrated",)} and not any(found[:5] + found[10:])


def test_driving_or_a_wall_in_front_is_not_a_change_of_depth_scale() -> None:
    driven = [np.asarray(depth(i) - 150 * i, np.uint16) for i in range(4)]  # 0.3 m/s towards a scene that is 0.6 m away
    assert not any(symptoms_of(frames(DEPTH, driven, "16UC1")))
    wall = [np.asarray(depth(i) // 40 + 1500 / (1 + (i > 3)), np.uint16) for i in range(8)]
    assert not any(symptoms_of(frames(DEPTH, wall, "16UC1"))), (
        "on a flat wall, a change of scale cannot be distinguished from one of distance"
    )


def test_a_white_balance_fault_is_distinguished_from_a_change_of_light() -> None:
    warm, red = np.array([1.4, 1.0, 0.6]), np.array([1.6, 0.8, 0.6])
    images = [scene(i, light=0.7) for i in range(14)]
    unbalanced = [np.asarray(np.clip(p * warm, 0, 255), np.uint8) if 5 <= i < 10 else p for i, p in enumerate(images)]
    found = symptoms_of(frames(VISION, unbalanced, "rgb8"))
    assert set(found[5:10]) == {("miscalibrated",)} and not any(found[:5] + found[10:])
    spot = np.clip(1 - np.hypot(*np.mgrid[-60:60, -80:80] / 60), 0, 1)[..., None]
    lamp = [np.asarray(np.clip(p * (1 + spot * (red - 1)), 0, 255), np.uint8) if i > 5 else p
            for i, p in enumerate(images)]  # fmt: skip
    assert not any(symptoms_of(frames(VISION, lamp, "rgb8")))
    assert not any(symptoms_of(frames(VISION, [scene(i, light=0.7 if i < 6 else 0.1) for i in range(12)], "rgb8")))


def test_depth_is_checked_in_its_own_unit() -> None:
    centimetres = [depth(i) // 10 for i in range(3)]
    windows = frames(DEPTH, centimetres, "16UC1")
    assert not any(symptoms_of([replace(w, calibration=Calibration(depth_unit=0.01)) for w in windows]))


def test_a_loop_of_any_period_is_found_and_a_tone_is_not_a_loop() -> None:
    noise = np.random.default_rng(0).standard_normal(4000)
    assert is_looping(np.resize(noise[:1111], 4000), 320)
    assert not is_looping(noise, 320) and not is_looping(np.resize(noise[:40], 4000), 320)


# Reports of faults


def run(
    tracker: EventTracker, ticks: int, change: Callable[[str, int, Embedding], Embedding | None], seed: int = 0
) -> list[Event]:
    """Events of `tracker`. `change`: (modality, number of the tick, embedding) → embedding that arrives; None: none."""
    world, events = ScriptedModalities(seed), []
    for number, tick in enumerate(world.ticks(ticks)):
        changed = {m: change(m, number, world.perceive(m, what)) for m, what in SCENES.items()}
        if present := {m: e for m, e in changed.items() if e is not None}:
            events += tracker.step(tick, present)
    return events + tracker.finish()


def fault_tracker(**options: object) -> EventTracker:
    return EventTracker([FaultDetector(FaultOptions(**options))], SPACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", FAULT_CAUSES)
@pytest.mark.parametrize("failing_modality", SCENES)
def test_every_fault_is_reported_within_3_seconds_and_ends_with_its_cause(cause: str, failing_modality: str) -> None:
    def fail(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        if modality != failing_modality or not 40 <= number < 80:
            return embedding
        return None if cause == "unplugged" else replace(embedding, symptoms=(cause,))

    events = run(fault_tracker(), 120, fail)
    assert_well_formed(events)
    assert {(e.kind, e.label) for e in events} == {(EventKind.FAULT, f"fault:{failing_modality}:{cause}")}
    begin, end = START + 41 * HOP, START + 81 * HOP
    assert events[0].phase is EventPhase.ONSET and begin <= events[0].tick <= begin + 3 * SECOND
    assert events[-1].phase is EventPhase.OFFSET and end <= events[-1].offset <= end + SECOND
    assert [e.modality for e in events[0].evidence] == [failing_modality]


def test_a_single_symptom_is_not_a_fault_and_a_flickering_one_is() -> None:
    def once(modality: str, number: int, embedding: Embedding) -> Embedding:
        return replace(embedding, symptoms=("saturated",) if number % 20 == 7 else ())

    assert run(fault_tracker(), 200, once) == []

    def flickering(modality: str, number: int, embedding: Embedding) -> Embedding:
        shown = ("frozen",) if number % 5 else ("muted",)
        return replace(embedding, symptoms=shown if modality == "audio" and number >= 20 else ())

    events = run(fault_tracker(), 100, flickering)
    assert {e.label for e in events} == {"fault:audio:frozen"} and len({e.id for e in events}) == 1


def test_lost_windows_and_a_slow_sensor_are_not_faults_within_an_hour() -> None:
    random = np.random.default_rng(3)

    def lossy(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        if modality == "thermal":
            return embedding if number % 6 == 0 else None  # one in 3 s
        return None if random.random() < 0.02 else embedding

    assert run(fault_tracker(), 7200, lossy) == []


def test_an_expected_sensor_that_never_publishes_is_a_fault() -> None:
    def absent(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        return None if modality == "audio" else embedding

    assert run(fault_tracker(), 20, absent) == []
    events = run(fault_tracker(expected=("audio",)), 20, absent)
    assert events[0].label == "fault:audio:unplugged" and events[0].tick <= START + HOP + 3 * SECOND


@pytest.mark.parametrize("late", [3, 5])
def test_an_expected_sensor_whose_first_windows_come_seconds_later_is_no_fault(late: int) -> None:
    """Drivers start one after another, and long windows fill later than short ones. `late`: ticks after the others."""

    def starting(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        return None if modality == "audio" and number < late else embedding

    assert run(fault_tracker(expected=("audio", "vision")), 60, starting) == []

    def lost_again(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        return None if modality == "audio" and (number < late or number >= 40) else embedding

    events = run(fault_tracker(expected=("audio", "vision")), 60, lost_again)  # its start does not delay later reports
    assert {e.label for e in events} == {"fault:audio:unplugged"}
    assert events[0].tick <= START + 40 * HOP + 3 * SECOND


@pytest.mark.parametrize("returns_after", [0, 3, 8, None])
def test_a_pause_of_all_sensors_is_no_fault_but_one_that_does_not_return_is(returns_after: int | None) -> None:
    """Long windows fill later than short ones after a restart. `returns_after`: ticks after the others; None: never."""

    def pause(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        back = 56 if modality != "audio" else 200 if returns_after is None else 56 + returns_after
        return None if 40 <= number < back else embedding

    events = run(fault_tracker(), 100, pause)
    if returns_after is None:
        assert [e.label for e in events][:1] == ["fault:audio:unplugged"]
        assert events[0].tick <= START + 57 * HOP + 6 * SECOND
    else:
        assert events == []


def test_a_sensor_that_was_unplugged_before_a_pause_stays_so() -> None:
    def pause(modality: str, number: int, embedding: Embedding) -> Embedding | None:
        return (
            None
            if number >= (30 if modality == "audio" else 40) and (number < 56 or modality == "audio")
            else embedding
        )

    events = run(fault_tracker(), 100, pause)
    assert {e.label for e in events} == {"fault:audio:unplugged"} and len({e.id for e in events}) == 1


def test_expected_may_be_all_configured_modalities() -> None:
    values = {**detector_values({}), "detectors": ["fault"], "fault.expected": ["configured"]}
    (detector,) = make_detectors(values, embed_text, {"text": "text", "vision": "vision", "imu": "imu"})
    assert isinstance(detector, FaultDetector) and detector.options.expected == ("imu", "vision")


def test_other_causes_than_the_given_ones_are_not_reported_and_unknown_ones_are_refused() -> None:
    def frozen(modality: str, number: int, embedding: Embedding) -> Embedding:
        return replace(embedding, symptoms=("frozen",))

    assert run(fault_tracker(causes=("dark", "unplugged")), 40, frozen) == []
    with pytest.raises(ValueError, match="causes"):
        FaultOptions(causes=("tired",))
    assert set(SYMPTOMS) < set(FAULT_CAUSES)


# Effects on the other detectors


def run_with_faulty_sensor(
    tracker: EventTracker, world: ScriptedModalities, ticks: int, scenes: Scenes, faulty: str
) -> list[Event]:
    events = []
    for tick in world.ticks(ticks):
        present = {m: world.perceive(m, what) for m, what in scenes.items()}
        present[faulty] = replace(present[faulty], symptoms=("frozen",))
        events += tracker.step(tick, present)
    return events


def test_a_faulty_sensor_gives_no_evidence() -> None:
    tracker, world = EventTracker([PromptDetector(PROMPTS, embed_text)]), ScriptedModalities()
    play(tracker, world, [(40, {"vision": ROOM, "audio": ROOM})])
    assert run_with_faulty_sensor(tracker, world, 20, {"vision": DOG, "audio": ROOM}, "vision") == []
    events = run_with_faulty_sensor(tracker, world, 20, {"vision": ROOM, "audio": DOG}, "vision")
    assert events[0].label == "dog" and [e.modality for e in events[0].evidence] == ["audio"]


def test_a_fault_causes_no_disagreement_and_no_novelty() -> None:
    """Vectors of a frozen or swapped camera differ from those of other sensors. Only the fault is reported."""
    tracker = EventTracker([DisagreementDetector(), NoveltyDetector(), FaultDetector()])
    world = ScriptedModalities()
    play(tracker, world, [(60, same_scene(ROOM))])
    events = run_with_faulty_sensor(
        tracker, world, 20, {"vision": {"forest": 1.0}, "audio": same_scene(ROOM)["audio"]}, "vision"
    )
    assert {e.label for e in events} == {"fault:vision:frozen"}
    events = play(tracker, world, [(20, same_scene(ROOM))])
    assert {e.label for e in events} == {"fault:vision:frozen"} and events[-1].phase is EventPhase.OFFSET
    events = play(tracker, world, [(10, {"vision": ROOM, "audio": {"forest": 1.0, "hum": 0.8}})])
    assert "audio+vision" in {e.label for e in events}, "a disagreement without a fault is still reported"


def imu_of_driving_robot(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 6): readings of an IMU, with bias and noise: acceleration with gravity in m/s², angular velocity in rad/s.

    Every 7.5 s the robot drives 1.4 m forward in 1.3 s, drives back, and turns by 90°. It hits a bump at 18 s.
    """

    def progress(start: float, lasts: float) -> npt.NDArray[np.float64]:  # 0 to 1, smooth at both ends
        s = np.clip((times % 7.5 - start) / lasts, 0, 1)
        return np.asarray(s**3 * (s * (6 * s - 15) + 10))

    step, noise = times[1] - times[0], np.random.default_rng(0)
    values = np.zeros((len(times), 6))
    values[:, 0] = np.gradient(np.gradient(1.4 * (progress(0.2, 1.3) - progress(4.6, 1.3)), step), step)
    values[:, 2] = 9.80665 + 6 * np.exp(-np.abs(times - 18) / 0.05) * np.sin(60 * (times - 18))
    values[:, 5] = np.gradient(np.unwrap(np.pi / 2 * progress(6.0, 1.5), period=np.pi / 2), step)
    bias, grain = np.repeat([0.02, 0.002], 3), np.repeat([0.05, 0.005], 3)
    return np.asarray(values + bias + grain * noise.standard_normal(values.shape))


@pytest.mark.parametrize("length", [2.0, 5.0])
def test_the_imu_of_a_robot_that_speeds_up_and_brakes_has_no_symptoms(length: float) -> None:
    times = np.arange(0, 30, 1 / 200)
    values = imu_of_driving_robot(times)
    assert np.abs(values[:, 0]).max() > 4.0, "the acceleration is too small for this test"
    monitor = SensorHealthMonitor()
    for end in np.arange(length, 30, 0.5):
        inside = np.flatnonzero((times >= end - length) & (times < end))
        samples = tuple(Sample(IMU, START + round(times[i] * SECOND), Reading(values[i])) for i in inside)
        window = Window(IMU, START + round((end - length) * SECOND), START + round(end * SECOND), 1.0, samples)
        assert monitor.check(window) == (), end


def test_readings_whose_length_varies_are_checked() -> None:
    """For example the `ranges` of a laser."""
    values = [np.ones(2 + i % 2) for i in range(20)]
    samples = tuple(Sample("laser", (i + 1) * SECOND // 20, Reading(v)) for i, v in enumerate(values))
    assert SensorHealthMonitor().check(Window("laser", 0, SECOND + 1, 1.0, samples)) == ("frozen",)
