"""Training data of the motion spoke, and its detection of vibration in held-out simulations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensebind.fusion.models import registry
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.recorder import IMU_RATE, SimulatedEvent, SimulatedScenario, simulate_imu
from sensebind.simulation.scenario import HELD_OUT_SEED_OFFSET
from sensebind.training.data import simulated_imu


def scenario(
    *events: SimulatedEvent, ground: str = "carpet", seed: int = 0, duration: float = 20.0
) -> SimulatedScenario:
    return SimulatedScenario(duration, ((0.0, ground),), events, seed)


@given(st.floats(2.0, 18.0), st.sampled_from(["bump", "pump"]))
def test_a_window_has_the_label_of_an_event_at_the_minimum_overlap(end: float, kind: str) -> None:
    duration = 0.6 if kind == "bump" else 4.0
    label = simulated_imu.window_label(
        scenario(SimulatedEvent(kind, 8.0, 8.0 + duration)), end - simulated_imu.WINDOW_LENGTH, end
    )
    overlap = min(end, 8.0 + duration) - max(end - simulated_imu.WINDOW_LENGTH, 8.0)
    min_overlap = 0.3 if kind == "bump" else 0.5
    assert label == (simulated_imu.BACKGROUND_LABEL if overlap <= 0 else kind if overlap >= min_overlap else None)


def test_a_window_with_two_events_has_no_label() -> None:
    both = scenario(SimulatedEvent("pump", 4.0, 7.0), SimulatedEvent("drill", 7.5, 9.0))
    assert simulated_imu.window_label(both, 6.2, 8.2) is None
    assert simulated_imu.window_label(both, 5.0, 7.0) == "pump"


def test_events_without_vibration_are_background() -> None:
    still = scenario(SimulatedEvent("fire", 2.0, 10.0))
    assert set(simulated_imu.labelled_windows(still)[1]) == {simulated_imu.BACKGROUND_LABEL}


def test_a_vibration_scenario_has_every_kind_once_with_pauses() -> None:
    made = simulated_imu.vibration_scenario(3)
    assert {h.kind for h in made.events} == {label for label, kind in CATALOGUE.items() if kind.floor_vibration[1] > 0}
    gaps = [b.onset - a.offset for a, b in zip(made.events, made.events[1:], strict=False)]
    assert min(gaps) >= simulated_imu.WINDOW_LENGTH  # so that some windows between have no event
    windows, labels = simulated_imu.labelled_windows(made)
    assert len(windows) == len(labels) and windows[0].shape == (6, 400)
    assert set(labels) == {*simulated_imu.VIBRATING_KINDS, simulated_imu.BACKGROUND_LABEL}


def test_a_patrol_is_background_except_its_bump() -> None:
    windows, labels = simulated_imu.labelled_windows(simulated_imu.patrol_scenario(3))
    assert set(labels) == {simulated_imu.BACKGROUND_LABEL, "bump"} and labels.count(simulated_imu.BACKGROUND_LABEL) > 50
    own = np.stack([w for w, label in zip(windows, labels, strict=True) if label == simulated_imu.BACKGROUND_LABEL])
    assert np.abs(own[:, 5].mean(axis=1)).max() > 0.2 and np.abs(own[:, 0]).max() > 2  # it turns and speeds up
    other = simulated_imu.labelled_windows(simulated_imu.patrol_scenario(4))[0]
    assert not np.array_equal(windows[0], other[0])


def test_a_held_out_scenario_is_classified_by_text() -> None:
    space = registry.load_space("starter", modalities=["imu", "text"])
    windows, labels = simulated_imu.labelled_windows(simulated_imu.vibration_scenario(HELD_OUT_SEED_OFFSET + 7))
    vectors = torch.cat([space.embed("imu", batch) for batch in torch.from_numpy(np.stack(windows)).split(64)])
    kinds = [*simulated_imu.VIBRATING_KINDS, simulated_imu.BACKGROUND_LABEL]
    texts = torch.stack([space.embed_text(simulated_imu.phrases(kind)).mean(0) for kind in kinds])
    scores = vectors @ torch.nn.functional.normalize(texts, dim=1).T
    own = torch.tensor([kinds.index(label) for label in labels])
    assert float((scores.argmax(1) == own).float().mean()) >= 0.4  # chance 0.04
    margin = scores[:, :-1].amax(1) - scores[:, -1]
    vibrating = own != len(kinds) - 1
    auc = (margin[vibrating][:, None] > margin[~vibrating][None]).float().mean()  # area under the ROC curve
    assert float(auc) >= 0.8


@pytest.mark.parametrize("ground", ["carpet", "wood"])
def test_a_bump_is_detected_while_it_is_in_the_window(ground: str) -> None:
    space = registry.load_space("starter", modalities=["imu", "text"])
    made = scenario(SimulatedEvent("bump", 10.0, 10.6), ground=ground, seed=HELD_OUT_SEED_OFFSET + 1)
    readings = simulate_imu(made, np.arange(0, 20, 1 / IMU_RATE)).astype(np.float32)
    length = round(space.trained_windows["imu"].length * IMU_RATE)
    assert length == 400
    ends = np.arange(length, len(readings) + 1, 50)
    vectors = space.embed("imu", torch.from_numpy(np.stack([readings[i - length : i].T for i in ends])))
    texts = space.embed_text([*simulated_imu.phrases("bump"), *simulated_imu.BACKGROUND_PHRASES])
    scores = vectors @ texts.T
    detected = scores[:, :2].amax(1) > scores[:, 2:].amax(1)
    times = ends[detected.numpy()] / IMU_RATE
    assert 10.0 < times.min() <= 11.0 and 11.0 <= times.max() <= 12.7
