"""Model cards, checkpoints of transformers on the disk, and their download from a Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from helpers.hugging_face_server import COMMIT, hub
from helpers.small_transformers import encoded, image_window, images, randomize, word_tokenizer, write_checkpoint
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.phrases import apply_template
from sensebind.fusion.models.registry import load_space
from sensebind.fusion.models.transformers import cards
from sensebind.fusion.models.transformers.cards import Licence, ModelCard, all_cards, read_card
from sensebind.fusion.models.transformers.checkpoint import find_card, open_checkpoint, without_network
from sensebind.fusion.models.transformers.pe_av import _image_config

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SigLIP without the settings of an image processor: those of the card are used."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("siglip")
    text = {**SIZES, "vocab_size": 40, "max_position_embeddings": 64}
    config = hf.SiglipConfig(text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 16})
    write_checkpoint(folder, randomize(hf.SiglipModel(config)))
    word_tokenizer(folder, mask=False)
    return folder


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sensebind.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.family)
def test_every_card_is_complete(card: ModelCard) -> None:
    assert set(card.modalities) <= {"text", "vision", "audio"} and "text" in card.modalities
    assert ("vision" in card.modalities) == bool(card.vision) and ("audio" in card.modalities) == bool(card.audio)
    assert set(card.dtypes) <= {"float32", "bf16", "fp16"} and "float32" in card.dtypes
    assert card.models and all(model.parameters > 1e6 and model.dimension for model in card.models)
    if card.vision:
        assert len(card.vision["mean"]) == len(card.vision["std"]) == 3
    if card.audio:
        assert card.audio["sampling_rate"] in (16_000, 48_000)


def test_a_licence_without_a_source_and_a_revision_is_not_verified() -> None:
    assert "unverified" in str(Licence("MIT", True, "https://example.org/LICENSE", "", verified=True))
    assert (
        str(Licence("MIT", True, "https://example.org/LICENSE", "abc", verified=True)) == "MIT (commercial use allowed)"
    )
    by_family = {card.family: card.licence for card in all_cards()}
    assert by_family["metaclip_2"].commercial is False and by_family["siglip2"].commercial is True
    assert "fp16" not in cards.card_of_family("embedding_gemma2").dtypes


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    for content in (
        "family: x",
        "[1",
        "family: x\ntitle: x\nmodel_types: [x]\nlicence: {id: MIT}\nmodalities: []\ndtypes: []",
    ):
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(SpaceError, match=r"x\.yaml"):
            read_card(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("template", "phrase", "sentence"),
    [
        ("{}", "a dog", "a dog"),
        ("a photo of a {}.", "dog", "a photo of a dog."),
        ("a photo of a {}.", "the dog", "a photo of the dog."),
        ("a photo of a {}.", "A photo of two dogs.", "A photo of two dogs."),
        ("This is a sound of {}.", "glass breaking", "This is a sound of glass breaking."),
        ("task: search result | query: {}", "a dog", "task: search result | query: a dog"),
    ],
)
def test_a_template_is_put_around_a_phrase_once(template: str, phrase: str, sentence: str) -> None:
    assert apply_template(template, phrase) == sentence
    assert apply_template(template, sentence) == sentence


def test_siglip_2_of_a_fixed_size_has_the_model_type_of_siglip() -> None:
    def family(model_type: str, tokenizer: str) -> str:
        return find_card({"model_type": model_type}, {"tokenizer_class": tokenizer}, Path()).family

    assert family("siglip", "SiglipTokenizer") == "siglip"
    assert family("siglip", "GemmaTokenizer") == family("siglip", "Siglip2Tokenizer") == "siglip2"
    sizes = {"model_type": "siglip", "text_config": {"vocab_size": 256_000}}
    assert find_card(sizes, {}, Path()).family == "siglip2"
    assert family("siglip2", "") == "siglip2" and family("clip", "CLIPTokenizer") == "clip"


def test_without_settings_of_a_processor_the_card_s_are_used(folder: Path) -> None:
    space = load_space(f"transformers:{folder}")
    tensor = space.tensor(image_window(encoded(images(1)[0], "rgb8")))
    assert tensor.shape == (3, 32, 32) and -1 <= tensor.min() < tensor.max() <= 1


def test_vectors_are_cut_where_the_card_allows_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpaceError, match="cannot be cut, not to 16"):
        load_space(f"transformers:{folder}:16")
    full = load_space(f"transformers:{folder}")
    card = cards.card_of_family("siglip")
    monkeypatch.setattr(
        "sensebind.fusion.models.transformers.checkpoint.find_card",
        lambda *_: __import__("dataclasses").replace(card, matryoshka=(32, 16)),
    )
    with pytest.raises(SpaceError, match="can be cut to 32, 16, not to 8"):
        load_space(f"transformers:{folder}:8")
    cut = load_space(f"transformers:{folder}:16")
    assert cut.dimension == 16 and cut.id.partition("@")[0] == f"{folder.name}-16"
    window = image_window(encoded(images(1)[0], "rgb8"))
    for vectors, expected in (
        (cut.embed_text(["a dog"]), full.embed_text(["a dog"])),
        (cut.embed("vision", cut.tensor(window)[None]), full.embed("vision", full.tensor(window)[None])),
        (cut.encoder("vision")(cut.device_input(window)[None]), full.embed("vision", full.tensor(window)[None])),
    ):
        assert torch.allclose(vectors, normalize(expected[:, :16], dim=1), atol=1e-6)


def test_missing_and_damaged_checkpoints_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="sensebind weights fetch nobody/nothing"):
        load_space("transformers:nobody/nothing")
    with pytest.raises(SpaceError, match="name a folder or a model after 'transformers:'"):
        load_space("transformers:")
    with pytest.raises(SpaceError, match=r"no config\.json"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SpaceError, match="weights"):
        open_checkpoint(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"damaged")
    with pytest.raises(SpaceError, match="model_type 'bert', which is not supported; supported: .*siglip"):
        open_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(SpaceError, match=f"'{tmp_path}' cannot be loaded"):
        load_space(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpaceError, match=r"config\.json' is not JSON"):
        open_checkpoint(str(tmp_path))


def test_weights_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpaceError, match="do not fit: vision_model.*missing, left over or of another size"):
        load_space(f"transformers:{tmp_path}")


def changed(folder: Path, target: Path, file: str, *path: str, value: object) -> Path:
    """A copy of a checkpoint in which one value of a JSON file is another."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    content = json.loads((target / file).read_text()) if (target / file).is_file() else {}
    inner = content
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = value
    (target / file).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("file", "path", "value", "message"),
    [
        ("config.json", ("vision_config", "num_hidden_layers"), 0, "do not fit: vision_model.*left over"),
        ("config.json", ("text_config", "hidden_size"), "wide", "cannot be loaded: .*hidden_size"),
        ("config.json", ("vision_config", "hidden_act"), "nope", "cannot be loaded: .*nope"),
        ("config.json", ("attn_implementation",), "someone/code", "attn_implementation is 'someone/code'"),
        ("config.json", ("text_config", "_attn_implementation"), "flash_attention_2", "remove it, or set it to sdpa"),
        ("preprocessor_config.json", ("size",), {"shortest_edge": "a"}, "image_processor: "),
        ("preprocessor_config.json", ("size",), 10**9, "image_processor: size .*1000000000"),
        ("preprocessor_config.json", ("rescale_factor",), "x", "image_processor: "),
        ("preprocessor_config.json", ("image_std",), [0, 0, 0], "image_std above 0"),
        ("preprocessor_config.json", ("resample",), [1], "image_processor: "),
        ("tokenizer_config.json", ("model_max_length",), 2, "takes fewer than 4 tokens"),
        ("tokenizer_config.json", ("model_max_length",), "x", "tokenizer in .* cannot be loaded"),
    ],
)
def test_wrong_values_of_a_checkpoint_are_named_at_once(
    folder: Path, tmp_path: Path, file: str, path: tuple[str, ...], value: object, message: str
) -> None:
    with pytest.raises(SpaceError, match=message) as refused:
        load_space(f"transformers:{changed(folder, tmp_path / 'changed', file, *path, value=value)}")
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_checkpoint_without_the_files_of_its_tokenizer_is_refused(tmp_path: Path) -> None:
    import transformers as hf

    text = {**SIZES, "vocab_size": 40, "max_position_embeddings": 64}
    config = hf.CLIPConfig(text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 16})
    write_checkpoint(tmp_path, randomize(hf.CLIPModel(config)))
    with pytest.raises(SpaceError, match="tokenizer"):
        load_space(f"transformers:{tmp_path}")


def test_the_id_covers_the_files_that_are_loaded_and_no_others(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = open_checkpoint(str(tmp_path)).digest()
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"another library's copy")
    (tmp_path / "README.md").write_text("text")
    assert open_checkpoint(str(tmp_path)).digest() == before
    whole = (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for name, message in (("sub/model.safetensors", "which is not a file of weights there"), (whole.name, "")):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        if message:
            with pytest.raises(SpaceError, match=message):
                open_checkpoint(str(tmp_path))
    split = open_checkpoint(str(tmp_path)).digest()
    whole.write_bytes(whole.read_bytes() + b"0")
    assert len({before, split, open_checkpoint(str(tmp_path)).digest()}) == 3


def test_names_of_folders_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run:3")
    assert open_checkpoint(str(tmp_path / "run:3")).dimension == 0
    for name in ("x:²", "~nobody-here/x", "x" * 5000, f"{folder}:0"):
        with pytest.raises(SpaceError):
            open_checkpoint(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "hf-hub:someone/model"},
        {"architecture": "local-dir:/tmp"},
        {"model_args": {"checkpoint_path": "weights"}},
        {"model_args": {"pretrained": True}},
        {"model_args": {"pretrained_cfg": {"url": "http://127.0.0.1"}}},
        {"model_args": {"cache_dir": "x"}},
    ],
)
def test_a_checkpoint_cannot_make_timm_read_or_download_other_files(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is not allowed|is not the name of a model"):
        _image_config(settings)


def test_nothing_can_be_downloaded_while_a_checkpoint_is_loaded() -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with without_network():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


def test_a_model_is_downloaded_once_and_then_used_without_a_network(folder: Path, tmp_path: Path) -> None:
    with hub(folder, "someone/small") as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        done = run("weights", "fetch", "someone/small", **environment)
        assert done.returncode == 0, done.stderr
        assert "space: transformers:someone/small" in done.stdout and COMMIT in done.stdout
        fixed = run("weights", "fetch", "someone/small", "--revision", COMMIT, **environment)
        assert f"space: transformers:{tmp_path}" in fixed.stdout  # by name, the newest is used
        missing = run("weights", "fetch", "someone/absent", **environment)
        assert missing.returncode == 2 and "no model 'someone/absent'" in missing.stderr
    code = "from sensebind import load_space; print(load_space('transformers:someone/small').id)"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert loaded.stdout.startswith("small@"), loaded.stderr


def test_a_file_that_was_cut_off_is_downloaded_again(folder: Path, tmp_path: Path) -> None:
    with hub(folder, "someone/small") as endpoint:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        assert run("weights", "fetch", "someone/small", **environment).returncode == 0
        (weights,) = tmp_path.rglob("snapshots/*/model.safetensors")
        whole = weights.read_bytes()
        weights.resolve().write_bytes(whole[: len(whole) // 2])
        again = run("weights", "fetch", "someone/small", **environment)
        assert again.returncode == 0, again.stderr
    assert weights.read_bytes() == whole == (folder / "model.safetensors").read_bytes()


def test_without_a_network_a_download_fails_with_one_line(tmp_path: Path) -> None:
    done = run(
        "weights", "fetch", "google/siglip2-base-patch16-224", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path)
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "cannot be downloaded" in done.stderr and "transformers:<folder>" in done.stderr
    assert "licence Apache-2.0 (commercial use allowed)" in done.stdout


def test_the_known_models_and_their_licences_are_listed() -> None:
    done = run("weights", "fetch")
    assert done.returncode == 0
    for card in all_cards():
        assert card.title in done.stdout and card.models[0].id in done.stdout
    assert "not for commercial use" in done.stdout
