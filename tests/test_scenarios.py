"""Scenarios: the same seed gives the same bytes, what is told happens, and a wrong entry is told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

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
from sensebind.simulation.survey import tour

SCENARIOS = Path(__file__).parents[1] / "config" / "scenarios"


def parse(told: dict[str, Any], seed: int = 0) -> SimulatedScenario:
    return scenario.parse_scenario({"duration": 20, **told}, "s.yaml", seed)


def simulate(tmp_path: Path, told: dict[str, Any], name: str = "bag", seed: int = 0) -> Path:
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(told))
    bag = tmp_path / name
    assert main(["simulate", "--scenario", str(file), "--seed", str(seed), "-o", str(bag)]) == 0
    return bag


def content(bag: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(bag.rglob("*.mcap")))


def test_the_same_scenario_and_seed_give_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    told = {"duration": 2, "events": [{"type": "dog", "at": 0.5, "for": 1}]}
    one, again, other = (simulate(tmp_path / name, told, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert content(one) == content(again) != content(other)


def test_the_truth_beside_the_bag_is_in_dcases_form(tmp_path: Path) -> None:
    told = {
        "duration": 3,
        "events": [{"type": "cat", "at": 1, "for": 9}, {"type": "knock", "at": 0.25, "for": 0.5}],
        "distractors": [{"type": "radio", "at": 0}],
        "faults": [{"sensor": "depth", "fault": "unplugged", "at": 1, "for": 1}],
    }
    bag = simulate(tmp_path, told)
    assert Path(f"{bag}.truth.tsv").read_text() == (
        "onset\toffset\tlabel\n0.250\t0.750\tknock\n1.000\t3.000\tcat\n"  # no distractor, nothing beyond the end
    )
    assert Path(f"{bag}.faults.tsv").read_text() == "onset\toffset\tsensor\tfault\n1.000\t2.000\tdepth\tunplugged\n"
    with Recording(bag) as recording:
        stamps = [t - SIMULATION_START for _, _, t, _ in recording.messages(["/depth/image"])]
    assert len(stamps) == 20 and not [t for t in stamps if 1.02e9 < t < 1.98e9]


def test_what_is_warm_is_seen_warm_while_it_is_there_and_not_before() -> None:
    plan, noise = parse({"events": [{"type": "fire", "at": 5, "for": 5, "aside": 0}]}), np.random.default_rng(0)
    before, during = (render_cameras(plan, t, noise) for t in (4.5, 7.0))
    assert during.kelvin.max() > before.kelvin.max() + 100
    assert np.abs(during.colour.astype(int) - before.colour).mean() > 1


def test_heat_behind_a_wall_is_for_the_thermal_camera_alone() -> None:
    plan, noise = parse({"events": [{"type": "hot_spot", "at": 5, "for": 5}]}), np.random.default_rng(0)
    free = parse({})
    with_spot, without = (render_cameras(p, 7.0, np.random.default_rng(0)) for p in (plan, free))
    assert with_spot.kelvin.max() > without.kelvin.max() + 30
    assert np.array_equal(np.nan_to_num(with_spot.depth), np.nan_to_num(without.depth))
    del noise


def test_a_sound_is_heard_and_a_bump_is_felt_when_the_truth_says() -> None:
    plan = parse({"events": [{"type": "alarm", "at": 5, "for": 3}, {"type": "bump", "at": 12}]})
    wave = synthesize_audio(plan).astype(float)
    level = [wave[round(t * 16_000) : round((t + 2) * 16_000)].std() for t in (2, 5.5)]
    assert level[1] > 3 * level[0]
    felt = simulate_imu(plan, np.arange(0, 20, 0.005))[:, :3]
    assert felt[2400:2500].std(axis=0).max() > 5 * felt[1000:2300].std(axis=0).max()


def test_a_photograph_stands_upright_before_the_robot_with_its_colours_and_its_warmth(tmp_path: Path) -> None:
    quarters = np.zeros((60, 90, 3), np.uint8)
    quarters[:30, :45], quarters[:30, 45:], quarters[30:, :45] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    cv2.imwrite(str(tmp_path / "mine.png"), quarters[..., ::-1])
    entry = {"type": "picture", "at": 5, "ahead": 2.4, "aside": 0, "photograph": "mine.png", "warmth": 40, "label": "x"}
    plan = scenario.parse_scenario({"duration": 20, "events": [entry]}, "s.yaml", 0, folder=tmp_path)
    (dx,), (dy,), (yaw,) = plan.pose(np.array([7.0]))
    view = render_cameras(plan, 7.0, np.random.default_rng(0))
    focal = 80 / np.tan(FIELD_OF_VIEW / 2)

    def shown(left: float, up: float) -> tuple[int, int]:
        """(row, column) of a place on the board, in m from its middle."""
        x, y, z = 2.39 - dx, left - dy, 0.85 + up - 1.15
        ahead, aside = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
        along, down = ahead * np.cos(0.22) - z * np.sin(0.22), -ahead * np.sin(0.22) - z * np.cos(0.22)
        return round(59.5 + focal * down / along), round(79.5 - focal * aside / along)

    corners = [(0.6, 0.5), (-0.6, 0.5), (0.6, -0.5), (-0.6, -0.5)]
    upper_left, upper_right, lower_left, lower_right = (view.colour[shown(*at)].astype(int) for at in corners)
    assert upper_left.argmax() == 0 and upper_right.argmax() == 1 and lower_left.argmax() == 2
    assert lower_right.max() < 40 and min(upper_left.max(), upper_right.max(), lower_left.max()) > 60
    spots = [view.kelvin[shown(left, 0.6)] for left in (1.1, -1.1, 1.35)]  # 2.4 m wide: its aspect ratio is kept
    assert min(spots[:2]) > spots[2] + 30
    assert [t.label for t in plan.truth()] == ["x"]


def test_warmth_takes_the_place_of_a_kinds_own() -> None:
    told = {"type": "person", "at": 4, "for": 8, "aside": 0}
    entries = (told, told | {"warmth": 90})
    usual, hot = (render_cameras(parse({"events": [entry]}), 6.0, np.random.default_rng(0)) for entry in entries)
    assert hot.kelvin.max() - usual.kelvin.max() == pytest.approx(
        90 - catalogue.CATALOGUE["person"].temperature_offset, abs=10
    )
    assert np.array_equal(hot.colour, usual.colour)


def test_what_stands_before_the_robot_hides_a_thing_from_its_cameras_and_not_from_its_microphone() -> None:
    told = {"events": [{"type": "fire", "at": 4, "for": 12, "aside": 0}]}
    free, hidden = parse(told), parse({**told, "occluded": [[8, 10]]})
    seen, covered, after = (render_cameras(hidden, t, np.random.default_rng(0)) for t in (7.0, 9.0, 11.0))
    warm = [np.count_nonzero(view.kelvin > view.kelvin.min() + 100) for view in (seen, covered, after)]
    assert warm[0] > 500 and warm[2] > 500 and warm[1] < 0.1 * warm[0]
    assert np.nanmedian(covered.depth[40:80, 60:100]) < 0.9 < np.nanmedian(seen.depth[40:80, 60:100])
    assert np.array_equal(synthesize_audio(free), synthesize_audio(hidden)) and free.truth() == hidden.truth()


def test_a_sense_that_does_not_perceive_a_thing_shows_the_room_behind_it() -> None:
    told = {"type": "obstacle", "at": 4, "for": 8, "aside": 0}
    views = [render_cameras(parse({"events": [{**told, "senses": senses}]}), 6.0, np.random.default_rng(0))
             for senses in ([], ["depth"], ["vision"])]  # fmt: skip
    depths, colours = [np.nan_to_num(v.depth) for v in views], [v.colour.astype(int) for v in views]
    assert np.abs(depths[1] - depths[0]).mean() > 0.3 and np.abs(depths[2] - depths[0]).mean() < 0.05
    assert np.abs(colours[2] - colours[0]).mean() > 5 and np.abs(colours[1] - colours[0]).mean() < 5


def test_a_robot_drives_its_path_sees_the_wall_come_nearer_and_feels_its_turn() -> None:
    plan = parse({"path": [{"at": 5}, {"at": 10, "ahead": 1.5}, {"at": 15, "ahead": 1.5, "turn": 90}]})
    ahead, aside, turn = plan.path_offset(np.array([4.0, 10.0, 16.0]))
    assert ahead.tolist() == [0.0, 1.5, 1.5] and not aside.any() and turn[2] == pytest.approx(np.pi / 2)
    far, near = (np.nanmedian(render_cameras(plan, t, np.random.default_rng(0)).depth[:60]) for t in (4.5, 10.0))
    assert near < far - 0.8
    times = np.arange(0, 20, 0.005)
    turned = np.trapezoid(simulate_imu(plan, times)[:, 5] - simulate_imu(parse({}), times)[:, 5], times)
    assert turned == pytest.approx(np.pi / 2, abs=0.1)


@pytest.mark.parametrize("sensor", SIMULATED_SENSORS)
def test_a_noisy_sensor_is_noisy_and_the_others_are_not(sensor: str) -> None:
    def rough(plan: SimulatedScenario) -> dict[str, float]:
        (_, a), (_, b) = (
            p for _, p in zip(range(2), simulate_sensors(plan, 1000.0).images, strict=False)
        )  # 1 ms apart
        found = {s: float(np.diff(np.stack([a[s], b[s]]).astype(float), axis=0).std()) for s in a}
        quiet = synthesize_audio(plan).astype(float)
        return {**found, "audio": float(np.diff(quiet).std()), "imu": float(simulate_imu(plan, times)[:, 3].std())}

    times = np.arange(0, 2, 0.005)
    before, after = rough(parse({"duration": 2})), rough(parse({"duration": 2, "noise": {sensor: 4}}))
    assert after[sensor] > 1.5 * before[sensor]
    assert all(after[s] < 1.2 * before[s] for s in SIMULATED_SENSORS if s != sensor)


def test_a_scenario_can_be_cut_short_and_what_comes_later_does_not_happen() -> None:
    told = {"duration": 60, "events": [{"type": "dog", "at": 5}, {"type": "cat", "at": 50}],
            "faults": [{"sensor": "imu", "fault": "muted", "at": 40}]}  # fmt: skip
    plan = scenario.parse_scenario(told, "s.yaml", 0, 20.0)
    assert plan.duration == 20 and [t.label for t in plan.truth()] == ["dog"] and plan.faults == ()


def test_in_the_dark_the_camera_sees_nothing_and_the_others_go_on() -> None:
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
def test_a_sensor_that_fails_records_on_as_its_fault_says(tmp_path: Path, sensor: str, fault: str) -> None:
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
    ("told", "word"),
    [
        ({"event": []}, "event"),
        ({"events": [{"type": "dragon", "at": 1}]}, "dragon"),
        ({"events": [{"type": "dog"}]}, "at"),
        ({"events": [{"type": "dog", "at": 99}]}, "at"),
        ({"events": [{"type": "dog", "at": 1, "senses": ["taste"]}]}, "taste"),
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
        ({"events": [{"type": "dog", "at": 1, "photograph": "chelsea.png"}]}, "picture alone"),
        ({"events": [{"type": "dog", "at": 1, "warmth": "hot"}]}, "warmth"),
    ],
)
def test_a_wrong_entry_is_told_by_file_and_name(told: dict[str, Any], word: str) -> None:
    with pytest.raises(ScenarioError, match=word) as error:
        parse(told)
    assert "s.yaml" in str(error.value)


@given(rate=st.floats(0, 6), seed=st.integers(0, 50))
def test_events_by_chance_keep_apart_and_within_the_recording(rate: float, seed: int) -> None:
    told = sorted(parse({"duration": 60, "events": [{"type": "dog", "rate": rate, "for": 2}]}, seed).truth(),
                  key=lambda t: t.onset)  # fmt: skip
    assert all(0 <= t.onset < t.offset <= 60 for t in told)
    assert all(a.offset < b.onset for a, b in zip(told, told[1:], strict=False))


@pytest.mark.parametrize("name", ["house", "faults", "corridor"])
def test_the_scenarios_that_ship_can_be_read(name: str) -> None:
    plan = scenario.read_scenario(SCENARIOS / f"{name}.yaml")
    assert plan.duration >= 90
    assert {h.label for h in plan.events} <= set(catalogue.CATALOGUE)


def test_recorded_sounds_take_their_label_from_their_folder(shared: Path) -> None:
    told = {"duration": 60, "clips": {"folder": str(shared / "evaluation" / "esc10"), "every": 6, "snr": 10}}
    plan = parse(told)
    assert len(plan.events) >= 3 and {h.label for h in plan.events} <= {
        "Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick", "Person sneeze", "Helicopter", "Chainsaw", "Rooster",
        "Fire crackling",
    }  # fmt: skip


def test_a_survey_shows_every_kind_and_held_out_surveys_differ() -> None:
    one, other = tour(0), tour(1_000_000)
    assert {h.kind for h in one.events} == set(catalogue.SURVEY_KINDS)
    assert [h.kind for h in one.events] != [h.kind for h in other.events]
