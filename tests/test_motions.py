"""What the motion spoke learns from, and that it tells what is felt from what is not on simulations it never saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensebind.fusion.models import registry
from sensebind.simulation.catalogue import KINDS
from sensebind.simulation.record import IMU_RATE, Happening, Plan, feel
from sensebind.simulation.scenario import HELD_OUT
from sensebind.training.data import motions


def plan(*happenings: Happening, ground: str = "carpet", seed: int = 0, duration: float = 20.0) -> Plan:
    return Plan(duration, ((0.0, ground),), happenings, seed)


@given(st.floats(2.0, 18.0), st.sampled_from(["bump", "pump"]))
def test_a_window_stands_for_a_happening_once_it_holds_enough_of_it(end: float, kind: str) -> None:
    lasts = 0.6 if kind == "bump" else 4.0
    label = motions.label_of(plan(Happening(kind, 8.0, 8.0 + lasts)), end - motions.LENGTH, end)
    shared = min(end, 8.0 + lasts) - max(end - motions.LENGTH, 8.0)
    enough = 0.3 if kind == "bump" else 0.5
    assert label == (motions.NOTHING if shared <= 0 else kind if shared >= enough else None)


def test_a_window_that_holds_two_happenings_stands_for_neither() -> None:
    both = plan(Happening("pump", 4.0, 7.0), Happening("drill", 7.5, 9.0))
    assert motions.label_of(both, 6.2, 8.2) is None
    assert motions.label_of(both, 5.0, 7.0) == "pump"


def test_what_does_not_shake_is_nothing_to_feel() -> None:
    silent = plan(Happening("fire", 2.0, 10.0))
    assert set(motions.cuts(silent)[1]) == {motions.NOTHING}


def test_a_stroll_holds_all_that_shakes_apart_from_each_other() -> None:
    made = motions.stroll(3)
    assert {h.kind for h in made.happenings} == {label for label, kind in KINDS.items() if kind.shakes[1] > 0}
    gaps = [b.onset - a.offset for a, b in zip(made.happenings, made.happenings[1:], strict=False)]
    assert min(gaps) >= motions.LENGTH  # so that some windows between hold nothing
    windows, labels = motions.cuts(made)
    assert len(windows) == len(labels) and windows[0].shape == (6, 400)
    assert set(labels) == {*motions.FELT, motions.NOTHING}


def test_a_patrol_is_a_robots_own_motion_but_for_its_bump() -> None:
    windows, labels = motions.cuts(motions.patrol(3))
    assert set(labels) == {motions.NOTHING, "bump"} and labels.count(motions.NOTHING) > 50
    own = np.stack([w for w, label in zip(windows, labels, strict=True) if label == motions.NOTHING])
    assert np.abs(own[:, 5].mean(axis=1)).max() > 0.2 and np.abs(own[:, 0]).max() > 2  # it turns and speeds up
    other = motions.cuts(motions.patrol(4))[0]
    assert not np.array_equal(windows[0], other[0])


def test_a_held_out_stroll_is_told_by_words() -> None:
    space = registry.load("starter", modalities=["imu", "text"])
    windows, labels = motions.cuts(motions.stroll(HELD_OUT + 7))
    vectors = torch.cat([space.embed("imu", batch) for batch in torch.from_numpy(np.stack(windows)).split(64)])
    kinds = [*motions.FELT, motions.NOTHING]
    words = torch.stack([space.embed_text(motions.phrases(kind)).mean(0) for kind in kinds])
    scores = vectors @ torch.nn.functional.normalize(words, dim=1).T
    own = torch.tensor([kinds.index(label) for label in labels])
    assert float((scores.argmax(1) == own).float().mean()) >= 0.4  # chance 0.04
    stands_out = scores[:, :-1].amax(1) - scores[:, -1]
    felt = own != len(kinds) - 1
    above = (stands_out[felt][:, None] > stands_out[~felt][None]).float().mean()  # the area under the ROC curve
    assert float(above) >= 0.8


@pytest.mark.parametrize("ground", ["carpet", "wood"])
def test_a_bump_is_felt_and_over_within_its_window(ground: str) -> None:
    space = registry.load("starter", modalities=["imu", "text"])
    made = plan(Happening("bump", 10.0, 10.6), ground=ground, seed=HELD_OUT + 1)
    felt = feel(made, np.arange(0, 20, 1 / IMU_RATE)).astype(np.float32)
    length = round(space.apertures["imu"].length * IMU_RATE)
    assert length == 400
    ends = np.arange(length, len(felt) + 1, 50)
    vectors = space.embed("imu", torch.from_numpy(np.stack([felt[i - length : i].T for i in ends])))
    words = space.embed_text([*motions.phrases("bump"), *motions.PHRASES])
    scores = vectors @ words.T
    told = scores[:, :2].amax(1) > scores[:, 2:].amax(1)
    times = ends[told.numpy()] / IMU_RATE
    assert 10.0 < times.min() <= 11.0 and 11.0 <= times.max() <= 12.7
