"""A fall is recognised by the laws of mechanics, in any window that shows it, and by any phrase that names it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.simulated_falls import FALLS, OTHER_MOTIONS, RATE, drop, topple
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import EventPhase
from sensebind.fusion.core.samples import IMU, SECOND, Reading, Sample
from sensebind.fusion.core.space import Hub, Space, SpaceError
from sensebind.fusion.events.prompt import DEFAULT_BACKGROUND_PHRASES, background_z_score
from sensebind.fusion.models.registry import load_space
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.starter import motion_competence, motion_concepts
from sensebind.fusion.models.starter.space import SPOKE_FOLDER, StarterSpace
from sensebind.fusion.stream.drivers import finish, process
from sensebind.replay.session import Settings

WINDOW, HOP = 400, 100  # readings
START = 1_700_000_000 * SECOND
# None of these is an example of `motion_phrases.txt`.
PHRASES = ("fell to the ground", "the robot fell", "fallen over", "toppled", "the robot has fallen")


def windows(series: np.ndarray, first: int = 0) -> torch.Tensor:
    """Readings (N, 6) → windows (B, 6, 400) of 2 s, every half second from reading `first` on."""
    data = torch.from_numpy(series.T).float()
    return torch.stack([data[:, at : at + WINDOW] for at in range(first, data.shape[1] - WINDOW + 1, HOP)])


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("starter", modalities=[IMU])


@pytest.mark.parametrize("name", FALLS)
def test_a_fall_is_surely_recognised_at_every_phase_of_the_windows(name: str) -> None:
    series = FALLS[name]()
    for first in range(0, HOP, 10):
        assert motion_concepts.fall_strength(windows(series, first), RATE).max() == 1.0


@pytest.mark.parametrize("name", OTHER_MOTIONS)
def test_another_motion_has_no_strength_at_all(name: str) -> None:
    series = OTHER_MOTIONS[name]()
    for first in range(0, HOP, 10):
        assert (motion_concepts.fall_strength(windows(series, first), RATE) == 0.0).all()


def test_the_strength_grows_with_the_impact_and_does_not_depend_on_the_rate() -> None:
    soft = [motion_concepts.fall_strength(windows(topple(1.7, 0.9, impact=t)), RATE).max() for t in (0.05, 0.45, 1.0)]
    assert soft[0] == 1.0 and 0.9 > soft[1] > 0.3 and soft[2] < 0.1
    halved = windows(drop(0.5))[:, :, ::2]
    assert motion_concepts.fall_strength(halved, RATE / 2).max() == 1.0
    assert (motion_concepts.fall_strength(windows(drop(0.5))[:, :, :250], RATE) == 0.0).all()  # too short


def test_a_sensor_without_gravity_or_in_units_of_g_has_no_falls() -> None:
    fall = topple(1.2, 1.0)
    assert (motion_concepts.fall_strength(windows(fall / 9.81), RATE) == 0.0).all()
    assert (motion_concepts.fall_strength(torch.zeros(1, 6, WINDOW), RATE) == 0.0).all()


def test_the_vector_of_a_window_does_not_depend_on_the_other_windows(space: Space) -> None:
    batch = torch.cat([windows(topple(0.5, 0.35)), windows(OTHER_MOTIONS["walking"]())])
    together = space.embed(IMU, batch)
    alone = torch.cat([space.embed(IMU, row[None]) for row in batch])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(batch)), atol=1e-5)


def test_phrases_of_a_fall_stand_out_of_the_background_in_a_fall_and_not_in_other_motions(space: Space) -> None:
    phrases, background = space.embed_text(PHRASES).numpy(), space.embed_text(DEFAULT_BACKGROUND_PHRASES).numpy()
    z_scores = lambda v: background_z_score(phrases @ v, v, background)  # noqa: E731
    for fall in FALLS.values():
        vectors = space.embed(IMU, windows(fall())).numpy()
        assert np.max([z_scores(v) for v in vectors], axis=0).min() > 8
    for motion in OTHER_MOTIONS.values():
        vectors = space.embed(IMU, windows(motion())).numpy()
        assert np.max([z_scores(v) for v in vectors]) < 4


def test_similarities_to_other_phrases_are_those_of_the_trained_network(space: Space) -> None:
    """Only the similarity to falls is removed."""
    encoder = space._spokes[IMU].encoder  # type: ignore[attr-defined]
    phrases = space.embed_text(["a bump", "walking", "a person", "driving over gravel", "a vibration"])
    for name, motion in OTHER_MOTIONS.items():
        batch = windows(motion())
        with torch.inference_mode():
            plain = torch.nn.functional.normalize(encoder.network(batch), dim=1)
        vectors = space.embed(IMU, batch)
        assert ((vectors - plain) @ phrases.T).abs().max() < 0.05, name
        assert ((vectors * plain).sum(dim=1)).min() > 0.85, name


def detected(space: Space, series: np.ndarray, prompts: dict[str, list[str]]) -> list[tuple[str, float]]:
    """Label and onset (s) of each event of a prompt that the default detector reports for readings at 200 Hz."""
    settings = Settings.of({"modalities": [IMU]}, {f"prompts.{label}": own for label, own in prompts.items()})
    pipeline = settings.pipeline(space, settings.events(space))
    outputs = []
    for number, row in enumerate(series):
        pipeline.accept(Sample(IMU, START + number * SECOND // 200, Reading(row), "imu"))
        outputs += process(pipeline)
    outputs += finish(pipeline)
    assert sum(isinstance(o, Embedding) and o.modality == IMU for o in outputs) > 5
    events = [o for o in outputs if not isinstance(o, Embedding) and getattr(o, "phase", None) == EventPhase.ONSET]
    return [(e.label, (e.onset - START) / SECOND) for e in events if e.label in prompts]


@pytest.mark.parametrize("name", FALLS)
def test_the_default_detector_reports_one_event_for_a_fall(space: Space, name: str) -> None:
    series = FALLS[name]()
    for prompts in (
        {"a fall": ["a fall", "falling down"]},
        {"a fall": ["the robot falls over"], "person": ["a person"]},
    ):
        found = detected(space, series, prompts)
        assert [label for label, _ in found] == ["a fall"]
        impact = np.linalg.norm(series[:, :3], axis=1).argmax() / RATE
        assert abs(found[0][1] - impact) < 1.5


@pytest.mark.parametrize("name", OTHER_MOTIONS)
def test_the_default_detector_reports_no_fall_in_another_motion(space: Space, name: str) -> None:
    assert detected(space, OTHER_MOTIONS[name](), {"a fall": ["a fall", "falling down", "the robot falls over"]}) == []


def test_motion_is_competent_for_phrases_of_a_fall_of_its_own_and_not_for_falls_of_others(space: Space) -> None:
    own = space.competence(IMU, ["a fall", "falling down", "the robot falls over", *PHRASES])
    assert own.tolist() == [1.0] * len(own)
    assert space.competence(IMU, ["a person falling", "someone falls"]).tolist() == [0.0, 0.0]


def test_the_spoke_file_names_the_concepts_that_it_was_stamped_with_and_others_are_refused() -> None:
    """python -m sensebind.training.starter_spokes imu --restamp"""
    spec = spokes.read_spec(SPOKE_FOLDER / "imu.safetensors")
    assert spec.concepts == motion_concepts.concepts_id()
    hub = StarterSpace.load(modalities=[])
    with pytest.raises(SpaceError, match="needs the concepts motion@0"):
        hub.computed_concepts("motion@0", RATE)
    with pytest.raises(SpaceError, match="needs the concepts"):
        Hub.computed_concepts(hub, spec.concepts, RATE)


def test_all_phrases_of_a_fall_are_examples_of_motions() -> None:
    examples = motion_competence.phrases().motion
    assert {p for group in motion_concepts.FALL_PHRASES for p in group} <= set(examples)
    assert not set(PHRASES) & set(examples)
