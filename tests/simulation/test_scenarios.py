"""Scenarios: reproducible bytes, the simulated events and faults, and errors that name the wrong entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import ROOT
from sensebind.cli import main
from sensebind.fusion.io.recordings import Recording
from sensebind.simulation import catalogue, scenario
from sensebind.simulation.messages import FIELD_OF_VIEW, SIMULATION_START
from sensebind.simulation.recorder import (
    SimulatedScenario,
    render_cameras,
    simulate_imu,
    simulate_sensors,
    synthesize_audio,
)
from sensebind.simulation.scenario import ScenarioError
from sensebind.simulation.sensor_faults import FAULTS, SIMULATED_SENSORS
from sensebind.simulation.survey import survey_scenario

SCENARIOS = ROOT / "config" / "scenarios"


def parse(content: dict[str, Any], seed: int = 0) -> SimulatedScenario:
    return scenario.parse_scenario({"duration": 20, **content}, "s.yaml", seed)


def simulate(tmp_path: Path, content: dict[str, Any], name: str = "bag", seed: int = 0) -> Path:
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    bag = tmp_path / name
    assert main(["simulate", "--scenario", str(file), "--seed", str(seed), "-o", str(bag)]) == 0
    return bag


def mcap_bytes(bag: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(bag.rglob("*.mcap")))


def test_equal_scenario_and_seed_give_equal_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    content = {"duration": 2, "events": [{"type": "dog", "at": 0.5, "for": 1}]}
    one, again, other = (simulate(tmp_path / name, content, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert mcap_bytes(one) == mcap_bytes(again) != mcap_bytes(other)


def test_the_truth_beside_the_bag_has_the_format_of_dcase(tmp_path: Path) -> None:
    content = {
        "duration": 3,
        "events": [{"type": "cat", "at": 1, "for": 9}, {"type": "knock", "at": 0.25, "for": 0.5}],
        "distractors": [{"type": "radio", "at": 0}],
        "faults": [{"sensor": "depth", "fault": "unplugged", "at": 1, "for": 1}],
    }
    bag = simulate(tmp_path, content)
    assert Path(f"{bag}.truth.tsv").read_text() == (
        "onset\toffset\tlabel\n0.250\t0.750\tknock\n1.000\t3.000\tcat\n"  # without the distractor, cut at the end
    )
    assert Path(f"{bag}.faults.tsv").read_text() == "onset\toffset\tsensor\tfault\n1.000\t2.000\tdepth\tunplugged\n"
    with Recording(bag) as recording:
        stamps = [t - SIMULATION_START for _, _, t, _ in recording.messages(["/depth/image"])]
    assert len(stamps) == 20 and not [t for t in stamps if 1.02e9 < t < 1.98e9]


def test_a_warm_object_is_visible_and_warm_during_its_event_only() -> None:
    plan, noise = parse({"events": [{"type": "fire", "at": 5, "for": 5, "aside": 0}]}), np.random.default_rng(0)
    before, during = (render_cameras(plan, t, noise) for t in (4.5, 7.0))
    assert during.kelvin.max() > before.kelvin.max() + 100
    assert np.abs(during.colour.astype(int) - before.colour).mean() > 1


def test_only_the_thermal_camera_shows_a_hot_spot() -> None:
    plans = parse({"events": [{"type": "hot_spot", "at": 5, "for": 5}]}), parse({})
    with_spot, without = (render_cameras(plan, 7.0, np.random.default_rng(0)) for plan in plans)
    assert with_spot.kelvin.max() > without.kelvin.max() + 30
    assert np.array_equal(np.nan_to_num(with_spot.depth), np.nan_to_num(without.depth))


def test_a_sound_is_in_the_audio_and_a_bump_in_the_imu_readings_during_their_events() -> None:
    plan = parse({"events": [{"type": "alarm", "at": 5, "for": 3}, {"type": "bump", "at": 12}]})
    wave = synthesize_audio(plan).astype(float)
    level = [wave[round(t * 16_000) : round((t + 2) * 16_000)].std() for t in (2, 5.5)]
    assert level[1] > 3 * level[0]
    readings = simulate_imu(plan, np.arange(0, 20, 0.005))[:, :3]
    assert readings[2400:2500].std(axis=0).max() > 5 * readings[1000:2300].std(axis=0).max()


def test_a_photograph_is_upright_in_front_of_the_robot_with_its_colours_and_warmth(tmp_path: Path) -> None:
    quarters = np.zeros((60, 90, 3), np.uint8)
    quarters[:30, :45], quarters[:30, 45:], quarters[30:, :45] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    cv2.imwrite(str(tmp_path / "mine.png"), quarters[..., ::-1])
    entry = {"type": "picture", "at": 5, "ahead": 2.4, "aside": 0, "photograph": "mine.png", "warmth": 40, "label": "x"}
    plan = scenario.parse_scenario({"duration": 20, "events": [entry]}, "s.yaml", 0, folder=tmp_path)
    (dx,), (dy,), (yaw,) = plan.pose(np.array([7.0]))
    view = render_cameras(plan, 7.0, np.random.default_rng(0))
    focal = 80 / np.tan(FIELD_OF_VIEW / 2)

    def pixel(left: float, up: float) -> tuple[int, int]:
        """(row, column) of a point on the board, in m from its centre."""
        x, y, z = 2.39 - dx, left - dy, 0.85 + up - 1.15
        ahead, aside = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
        along, down = ahead * np.cos(0.22) - z * np.sin(0.22), -ahead * np.sin(0.22) - z * np.cos(0.22)
        return round(59.5 + focal * down / along), round(79.5 - focal * aside / along)

    corners = [(0.6, 0.5), (-0.6, 0.5), (0.6, -0.5), (-0.6, -0.5)]
    upper_left, upper_right, lower_left, lower_right = (view.colour[pixel(*at)].astype(int) for at in corners)
    assert upper_left.argmax() == 0 and upper_right.argmax() == 1 and lower_left.argmax() == 2
    assert lower_right.max() < 40 and min(upper_left.max(), upper_right.max(), lower_left.max()) > 60
    spots = [view.kelvin[pixel(left, 0.6)] for left in (1.1, -1.1, 1.35)]  # 2.4 m wide: its aspect ratio is kept
    assert min(spots[:2]) > spots[2] + 30
    assert [t.label for t in plan.truth()] == ["x"]


def test_warmth_replaces_the_temperature_offset_of_the_kind() -> None:
    content = {"type": "person", "at": 4, "for": 8, "aside": 0}
    entries = (content, content | {"warmth": 90})
    usual, hot = (render_cameras(parse({"events": [entry]}), 6.0, np.random.default_rng(0)) for entry in entries)
    assert hot.kelvin.max() - usual.kelvin.max() == pytest.approx(
        90 - catalogue.CATALOGUE["person"].temperature_offset, abs=10
    )
    assert np.array_equal(hot.colour, usual.colour)


def test_an_occluder_hides_an_object_from_the_cameras_and_not_from_the_microphone() -> None:
    content = {"events": [{"type": "fire", "at": 4, "for": 12, "aside": 0}]}
    free, hidden = parse(content), parse({**content, "occluded": [[8, 10]]})
    before, covered, after = (render_cameras(hidden, t, np.random.default_rng(0)) for t in (7.0, 9.0, 11.0))
    warm = [np.count_nonzero(view.kelvin > view.kelvin.min() + 100) for view in (before, covered, after)]
    assert warm[0] > 500 and warm[2] > 500 and warm[1] < 0.1 * warm[0]
    assert np.nanmedian(covered.depth[40:80, 60:100]) < 0.9 < np.nanmedian(before.depth[40:80, 60:100])
    assert np.array_equal(synthesize_audio(free), synthesize_audio(hidden)) and free.truth() == hidden.truth()


def test_a_camera_that_cannot_detect_an_object_shows_the_room_behind_it() -> None:
    content = {"type": "obstacle", "at": 4, "for": 8, "aside": 0}
    views = [render_cameras(parse({"events": [{**content, "modalities": modalities}]}), 6.0, np.random.default_rng(0))
             for modalities in ([], ["depth"], ["vision"])]  # fmt: skip
    depths, colours = [np.nan_to_num(v.depth) for v in views], [v.colour.astype(int) for v in views]
    assert np.abs(depths[1] - depths[0]).mean() > 0.3 and np.abs(depths[2] - depths[0]).mean() < 0.05
    assert np.abs(colours[2] - colours[0]).mean() > 5 and np.abs(colours[1] - colours[0]).mean() < 5


def test_a_path_changes_the_position_the_depth_and_the_yaw_rate() -> None:
    plan = parse({"path": [{"at": 5}, {"at": 10, "ahead": 1.5}, {"at": 15, "ahead": 1.5, "turn": 90}]})
    ahead, aside, turn = plan.path_offset(np.array([4.0, 10.0, 16.0]))
    assert ahead.tolist() == [0.0, 1.5, 1.5] and not aside.any() and turn[2] == pytest.approx(np.pi / 2)
    far, near = (np.nanmedian(render_cameras(plan, t, np.random.default_rng(0)).depth[:60]) for t in (4.5, 10.0))
    assert near < far - 0.8
    times = np.arange(0, 20, 0.005)
    turned = np.trapezoid(simulate_imu(plan, times)[:, 5] - simulate_imu(parse({}), times)[:, 5], times)
    assert turned == pytest.approx(np.pi / 2, abs=0.1)


@pytest.mark.parametrize("sensor", SIMULATED_SENSORS)
def test_noise_of_one_sensor_does_not_change_the_others(sensor: str) -> None:
    def noise_levels(plan: SimulatedScenario) -> dict[str, float]:
        # Two images, 1 ms apart.
        (_, a), (_, b) = (p for _, p in zip(range(2), simulate_sensors(plan, 1000.0).images, strict=False))
        found = {s: float(np.diff(np.stack([a[s], b[s]]).astype(float), axis=0).std()) for s in a}
        wave = synthesize_audio(plan).astype(float)
        return {**found, "audio": float(np.diff(wave).std()), "imu": float(simulate_imu(plan, times)[:, 3].std())}

    times = np.arange(0, 2, 0.005)
    before, after = noise_levels(parse({"duration": 2})), noise_levels(parse({"duration": 2, "noise": {sensor: 4}}))
    assert after[sensor] > 1.5 * before[sensor]
    assert all(after[s] < 1.2 * before[s] for s in SIMULATED_SENSORS if s != sensor)


def test_a_shorter_duration_drops_later_events_and_faults() -> None:
    content = {"duration": 60, "events": [{"type": "dog", "at": 5}, {"type": "cat", "at": 50}],
            "faults": [{"sensor": "imu", "fault": "muted", "at": 40}]}  # fmt: skip
    plan = scenario.parse_scenario(content, "s.yaml", 0, 20.0)
    assert plan.duration == 20 and [t.label for t in plan.truth()] == ["dog"] and plan.faults == ()


def test_darkness_affects_the_colour_camera_and_not_depth() -> None:
    plan, noise = parse({"dark": [[5, 10]]}), np.random.default_rng(0)
    light, dark = render_cameras(plan, 4.0, noise), render_cameras(plan, 7.0, noise)
    assert dark.colour.mean() < 0.25 * light.colour.mean()
    assert np.isfinite(dark.depth).mean() > 0.5


@pytest.mark.parametrize(
    ("sensor", "fault"),
    [
        ("vision", "frozen"), ("vision", "dark"), ("depth", "swapped"), ("thermal", "miscalibrated"),
        ("thermal", "blinded"), ("audio", "saturated"), ("audio", "muted"), ("imu", "unplugged"), ("imu", "frozen"),
    ],
)  # fmt: skip
def test_a_faulty_sensor_records_the_data_of_its_fault(tmp_path: Path, sensor: str, fault: str) -> None:
    assert sensor in SIMULATED_SENSORS and fault in FAULTS
    topic = {"vision": "/camera/image", "depth": "/depth/image", "thermal": "/thermal/image"}.get(sensor, f"/{sensor}")
    bag = simulate(tmp_path, {"duration": 1.2, "faults": [{"sensor": sensor, "fault": fault, "at": 0.6}]})
    with Recording(bag) as recording:
        messages = [(t, m) for _, _, t, m in recording.messages([topic])]
    late = [m for t, m in messages if t > SIMULATION_START + 0.75e9]
    if fault == "unplugged":
        assert not late and messages
        return
    assert late
    if fault == "frozen" and sensor == "vision":
        assert len({bytes(m.data) for m in late}) == 1
    if fault in ("dark", "muted") and sensor in ("vision", "audio"):
        data = late[-1].data if sensor == "vision" else late[-1].audio.data
        assert not np.asarray(data).any()


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"event": []}, "event"),
        ({"events": [{"type": "dragon", "at": 1}]}, "dragon"),
        ({"events": [{"type": "dog"}]}, "at"),
        ({"events": [{"type": "dog", "at": 99}]}, "at"),
        ({"events": [{"type": "dog", "at": 1, "modalities": ["taste"]}]}, "taste"),
        ({"faults": [{"sensor": "depth", "fault": "bored", "at": 1}]}, "bored"),
        ({"ground": "lava"}, "lava"),
        ({"duration": "long"}, "duration"),
        ({"thermal_camera": {"palette": "pink"}}, "pink"),
        ({"clips": {"folder": "absent"}}, "absent"),
        ({"occluded": [3, 4]}, "occluded"),
        ({"dark": [["now", "then"]]}, "dark"),
        ({"noise": {"vision": "much"}}, "vision"),
        ({"noise": {"nose": 2}}, "nose"),
        ({"path": [{"at": 5}, {"at": 5, "ahead": 1}]}, "at"),
        ({"path": [{"at": 5, "ahead": 100}]}, "ahead"),
        ({"events": [{"type": "picture", "at": 1, "photograph": "nobody.png"}]}, "nobody.png"),
        ({"events": [{"type": "dog", "at": 1, "photograph": "chelsea.png"}]}, "only for type"),
        ({"events": [{"type": "dog", "at": 1, "warmth": "hot"}]}, "warmth"),
    ],
)
def test_an_error_names_the_file_and_the_wrong_entry(entries: dict[str, Any], word: str) -> None:
    with pytest.raises(ScenarioError, match=word) as error:
        parse(entries)
    assert "s.yaml" in str(error.value)


@given(rate=st.floats(0, 6), seed=st.integers(0, 50))
def test_random_events_do_not_overlap_and_lie_in_the_recording(rate: float, seed: int) -> None:
    truth = sorted(parse({"duration": 60, "events": [{"type": "dog", "rate": rate, "for": 2}]}, seed).truth(),
                   key=lambda t: t.onset)  # fmt: skip
    assert all(0 <= t.onset < t.offset <= 60 for t in truth)
    assert all(a.offset < b.onset for a, b in zip(truth, truth[1:], strict=False))


@pytest.mark.parametrize("name", ["house", "faults", "corridor"])
def test_shipped_scenarios_are_valid(name: str) -> None:
    plan = scenario.read_scenario(SCENARIOS / f"{name}.yaml")
    assert plan.duration >= 90
    assert {event.label for event in plan.events} <= set(catalogue.CATALOGUE)


def test_a_sound_file_has_the_label_of_its_folder(shared: Path) -> None:
    content = {"duration": 60, "clips": {"folder": str(shared / "evaluation" / "esc10"), "every": 6, "snr": 10}}
    plan = parse(content)
    assert len(plan.events) >= 3 and {event.label for event in plan.events} <= {
        "Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick", "Person sneeze", "Helicopter", "Chainsaw", "Rooster",
        "Fire crackling",
    }  # fmt: skip


def test_a_survey_has_every_kind_and_another_seed_another_order() -> None:
    one, other = survey_scenario(0), survey_scenario(1_000_000)
    assert {event.kind for event in one.events} == set(catalogue.SURVEY_KINDS)
    assert [event.kind for event in one.events] != [event.kind for event in other.events]
