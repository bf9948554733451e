"""EmbeddingGemma 2 with random weights: its vectors are those of the package transformers.

The package's video processor needs torchvision. So a video is compared with frames that the package's image processor
resizes with Pillow, which are then given to the package's model as a video.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

transformers = pytest.importorskip("transformers", minversion="5.24")

from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, Gemma4AudioFeatureExtractor  # noqa: E402
from transformers.models.embedding_gemma2.processing_embedding_gemma2 import EmbeddingGemma2Processor  # noqa: E402
from transformers.models.gemma4.image_processing_pil_gemma4 import (  # noqa: E402
    Gemma4ImageProcessorPil,
    get_aspect_ratio_preserving_size,
)

from helpers.small_imagebind import window  # noqa: E402
from helpers.small_transformers import (  # noqa: E402
    IMAGE_ENCODINGS,
    encoded,
    randomize,
    relative_error,
    word_tokenizer,
    write_checkpoint,
)
from helpers.small_transformers import images as random_images  # noqa: E402
from sensebind.fusion.core.encodings import decode_rgb  # noqa: E402
from sensebind.fusion.core.errors import RecipeError  # noqa: E402
from sensebind.fusion.core.samples import SECOND, Sample, Sound  # noqa: E402
from sensebind.fusion.core.space import SpaceError  # noqa: E402
from sensebind.fusion.core.windows import Window  # noqa: E402
from sensebind.fusion.models.registry import load_without_spokes  # noqa: E402
from sensebind.fusion.models.transformers.embedding_gemma import size_for_tokens  # noqa: E402
from sensebind.fusion.models.transformers.space import TransformersSpace  # noqa: E402
from sensebind.fusion.preprocess import image_recipe  # noqa: E402
from sensebind.fusion.preprocess.audio import mel_bands  # noqa: E402
from sensebind.fusion.preprocess.gemma_audio import log_mel, read_log_mel_recipe  # noqa: E402
from sensebind.fusion.preprocess.resampling import resample_audio  # noqa: E402

SPECIAL_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
VIDEO_TOKEN = "<|video|>"
PATCH, IMAGE_TOKENS, FRAME_TOKENS = 4, 70, 140
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = TOWER | {
    "vocab_size": 64, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 32,
    "hidden_size_per_layer_input": 8, "embedding_dim": 24, "sliding_window": 9, "sliding_window_pattern": 2,
}  # fmt: skip
VISION = TOWER | {
    "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16, "patch_size": PATCH, "standardize": True,
    "position_embedding_size": 256,
}  # fmt: skip
AUDIO = TOWER | {"output_proj_dims": 16, "subsampling_conv_channels": [128, 4]}
PHRASES = ["a photo of a dog", "glass breaking nearby", "rain", "the siren of the engine is music"]


@dataclass(frozen=True)
class Library:
    """The package's own model of a checkpoint, and its processor."""

    folder: Path
    processor: Any
    dtype: torch.dtype = torch.float32

    def __call__(self, **inputs: Any) -> Tensor:
        """Inputs of the model → the mean of its states, unit length: Pooling and Normalize of sentence-transformers."""
        with torch.no_grad():
            states = library_model(self.folder, self.dtype)(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None].float()
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    def images(self, images: list[np.ndarray]) -> Tensor:
        return self(**self.processor(images=[[image] for image in images], return_tensors="pt"))

    def images_without_padding(self, images: list[np.ndarray]) -> Tensor:
        """The vectors of images of one shape, from their patches without those that are padding."""
        inputs = self.processor(images=[[image] for image in images], return_tensors="pt")
        count = int((inputs["image_position_ids"][0, :, 0] >= 0).sum())
        return self(**inputs | {name: inputs[name][:, :count] for name in ("pixel_values", "image_position_ids")})

    def sounds(self, sounds: list[np.ndarray]) -> Tensor:
        return torch.cat([self(**self.processor(audio=sound, return_tensors="pt")) for sound in sounds])

    def phrases(self, phrases: list[str]) -> Tensor:
        """Phrases in the published prompt of a search."""
        texts = [f"task: search result | query: {phrase}" for phrase in phrases]
        return self(**self.processor(text=texts, return_tensors="pt"))

    def video(self, frames: list[np.ndarray]) -> Tensor:
        resized = Gemma4ImageProcessorPil(patch_size=PATCH, max_soft_tokens=FRAME_TOKENS)(frames, return_tensors="pt")
        counts = {
            "num_soft_tokens_per_video": [int(resized["num_soft_tokens_per_image"][0])],
            "num_frames_per_video": [len(frames)],
        }
        text = self.processor.replace_video_token(
            counts, 0, videos_kwargs={"add_timestamps": False}, load_audio_from_video=False
        )
        return self(
            **self.processor.tokenizer([text], return_tensors="pt"),
            pixel_values_videos=resized["pixel_values"],
            video_position_ids=resized["image_position_ids"],
            num_frames_per_video=torch.tensor([len(frames)]),
        )


@lru_cache(maxsize=2)
def library_model(folder: Path, dtype: torch.dtype) -> Any:
    return EmbeddingGemma2Model.from_pretrained(folder, dtype=dtype)


def special_tokenizer(folder: Path) -> Any:
    """A tokenizer of words with the special tokens of EmbeddingGemma 2."""
    words = word_tokenizer(folder, max_length=4096)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words.backend_tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
        unk_token="<unk>", model_max_length=4096, model_input_names=["input_ids", "attention_mask"],
        model_specific_special_tokens=SPECIAL_TOKENS, extra_special_tokens=[VIDEO_TOKEN],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def token_ids(tokenizer: Any) -> dict[str, int]:
    names = {name: f"{name}_id" for name in SPECIAL_TOKENS} | {"eoa_token": "eoa_token_index"}
    ids = {names[name]: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL_TOKENS.items()}
    return ids | {"video_token_id": tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)}


def write_model(folder: Path, tokenizer: Any, **config: Any) -> None:
    torch.manual_seed(0)
    towers = {"text_config": TEXT, "vision_config": VISION, "audio_config": AUDIO} | config
    model = randomize(EmbeddingGemma2Model(EmbeddingGemma2Config(**towers, **token_ids(tokenizer))))
    if model.vision_tower is not None:
        with torch.no_grad():  # so large that a wrong position changes the vectors
            model.vision_tower.patch_embedder.position_embedding_table.normal_(0, 0.3)
            model.vision_tower.std_bias.normal_()
            model.vision_tower.std_scale.uniform_(0.05, 0.3)
    write_checkpoint(folder, model)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("embedding_gemma")
    tokenizer = special_tokenizer(folder)
    write_model(folder, tokenizer)
    with pytest.MonkeyPatch.context() as patch:  # there is no video processor without torchvision
        patch.setattr(EmbeddingGemma2Processor, "check_argument_for_proper_class", lambda *_: None)
        processor = EmbeddingGemma2Processor(
            Gemma4AudioFeatureExtractor(),
            Gemma4ImageProcessorPil(patch_size=PATCH, max_soft_tokens=IMAGE_TOKENS),
            tokenizer,
            video_processor=None,
        )
    processor.video_processor = SimpleNamespace(add_timestamps=False)
    settings = {"patch_size": PATCH, "do_normalize": False, "resample": 3}
    parts = {"image_processor": IMAGE_TOKENS, "video_processor": FRAME_TOKENS}
    files = {part: settings | {"max_soft_tokens": tokens} for part, tokens in parts.items()}
    (folder / "processor_config.json").write_text(json.dumps(files))
    return Library(folder, processor)


@pytest.fixture(scope="module")
def space(library: Library) -> TransformersSpace:
    return load(library)


def load(library: Library, **options: Any) -> TransformersSpace:
    found = load_without_spokes(f"transformers:{library.folder}", **options)
    assert isinstance(found, TransformersSpace)
    return found


def rows(space: TransformersSpace, windows: list[Window]) -> Tensor:
    """The vectors of windows of one shape, computed together; each is that of the window alone."""
    modality = windows[0].modality
    inputs = torch.stack([space.device_input(window) for window in windows])
    together = space.encoder(modality)(inputs)
    alone = torch.cat([space.embed(modality, space.tensor(window)[None]) for window in windows])
    torch.testing.assert_close(together, alone, atol=1e-5 if space.dtype == torch.float32 else 0.02, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(windows)))
    return together


def check(got: Tensor, expected: Tensor, limit: float = 1e-3) -> None:
    error = relative_error(got, expected)
    nearest = (got @ expected.T).argmax(1).tolist()
    assert error <= limit and nearest == list(range(len(got))), (error, nearest)


# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("encoding", IMAGE_ENCODINGS)
def test_images_of_each_encoding_have_the_librarys_vectors(
    library: Library, space: TransformersSpace, encoding: str
) -> None:
    frames = [encoded(image, encoding) for image in random_images(4, 96, 130)]
    expected = library.images([np.ascontiguousarray(decode_rgb(frame)) for frame in frames])
    check(rows(space, [window("vision", frame) for frame in frames]), expected)


@pytest.mark.parametrize("shape", [(160, 90), (100, 300), (6, 900), (600, 6)])
def test_images_of_each_aspect_ratio_have_the_librarys_vectors(
    library: Library, space: TransformersSpace, shape: tuple[int, int]
) -> None:
    images = random_images(3, *shape)
    windows = [window("vision", encoded(image, "rgb8")) for image in images]
    side = PATCH * 3
    assert space.tensor(windows[0]).shape == (3, *size_for_tokens(*shape, side, IMAGE_TOKENS))
    check(rows(space, windows), library.images(images))


def test_pixels_are_those_of_the_librarys_processor(library: Library, space: TransformersSpace) -> None:
    image = random_images(1, 75, 100)[0]
    tensor = space.tensor(window("vision", encoded(image, "rgb8")))
    rows, columns = tensor.shape[1] // PATCH, tensor.shape[2] // PATCH
    patches = tensor.reshape(3, rows, PATCH, columns, PATCH).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
    expected = library.processor.image_processor([image], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(patches, expected[: rows * columns].float(), atol=0, rtol=0)
    assert rows * columns == (library.processor.image_processor([image])["image_position_ids"][0][:, 0] >= 0).sum()


def test_sizes_are_those_of_the_librarys_processor() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(2 ** random.uniform(1, 12)) for _ in range(2))
        for tokens in (70, 280):
            expected = get_aspect_ratio_preserving_size(height, width, 16, tokens * 9, 3)
            assert size_for_tokens(height, width, 48, tokens) == tuple(expected), (height, width)


def test_several_frames_are_a_video(library: Library, space: TransformersSpace) -> None:
    images = random_images(12, 90, 120)
    windows, expected = [], []
    for first in range(0, 12, 4):
        windows.append(window("vision", *(encoded(image, "rgb8") for image in images[first : first + 4])))
        expected.append(library.video(images[first : first + 4]))
    check(rows(space, windows), torch.cat(expected))


def test_a_video_has_at_most_32_frames(space: TransformersSpace) -> None:
    many = random_images(33, 12, 16)
    row = space.device_input(window("vision", *(encoded(image, "rgb8") for image in many)))
    assert len(row) == 32 and torch.equal(row[-1], torch.from_numpy(many[-1]))
    mixed = [encoded(image, "rgb8") for image in (*random_images(1, 12, 16), *random_images(1, 12, 18))]
    with pytest.raises(ValueError, match="differ in size"):
        space.device_input(window("vision", *mixed))


def test_the_image_encoder_has_gradients_and_no_table_of_words(space: TransformersSpace) -> None:
    image_recipe._constants.cache_clear()
    with torch.inference_mode():  # what it caches must not be an obstacle to gradients
        space.encoder("vision")(torch.zeros(1, 24, 36, 3, dtype=torch.uint8))
    encoder = space.image_encoder()
    images = torch.rand(2, 3, 224, 224, requires_grad=True)
    encoder(images).sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert not any("embed_tokens" in name for name, _ in encoder.named_parameters())
    levels = (images.detach() * 255).round()
    frames = [encoded(image.permute(1, 2, 0).numpy().astype(np.uint8), "rgb8") for image in levels]
    vectors = rows(space, [window("vision", frame) for frame in frames])
    assert (vectors - encoder(levels / 255)).norm(dim=1).max() < 0.05


# ------------------------------------------------------------------------------------------------------------- sounds


def sounds(count: int, seconds: float, rate: int, channels: int = 1) -> list[Sound]:
    """Tones that glide from different pitches, with noise."""
    random = np.random.default_rng(1)
    time = np.arange(round(seconds * rate)) / rate
    found = []
    for number in range(count):
        tone = np.sin(2 * np.pi * (200 * (number + 1) ** 2 * time + 150 * number * time**2)) * 0.4
        noise = random.normal(0, 0.02 * (number + 1), (len(time), channels))
        found.append(Sound((tone[:, None] * np.linspace(1, 0.5, channels) + noise).astype(np.float32), rate))
    return found


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize(("seconds", "channels"), [(2.0, 1), (1.937, 2)])  # a multiple of 128 samples, and not
def test_sounds_of_each_rate_have_the_librarys_vectors(
    library: Library, space: TransformersSpace, rate: int, channels: int, seconds: float
) -> None:
    windows = [window("audio", sound, length=seconds) for sound in sounds(4, seconds, rate, channels)]
    check(rows(space, windows), library.sounds([resample_audio(window, 16_000) for window in windows]))


@pytest.mark.parametrize("samples", [16_001, 15_999, 16_161, 16_160, 16_290, 16_321, 16_449, 16_544, 2_000])
def test_sounds_of_each_length_have_as_many_tokens_as_the_library(
    library: Library, space: TransformersSpace, samples: int
) -> None:
    """Some of these lengths have a last frame that reaches into the padding."""
    waves = [sound.data[:samples, 0] for sound in sounds(3, 1.1, 16_000)]
    got = space.encoder("audio")(torch.from_numpy(np.stack(waves)))
    check(got, library.sounds(waves))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preemphasis": 0.97},
        {"preemphasis": 0.97, "preemphasis_htk_flavor": False, "fft_overdrive": True},
        {"frame_length_ms": 32.0, "min_frequency": 125.0, "max_frequency": 7600.0, "mel_floor": 1e-5},
        {"feature_size": 64, "input_scale_factor": 4.0, "per_bin_mean": [0.5] * 64, "per_bin_stddev": [2.0] * 64},
        {"sampling_rate": 8000, "max_frequency": 4000.0, "feature_size": 40},
    ],
)
def test_the_spectrogram_is_the_librarys_for_all_settings(settings: dict[str, Any]) -> None:
    extractor = Gemma4AudioFeatureExtractor(**settings)
    recipe = read_log_mel_recipe(settings)
    bands = mel_bands(recipe.rate, recipe.fft_size, recipe.bands, recipe.lowest, recipe.highest)
    np.testing.assert_allclose(bands, extractor.mel_filters, atol=1e-9)
    waves = [sound.data[:, 0] for sound in sounds(2, 1.283, recipe.rate)]
    got = log_mel(torch.from_numpy(np.stack(waves)), recipe)
    for number, wave in enumerate(waves):
        found = extractor([wave], return_tensors="pt")
        expected = found["input_features"][0][found["input_features_mask"][0]]
        assert len(expected) == recipe.frames(len(wave))
        torch.testing.assert_close(got[number], expected, atol=2e-4, rtol=0)
    pcm = (torch.from_numpy(waves[0]) * 32768).round().clamp(-32768, 32767).to(torch.int16)
    assert torch.equal(log_mel(pcm[None], recipe), log_mel(pcm[None].float() / 32768, recipe))


def test_invalid_settings_of_sound_are_refused() -> None:
    for settings in ({"feature_size": "many"}, {"hop_length_ms": 0.0}, {"per_bin_mean": [1.0]}, {"max_frequency": 0.0}):
        with pytest.raises(RecipeError):
            read_log_mel_recipe(settings)
    with pytest.raises(ValueError, match="too short: 161 are needed"):
        log_mel(torch.zeros(1, 160), read_log_mel_recipe({}))
    assert log_mel(torch.zeros(1, 161), read_log_mel_recipe({})).shape == (1, 1, 128)


def test_of_a_longer_window_the_newest_half_minute_is_used(space: TransformersSpace) -> None:
    long = window("audio", sounds(1, 31, 16_000)[0], length=31.0)
    assert np.array_equal(space.device_input(long), resample_audio(long, 16_000)[-480_000:])


# --------------------------------------------------------------------------------------------------------------- text


def test_phrases_have_the_librarys_vectors(library: Library, space: TransformersSpace) -> None:
    check(space.embed_text(PHRASES), library.phrases(PHRASES))


# ---------------------------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize("modality", ["vision", "audio", "text"])
def test_bfloat16_has_the_vectors_of_the_library_in_bfloat16(library: Library, modality: str) -> None:
    half = load(library, dtype="bf16")
    images, blocks = random_images(4, 96, 130), sounds(4, 2.0, 16_000)
    waves = [block.data[:, 0] for block in blocks]
    got = {
        "vision": lambda: rows(half, [window("vision", encoded(image, "rgb8")) for image in images]),
        "audio": lambda: rows(half, [window("audio", block, length=2.0) for block in blocks]),
        "text": lambda: half.embed_text(PHRASES),
    }[modality]()

    def library_vectors(dtype: torch.dtype) -> Tensor:
        oracle = Library(library.folder, library.processor, dtype)
        return {
            "vision": lambda: oracle.images_without_padding(images),
            "audio": lambda: oracle.sounds(waves),
            "text": lambda: oracle.phrases(PHRASES),
        }[modality]()

    exact, rounded = library_vectors(torch.float32), library_vectors(torch.bfloat16)
    own = relative_error(rounded, exact)  # of the library itself: 0.02 to 0.07 with these random weights
    check(got, rounded, own if modality == "audio" else 1e-2)
    check(got, exact, 1.2 * own)
    if modality == "audio":  # spectrograms differ in the last bits, and rounding makes these differences larger
        spectrograms = library.processor(audio=waves, return_tensors="pt")["input_features"]
        check(half.embed("audio", spectrograms), rounded, 1e-2)


def test_float16_is_refused(library: Library) -> None:
    with pytest.raises(SpaceError, match="EmbeddingGemma 2 cannot compute in fp16: set dtype to float32 or bf16"):
        load(library, dtype="fp16")


@pytest.mark.parametrize("modalities", [(), ("vision",), ("audio",), ("imu",)])
def test_only_the_towers_that_are_asked_for_are_loaded(
    library: Library, space: TransformersSpace, modalities: tuple[str, ...]
) -> None:
    part = load(library, modalities=modalities)
    assert part.modalities == ("text", *(m for m in ("vision", "audio") if m in modalities))
    assert set(part.logit_scales) == set(part.modalities) and part.dimension == 24
    assert torch.equal(part.embed_text(PHRASES), space.embed_text(PHRASES))


def test_a_checkpoint_without_towers_has_text_alone(library: Library, tmp_path: Path) -> None:
    write_model(tmp_path, special_tokenizer(tmp_path), vision_config=None, audio_config=None)
    assert load_without_spokes(f"transformers:{tmp_path}").modalities == ("text",)


def test_damaged_settings_are_refused(library: Library, tmp_path: Path) -> None:
    tokenizer = special_tokenizer(tmp_path)
    write_model(tmp_path, tokenizer)
    settings = tmp_path / "processor_config.json"
    for text, message in (
        ('{"image_processor": {"patch_size": 16}}', "image_processor has patches of 16 pixels"),
        ('{"video_processor": {"max_soft_tokens": "few"}}', "video_processor"),
        ('{"video_processor": {"add_timestamps": true}}', "add_timestamps"),
        ('{"image_processor": {"do_resize": false}}', "do_resize"),
        ('{"feature_extractor": {"hop_length_ms": 0}}', "feature extractor"),
    ):
        settings.write_text(text)
        with pytest.raises(SpaceError, match=message):
            load_without_spokes(f"transformers:{tmp_path}")
    settings.unlink()
    word_tokenizer(tmp_path)
    with pytest.raises(SpaceError, match="no boi_token, image_token, eoi_token"):
        load_without_spokes(f"transformers:{tmp_path}")


class NoCopies(TorchDispatchMode):
    """Fails if an operation copies a tensor of the CPU to another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, *(kwargs or {}).values(), result) if isinstance(value, Tensor)]
        assert all(t.device.type == "meta" for t in tensors if t.ndim), f"{func} uses memory of the CPU"
        return result


def test_nothing_waits_for_the_device(library: Library) -> None:
    """Tensors on PyTorch's device meta have no values, so code that needs a value on the host fails."""
    space = load(library)
    inputs = {
        "vision": torch.zeros(2, 96, 130, 3, dtype=torch.uint8, device="meta"),
        "video": torch.zeros(2, 3, 96, 130, 3, dtype=torch.uint8, device="meta"),
        "audio": torch.zeros(2, 31_000, device="meta"),
    }
    for name, batch in inputs.items():
        modality = "vision" if name == "video" else name
        assert space.graph_capturable(modality)
        space._encoders[modality].to("meta")
        encode = space.encoder(modality)
        with torch.inference_mode():
            encode(batch)  # constants are copied once
            with NoCopies():
                assert encode(batch).shape == (2, 24)


def test_windows_without_enough_sound_are_errors(space: TransformersSpace) -> None:
    silent = Window("audio", 0, SECOND // 100, 1.0, (Sample("audio", 0, sounds(1, 0.01, 16_000)[0], "microphone"),))
    with pytest.raises(ValueError, match="400 samples or more"):
        space.device_input(silent)
