"""The sounds of the demo: the starter's audio encoder names each of them correctly in the noise of the motors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.patrols import patrol_scenario
from sensebind.fusion.config.files import shipped_parameter_file
from sensebind.fusion.models import registry
from sensebind.fusion.models.starter import concepts, yamnet
from sensebind.fusion.models.starter.weight_files import AUDIO_WEIGHTS, find_weight_file
from sensebind.replay.session import Settings
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE
from sensebind.simulation.recorder import synthesize_audio
from sensebind.simulation.synthetic_sounds import SOUND_DURATION, synthesizer_named

WINDOW = 2 * AUDIO_SAMPLE_RATE
CLASSES = {"person": "Speech", "cat": "Cat", "coffee": "Pour", "rocket": "Aircraft"}  # label → class of AudioSet


@pytest.fixture(scope="module")
def sounds() -> dict[str, torch.Tensor]:
    """Label → float32 (2, 2 s), the first and the last half of its sound in the noise of the motors."""
    plan = patrol_scenario(seed=4)
    wave = torch.from_numpy(synthesize_audio(plan).astype(np.float32) / 32768)
    starts = {item.label: round(item.onset * AUDIO_SAMPLE_RATE) for item in plan.truth()}
    return {label: wave[at : at + 2 * WINDOW].reshape(2, WINDOW) for label, at in starts.items()}


@torch.inference_mode()
def test_the_audio_encoder_finds_the_class_of_each_sound(sounds: dict[str, torch.Tensor]) -> None:
    network, names = yamnet.load(find_weight_file(AUDIO_WEIGHTS, "")), concepts.sound_class_names()
    for label, sound in sounds.items():
        scores = network.of_sound(sound).logits.sigmoid().mean(dim=(0, 1))
        assert CLASSES[label] in [names[i] for i in scores.topk(5).indices.tolist()], label
        assert scores[names.index(CLASSES[label])] > 0.3, label


@torch.inference_mode()
def test_each_sound_is_nearest_to_the_prompt_of_its_label(sounds: dict[str, torch.Tensor]) -> None:
    space = registry.load_space("starter", modalities=["audio", "text"])
    prompts = Settings.read(shipped_parameter_file("demo.yaml")).prompts
    vectors = {label: space.embed_text(phrases) for label, phrases in prompts.items()}
    for label, sound in sounds.items():
        embedded = space.embed("audio", sound)
        nearest = {other: float((embedded @ own.T).amax(dim=1).min()) for other, own in vectors.items()}
        assert max(nearest, key=lambda other: nearest[other]) == label, (label, nearest)


@pytest.mark.parametrize("name", ["a person speaking", "a cat's meows", "pouring coffee", "a rocket engine"])
def test_a_sound_depends_on_its_seed_alone_and_begins_at_once(name: str) -> None:
    first, again, other = (synthesizer_named(name)(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (round(SOUND_DURATION * AUDIO_SAMPLE_RATE),) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    begin = first[: round(0.3 * AUDIO_SAMPLE_RATE)]
    assert begin.std() > 0.2 * first.std()  # an onset that can be seen within 0.3 s
