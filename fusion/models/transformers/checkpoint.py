"""A checkpoint of transformers on this computer: its folder, its settings, its card and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensebind.fusion.core.documents import DocumentError, read_json
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.transformers.cards import KnownModel, ModelCard, all_cards, find_known_model

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
SETTINGS_PATTERNS = (  # with the weights, all files that decide the vectors
    "config.json", "*processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model",
)  # fmt: skip
GEMMA_VOCABULARY = 256_000  # tokens of Gemma's tokenizer, which SigLIP 2 has
MAX_JSON_BYTES = 64 * 2**20  # of a settings file or an index of weights
PREFIX = "transformers"  # the space is called transformers:<folder or owner/model>


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one model.

    Attributes:
        name: folder or name (owner/model), as in the name of the space.
        folder: where the files are.
        config: content of `config.json`.
        card: the card of its family.
        model: the entry of the card for this checkpoint; None for one that the card does not know.
        dimension: length to which vectors are cut (Matryoshka); 0: their full length.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    card: ModelCard
    model: KnownModel | None
    dimension: int = 0

    def processor_settings(self, part: str) -> Mapping[str, Any]:
        """The settings of `image_processor`, `video_processor` or `feature_extractor`; empty if no file has them.

        They are in `processor_config.json`, or in `preprocessor_config.json` of older checkpoints. Raises `SpaceError`.
        """
        settings = _read_json(self.folder / "processor_config.json").get(part)
        if settings is None:
            file = "video_preprocessor_config.json" if part == "video_processor" else "preprocessor_config.json"
            settings = _read_json(self.folder / file)
        if not isinstance(settings, Mapping):
            raise SpaceError(f"'{self.folder}': {part} of the processor's settings is not a mapping")
        return settings

    def digest(self) -> str:
        """SHA-256 of the names and contents of all files that decide the vectors, in hexadecimal. Raises
        `SpaceError`."""
        total = hashlib.sha256()
        settings = {path for pattern in SETTINGS_PATTERNS for path in self.folder.glob(pattern)}
        try:
            for path in sorted({*settings, *weight_files(self.folder)}):
                total.update(f"{path.name} {sha256_of(path)}\n".encode())
        except OSError as error:
            raise SpaceError(f"'{self.folder}' cannot be read: {error}") from error
        return total.hexdigest()


def open_checkpoint(name: str, weights: str = "") -> Checkpoint:
    """Find the checkpoint `name`: a folder, or owner/model of one that `sensebind weights fetch` downloaded.

    A number after the name, as in ``google/embeddinggemma-2:256``, is the length to which its vectors are cut.
    `weights`: its folder; empty: `name` decides. Nothing is downloaded. Raises `SpaceError`, which names the remedy.
    """
    name, dimension = _split_dimension(name)
    if not name and not weights:
        known = ", ".join(card.models[0].id for card in all_cards() if card.models)
        raise SpaceError(
            f"name a folder or a model after '{PREFIX}:', as in {PREFIX}:google/siglip2-base-patch16-224 "
            f"(known families: {known}, …)"
        )
    folder = _folder(name, weights)
    if not (folder / "config.json").is_file():
        raise SpaceError(f"'{folder}' is not a model of transformers: it has no config.json")
    weight_files(folder)
    config = _read_json(folder / "config.json")
    _check_attention(config, folder)
    found = find_known_model(name)
    card = find_card(config, _read_json(folder / "tokenizer_config.json"), folder)
    if dimension is not None and dimension not in card.matryoshka:
        allowed = f"can be cut to {', '.join(map(str, card.matryoshka))}" if card.matryoshka else "cannot be cut"
        raise SpaceError(f"vectors of {card.title} {allowed}, not to {dimension}")
    model = found[1] if found and found[0] is card else None
    return Checkpoint(name or folder.name, folder, config, card, model, dimension or 0)


def weight_files(folder: Path) -> list[Path]:
    """`model.safetensors`, or the index of several files and the files that it names. Raises `SpaceError`."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    names = _read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise SpaceError(f"'{folder}' has no weights: neither {WEIGHTS} nor {WEIGHTS_INDEX}")
    files = sorted({str(name) for name in names.values()})
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors") or not (folder / name).is_file():
            raise SpaceError(f"'{folder}': {WEIGHTS_INDEX} names '{name}', which is not a file of weights there")
    return [folder / WEIGHTS_INDEX, *(folder / name for name in files)]


def _check_attention(settings: Any, folder: Path) -> None:
    """Refuse a configuration that asks for an implementation of attention which the library would download and run.
    Raises `SpaceError`."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if "attn_implementation" in key and value not in (None, "eager", "sdpa"):
            raise SpaceError(f"'{folder}': {key} is {value!r} in config.json: remove it, or set it to sdpa")
        _check_attention(value, folder)


def find_card(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], folder: Path) -> ModelCard:
    """The card of the family of a `config.json`. Raises `SpaceError` if no family has its `model_type`."""
    model_type = str(config.get("model_type", ""))
    cards = [card for card in all_cards() if model_type in card.model_types]
    if not cards:
        known = ", ".join(sorted({kind for card in all_cards() for kind in card.model_types}))
        raise SpaceError(f"'{folder}' has the model_type '{model_type}', which is not supported; supported: {known}")
    if len(cards) > 1:  # SigLIP 2 with a fixed size has the model_type of SigLIP, and Gemma's tokenizer
        tokenizer, text = str(tokenizer_config.get("tokenizer_class", "")).lower(), config.get("text_config")
        is_siglip2 = "gemma" in tokenizer or "siglip2" in tokenizer
        is_siglip2 |= isinstance(text, dict) and text.get("vocab_size") == GEMMA_VOCABULARY
        cards = [card for card in cards if (card.family == "siglip2") == is_siglip2] or cards
    return cards[0]


def _split_dimension(name: str) -> tuple[str, int | None]:
    """``name:256`` → (``name``, 256); without a number, or if it is the name of a folder → (name, None)."""
    before, colon, after = name.rpartition(":")
    numbered = bool(colon) and after.isascii() and after.isdecimal() and len(after) < 8
    return (before, int(after)) if numbered and not _is_folder(name) else (name, None)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, an unknown user
        return False


def _folder(name: str, weights: str) -> Path:
    """The folder of the files. Raises `SpaceError`."""
    if weights:
        if not _is_folder(weights):
            raise SpaceError(f"weights '{weights}' is not a folder: set it to the folder with config.json")
        return Path(weights).expanduser()
    if _is_folder(name):
        return Path(name).expanduser()
    found = find_known_model(name)
    downloaded = downloaded_folder(name, found[1].revision if found else "") if name.count("/") == 1 else None
    if downloaded is None:
        raise SpaceError(
            f"'{name[:200]}' is neither a folder nor a downloaded model. Download it with: sensebind weights fetch "
            f"{name[:200]}"
        )
    return downloaded


def downloaded_folder(name: str, revision: str = "") -> Path | None:
    """The folder of a model in the cache of huggingface_hub; None if it is not there."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


@contextmanager
def without_network() -> Iterator[None]:
    """Keep the libraries from downloading what files of a checkpoint name."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _read_json(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file; empty if there is no such file. Raises `SpaceError`."""
    if not path.is_file():
        return {}
    try:
        data = read_json(path, MAX_JSON_BYTES)
    except (OSError, DocumentError) as error:
        raise SpaceError(str(error)) from error
    if not isinstance(data, dict):
        raise SpaceError(f"'{path}' does not hold a JSON object")
    return data
