"""Scenarios: the same seed gives the same bytes, what is told happens, and a wrong entry is told by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sensebind.cli import main
from sensebind.fusion.recordings import Recording
from sensebind.fusion.simulation import scenario, things
from sensebind.fusion.simulation.failures import FAULTS, SENSORS
from sensebind.fusion.simulation.messages import EPOCH
from sensebind.fusion.simulation.record import Plan, feel, hear, see
from sensebind.fusion.simulation.scenario import ScenarioError
from sensebind.fusion.simulation.tour import tour

SCENARIOS = Path(__file__).parents[1] / "config" / "scenarios"


def made(told: dict[str, Any], seed: int = 0) -> Plan:
    return scenario.plan({"duration": 20, **told}, "s.yaml", seed)


def written(tmp_path: Path, told: dict[str, Any], name: str = "bag", seed: int = 0) -> Path:
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
    one, again, other = (written(tmp_path / name, told, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert content(one) == content(again) != content(other)


def test_the_truth_beside_the_bag_is_in_dcases_form(tmp_path: Path) -> None:
    told = {
        "duration": 3,
        "events": [{"type": "cat", "at": 1, "for": 9}, {"type": "knock", "at": 0.25, "for": 0.5}],
        "distractors": [{"type": "radio", "at": 0}],
        "faults": [{"sensor": "depth", "fault": "unplugged", "at": 1, "for": 1}],
    }
    bag = written(tmp_path, told)
    assert Path(f"{bag}.truth.tsv").read_text() == (
        "onset\toffset\tlabel\n0.250\t0.750\tknock\n1.000\t3.000\tcat\n"  # no distractor, nothing beyond the end
    )
    assert Path(f"{bag}.faults.tsv").read_text() == "onset\toffset\tsensor\tfault\n1.000\t2.000\tdepth\tunplugged\n"
    with Recording(bag) as recording:
        stamps = [t - EPOCH for _, _, t, _ in recording.messages(["/depth/image"])]
    assert len(stamps) == 20 and not [t for t in stamps if 1.02e9 < t < 1.98e9]


def test_what_is_warm_is_seen_warm_while_it_is_there_and_not_before() -> None:
    plan, noise = made({"events": [{"type": "fire", "at": 5, "for": 5, "aside": 0}]}), np.random.default_rng(0)
    before, during = (see(plan, t, noise) for t in (4.5, 7.0))
    assert during.kelvin.max() > before.kelvin.max() + 100
    assert np.abs(during.colour.astype(int) - before.colour).mean() > 1


def test_heat_behind_a_wall_is_for_the_thermal_camera_alone() -> None:
    plan, noise = made({"events": [{"type": "hot_spot", "at": 5, "for": 5}]}), np.random.default_rng(0)
    free = made({})
    with_spot, without = (see(p, 7.0, np.random.default_rng(0)) for p in (plan, free))
    assert with_spot.kelvin.max() > without.kelvin.max() + 30
    assert np.array_equal(np.nan_to_num(with_spot.depth), np.nan_to_num(without.depth))
    del noise


def test_a_sound_is_heard_and_a_bump_is_felt_when_the_truth_says() -> None:
    plan = made({"events": [{"type": "alarm", "at": 5, "for": 3}, {"type": "bump", "at": 12}]})
    wave = hear(plan).astype(float)
    level = [wave[round(t * 16_000) : round((t + 2) * 16_000)].std() for t in (2, 5.5)]
    assert level[1] > 3 * level[0]
    felt = feel(plan, np.arange(0, 20, 0.005))[:, :3]
    assert felt[2400:2500].std(axis=0).max() > 5 * felt[1000:2300].std(axis=0).max()


def test_in_the_dark_the_camera_sees_nothing_and_the_others_go_on() -> None:
    plan, noise = made({"dark": [[5, 10]]}), np.random.default_rng(0)
    light, dark = see(plan, 4.0, noise), see(plan, 7.0, noise)
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
    assert sensor in SENSORS and fault in FAULTS
    topic = {"vision": "/camera/image", "depth": "/depth/image", "thermal": "/thermal/image"}.get(sensor, f"/{sensor}")
    bag = written(tmp_path, {"duration": 1.2, "faults": [{"sensor": sensor, "fault": fault, "at": 0.6}]})
    with Recording(bag) as recording:
        messages = [(t, m) for _, _, t, m in recording.messages([topic])]
    late = [m for t, m in messages if t > EPOCH + 0.75e9]
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
    ],
)
def test_a_wrong_entry_is_told_by_file_and_name(told: dict[str, Any], word: str) -> None:
    with pytest.raises(ScenarioError, match=word) as error:
        made(told)
    assert "s.yaml" in str(error.value)


@given(rate=st.floats(0, 6), seed=st.integers(0, 50))
def test_events_by_chance_keep_apart_and_within_the_recording(rate: float, seed: int) -> None:
    told = sorted(made({"duration": 60, "events": [{"type": "dog", "rate": rate, "for": 2}]}, seed).truth(),
                  key=lambda t: t.onset)  # fmt: skip
    assert all(0 <= t.onset < t.offset <= 60 for t in told)
    assert all(a.offset < b.onset for a, b in zip(told, told[1:], strict=False))


@pytest.mark.parametrize("name", ["house", "faults"])
def test_the_scenarios_that_ship_can_be_read(name: str) -> None:
    plan = scenario.read(SCENARIOS / f"{name}.yaml")
    assert plan.duration == 120
    assert {h.label for h in plan.happenings} <= set(things.KINDS)


def test_recorded_sounds_take_their_label_from_their_folder(shared: Path) -> None:
    told = {"duration": 60, "clips": {"folder": str(shared / "evaluation" / "esc10"), "every": 6, "snr": 10}}
    plan = made(told)
    assert len(plan.happenings) >= 3 and {h.label for h in plan.happenings} <= {
        "Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick", "Person sneeze", "Helicopter", "Chainsaw", "Rooster",
        "Fire crackling",
    }  # fmt: skip


def test_a_tour_passes_every_kind_and_held_out_ones_are_others() -> None:
    one, other = tour(0), tour(1_000_000)
    assert {h.kind for h in one.happenings} == set(things.STATIONS)
    assert [h.kind for h in one.happenings] != [h.kind for h in other.happenings]
