"""CLAP from a folder of transformers: spectrograms and vectors equal those of the library, for small random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from helpers.small_imagebind import sound, window
from helpers.small_sounds import sound_windows
from helpers.small_transformers import randomize, relative_error, word_tokenizer, write_checkpoint
from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.registry import load_space
from sensebind.fusion.preprocess.clap_audio import ClapRecipe, clap_log_mel, read_clap_recipe
from sensebind.fusion.preprocess.resampling import resample_audio

PHRASES = ["a dog", "glass breaking nearby", "rain", "the siren of an engine"]
BFLOAT16_SOUND = 0.03  # measured 0.020; rounded weights alone make 0.016, the library's model in bf16 0.064
BFLOAT16_TEXT = 0.06  # measured 0.042; rounded weights alone make 0.023, the library's model in bf16 0.043


def small_model(fused: bool) -> Any:
    """Its first layer has the mean and variance of the sounds' bands, as a trained one."""
    from transformers import ClapConfig, ClapModel

    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
        "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    audio = {
        "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
        "num_hidden_layers": 2, "enable_fusion": fused,
    }  # fmt: skip
    model = randomize(ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)))
    with torch.no_grad():
        model.logit_scale_a.fill_(3.0)
        model.logit_scale_t.fill_(2.0)
    rows = torch.stack([torch.from_numpy(resample_audio(w, 48_000)) for w in sound_windows(10.0, 48_000)])
    bands = clap_log_mel(rows, ClapRecipe(slaney=not fused)).flatten(0, 2)
    first = model.audio_model.audio_encoder.batch_norm
    first.running_mean.copy_(bands.mean(0))
    first.running_var.copy_(bands.var(0))
    return model


def extractor(fused: bool, **settings: Any) -> Any:
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50, **settings)


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Any]:
    """The folder, the library's model, its feature extractor and its tokenizer."""
    folder = tmp_path_factory.mktemp("clap") / "small-clap"
    folder.mkdir()
    model, features = small_model(request.param), extractor(request.param)
    tokenizer = word_tokenizer(folder, max_length=30)
    return write_checkpoint(folder, model, features=features), model, features, tokenizer


def expected(model: Any, features: Any, windows: list[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """The library's spectrograms and vectors of sounds. No sound is longer than the model's input."""
    sounds = [resample_audio(w, 48_000)[-480_000:] for w in windows]
    inputs = features(sounds, sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])  # the extractor sets a random one
    with torch.no_grad():
        return inputs["input_features"], model.get_audio_features(**inputs).pooler_output


@pytest.mark.parametrize(
    ("seconds", "channels", "rate"),
    [(2.0, 1, 16_000), (2.0, 1, 44_100), (3.7, 2, 44_100), (10.0, 2, 48_000)],
)
def test_sounds_have_the_librarys_vectors(published: Any, seconds: float, channels: int, rate: int) -> None:
    folder, model, features, _ = published
    windows = sound_windows(seconds, rate, channels)
    spectrograms, vectors = expected(model, features, windows)
    space = load_space(f"transformers:{folder}", dtype="float32")
    batch = torch.stack([space.tensor(w) for w in windows])
    assert (batch[:, 0] - spectrograms[:, 0]).abs().max() < 1e-4  # dB
    found = space.embed("audio", batch)
    assert relative_error(found, vectors) < 1e-5
    assert (found @ vectors.T).argmax(1).tolist() == list(range(len(windows)))


def test_vectors_in_bf16_are_close(published: Any) -> None:
    folder, model, features, _ = published
    windows = sound_windows(10.0, 16_000)
    space = load_space(f"transformers:{folder}", dtype="bf16")
    found = space.embed("audio", torch.stack([space.tensor(w) for w in windows]))
    vectors = expected(model, features, windows)[1]
    assert relative_error(found, vectors) < BFLOAT16_SOUND
    assert (found @ vectors.T).argmax(1).tolist() == list(range(len(windows)))


def test_phrases_have_the_librarys_vectors_in_their_template(published: Any) -> None:
    folder, model, _, tokenizer = published
    sentences = [
        "This is a sound of a dog.", "This is a sound of glass breaking nearby.", "This is a sound of rain.",
        "This is a sound of the siren of an engine.",
    ]  # fmt: skip
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
    for dtype, limit in (("float32", 1e-5), ("bf16", BFLOAT16_TEXT)):
        space = load_space(f"transformers:{folder}", dtype=dtype)
        assert relative_error(space.embed_text(PHRASES), vectors) < limit
    assert space.embed_text(["the dog of " * 100]).isfinite().all()  # as many tokens as the network takes


def test_a_sound_has_the_same_vector_in_every_batch(published: Any) -> None:
    space = load_space(f"transformers:{published[0]}", dtype="float32")
    rows = torch.stack([space.device_input(w) for w in sound_windows(2.0, 48_000)])
    together = space.encoder("audio")(rows)
    alone = torch.cat([space.encoder("audio")(row[None]) for row in rows])
    assert relative_error(alone, together) < 1e-5


def test_of_a_longer_window_the_newest_ten_seconds_are_used(published: Any) -> None:
    folder, model, features, _ = published
    windows = sound_windows(12.5, 48_000)
    space = load_space(f"transformers:{folder}", dtype="float32")
    assert space.device_input(windows[0]).shape == (480_000,)
    found = space.embed("audio", torch.stack([space.tensor(w) for w in windows]))
    assert relative_error(found, expected(model, features, windows)[1]) < 1e-5


def test_the_space_has_the_settings_of_the_card_and_scales_of_the_model(published: Any) -> None:
    space = load_space(f"transformers:{published[0]}")
    assert space.modalities == ("text", "audio") and space.dimension == 24
    assert space.trained_windows["audio"].length == 10.0
    assert space.logit_scales == pytest.approx({"text": np.exp(2.0), "audio": np.exp(3.0)}, rel=1e-5)
    assert not space.logit_biases and space.graph_capturable("audio")
    assert load_space(f"transformers:{published[0]}", modalities=["text"]).modalities == ("text",)
    with pytest.raises(ValueError, match="scaled to"):
        loud = sound(2.0, 48_000)
        loud.data[:] = 1000
        space.device_input(window("audio", loud))


def test_no_step_needs_a_value_on_the_host(published: Any) -> None:
    """Tensors on the meta device have no values, so a step that waits for one fails."""
    encoder = load_space(f"transformers:{published[0]}", dtype="float32")._encoders["audio"].to("meta")
    assert encoder(encoder.prepare(torch.empty(3, 96_000, device="meta"))).shape == (3, 24)


@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
@pytest.mark.parametrize("fused", [False, True])
def test_every_padding_makes_the_librarys_spectrogram(padding: str, fused: bool) -> None:
    features = extractor(fused, padding=padding, max_length_s=3, feature_size=32, hop_length=400, sampling_rate=32_000)
    sounds = np.random.default_rng(0).normal(0, 0.1, (2, 40_001)).astype(np.float32)
    wanted = features(list(sounds), sampling_rate=32_000, return_tensors="pt")["input_features"][:, :1]
    found = clap_log_mel(torch.from_numpy(sounds), read_clap_recipe(features.to_dict(), fused))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_settings_that_are_missing_or_wrong(published: Any, tmp_path: Path) -> None:
    assert read_clap_recipe({}, True) == ClapRecipe() and read_clap_recipe({}, False) == ClapRecipe(slaney=True)
    for settings, message in (
        ({"truncation": "fusion"}, "without fusion"),
        ({"truncation": "none"}, "truncation 'none' is not one of fusion, rand_trunc"),
        ({"padding": "mirror"}, "padding 'mirror'"),
        ({"fft_window_size": 1023}, "1023 is not an even number"),
        ({"frequency_min": 20_000}, "frequency_min must be less"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_clap_recipe(settings, False)
    model = published[1]
    word_tokenizer(tmp_path)
    write_checkpoint(tmp_path, model, features=extractor(model.config.audio_config.enable_fusion, max_length_s=20))
    with pytest.raises(SpaceError, match="2001 frames of 64 bands, but the model takes at most 1024 of 64"):
        load_space(f"transformers:{tmp_path}")
