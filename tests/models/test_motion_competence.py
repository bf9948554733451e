"""Motion data recognise phrases for the motion of the robot itself, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.toy_space import ToySpace
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, THERMAL, VISION
from sensebind.fusion.core.space import MIN_COMPETENCE, Hub, SpaceError, limited_competences, limited_modalities
from sensebind.fusion.models.spokes.bound_space import BoundSpace, bind_spokes
from sensebind.fusion.models.starter import motion_competence
from sensebind.fusion.models.starter.space import StarterSpace

# Phrases that were not used to choose the examples, the sharpness or the limits.
OWN_MOTION = (
    "we crashed", "a strong impact", "the robot drives into a wall", "bumped by something", "a heavy shake",
    "buzzing vibrations in the chassis", "the platform vibrates", "a wobble", "lurching", "pitching and rolling",
    "the robot has fallen", "a tumble", "the robot slips", "slipping sideways", "dropped from a height",
    "lifted off the ground", "the robot is being carried", "carried by hand", "someone lifts the robot", "a shove",
    "strolling", "sprinting", "hopping", "climbing a staircase", "descending steps", "stationary", "completely still",
    "halted", "emergency stop", "slowing down", "acceleration", "moving ahead", "moving", "driving over grass",
    "uneven ground", "rolling over bumps", "driving over speed bumps", "spinning around", "a quick rotation",
    "a right turn", "leaning to the left", "the robot is tilted", "flipped over", "going down in an elevator",
    "driving downhill", "stuck in mud", "trembling strongly", "swinging from a rope",
)  # fmt: skip
OTHER = (
    "a person in the room", "a stranger", "a person moving", "a person jumping", "a human being", "two men talking",
    "a girl running in a park", "someone walking behind me", "an intruder", "a person has fallen",
    "a visitor at the door", "a hand waving", "footsteps on a stair", "a puppy running", "a jumping cat",
    "a flock of birds", "a horse", "a snake", "an elephant", "a deer crossing the road", "a parked car",
    "a car accident", "a bus", "a scooter", "an ambulance", "a passing lorry", "a train station", "a cyclist",
    "a sailing boat", "a drone flying", "a crane lifting a load", "a conveyor belt moving", "a dishwasher",
    "a sewing machine", "a compressor", "a chainsaw", "a jackhammer", "a gunshot",
    "a crash of dishes", "a thud", "a whistle", "a scream", "a crying child", "a cough", "a clock ticking",
    "church bells", "a guitar", "a radio", "a dripping tap", "a river", "a lake", "a storm", "snow", "a campfire",
    "burning wood", "a candle", "an overheated motor", "a gas leak", "a red light", "a door", "an open window",
    "a pile of boxes", "a pallet", "a shelf", "a toilet", "a hallway", "a garden", "a beach", "a mountain",
    "steps in front of the robot", "a table with food", "a banana", "a book", "a television",
    "a screen showing text", "a suitcase left behind", "a broken bottle", "a poster", "a spinning wheel",
    "a shaking branch", "a swinging door", "a person rocking a baby", "a rocking chair", "a trampoline",
    "a washing machine that vibrates",
)  # fmt: skip


@pytest.fixture(scope="module")
def space() -> StarterSpace:
    return StarterSpace.load(modalities=[])


def test_phrases_for_a_motion_of_the_robot_are_recognised_and_others_are_not(space: StarterSpace) -> None:
    motion, other = space.competence(IMU, OWN_MOTION), space.competence(IMU, OTHER)
    assert ((motion >= 0) & (motion <= 1)).all() and motion.shape == (len(OWN_MOTION),)
    assert (motion >= 0.5).float().mean() >= 0.85
    assert (other < 0.5).float().mean() >= 0.95
    assert (other == 0).float().mean() >= 0.9


@pytest.mark.parametrize(
    ("motion", "other"),
    [
        ("walking", "a person walking"),
        ("a fall", "a person falls"),
        ("standing still", "a person standing still"),
        ("a vibration", "a phone vibrates"),
        ("a collision", "two cars collide"),
        ("being carried", "a man carries a bag"),
        ("turning left", "a truck turning left"),
    ],
)
def test_a_motion_of_someone_or_something_else_is_not_recognised(space: StarterSpace, motion: str, other: str) -> None:
    assert space.competence(IMU, [motion, other]).tolist() == [1.0, 0.0]


def test_the_examples_have_a_vector_each_and_are_of_their_own_kind(space: StarterSpace) -> None:
    motion, other = motion_competence.phrases()
    assert not set(motion) & set(other) and not {*motion, *other} & {*OWN_MOTION, *OTHER}
    vectors = motion_competence.example_vectors()
    assert [len(group) for group in vectors] == [len(motion), len(other)]
    found = space._embed_sentences([motion[3], other[5]])
    assert torch.allclose(found, torch.stack([vectors[0][3], vectors[1][5]]), atol=2e-3), "write the vectors again"


def test_depth_and_thermal_images_recognise_no_phrase(space: StarterSpace) -> None:
    bound = bind_spokes(space, [])
    phrases = ["a person", "a dog"]
    for modality in (DEPTH, THERMAL):
        assert bound.competence(modality, phrases).tolist() == [0.0, 0.0]
    limited = {m: v.tolist() for m, v in limited_competences(bound, phrases).items()}
    assert limited == {IMU: [0.0, 0.0], DEPTH: [0.0, 0.0], THERMAL: [0.0, 0.0]}
    assert limited_competences(bound, []) == {}


def test_sounds_recognise_phrases_that_are_similar_to_a_class_of_sounds(space: StarterSpace) -> None:
    sounds = ["a dog barking", "a siren", "the sound of rain", "knocking on a door", "a crying baby"]
    others = ["a person", "a chair", "an astronaut", "a picture on the wall"]
    assert space.competence(AUDIO, sounds).tolist() == [1.0] * len(sounds)
    assert space.competence(AUDIO, others).max() < MIN_COMPETENCE


def test_images_recognise_phrases_that_are_similar_to_a_class_of_images_or_an_object(space: StarterSpace) -> None:
    seen = ["a person", "a forklift", "a woman", "a rocket launch", "a cup of coffee", "flames", "a wheelchair"]
    assert space.competence(VISION, seen).tolist() == [1.0] * len(seen)
    assert space.competence(VISION, ["yesterday", "a debate about taxes"]).max() < MIN_COMPETENCE


def test_the_competence_of_motion_also_limits_classifiers_and_that_of_other_modalities_does_not(
    space: StarterSpace,
) -> None:
    assert limited_modalities(bind_spokes(space, [])) == {IMU}


def test_near_phrases_are_among_those_that_the_modality_can_recognise(space: StarterSpace) -> None:
    bound = bind_spokes(space, [])
    assert "a forklift truck" in bound.nearest_phrases(VISION, "a pallet lifter")
    assert "the sound of Siren" in bound.nearest_phrases(AUDIO, "an ambulance siren")
    motions = bound.nearest_phrases(IMU, "the robot hits a wall")
    assert motions and bound.competence(IMU, motions).tolist() == [1.0] * len(motions)
    assert bound.nearest_phrases(THERMAL, "a hot pipe") == []


def test_the_competence_of_a_spoke_that_does_not_ship_with_the_hub_is_not_known(
    space: StarterSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = next(path for path in StarterSpace.shipped_spokes if path.stem == IMU)
    assert BoundSpace(space, [shipped], []).competence(IMU, ["a person"]).tolist() == [0.0]
    monkeypatch.setattr(Hub, "shipped_spokes", ())
    monkeypatch.setattr(StarterSpace, "shipped_spokes", ())
    assert BoundSpace(space, [Path(shipped)], []).competence(IMU, ["a person"]).tolist() == [1.0]


@pytest.mark.parametrize("values", [[0.5], [0.5, 1.5], [0.5, float("nan")]])
def test_competences_that_are_not_one_number_for_each_phrase_are_an_error(values: list[float]) -> None:
    class Wrong(ToySpace):
        def competence(self, modality: str, phrases: object) -> torch.Tensor:
            return torch.tensor(values)

    with pytest.raises(SpaceError, match=r"toy@0 .* 2 phrases"):
        limited_competences(Wrong(), ["a dog", "a cat"])
    assert limited_competences(ToySpace(), ["a dog"]) == {}
