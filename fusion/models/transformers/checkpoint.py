"""A checkpoint of transformers on this computer: its folder, its settings, its card and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.transformers.cards import KnownModel, ModelCard, all_cards, find_known_model

WEIGHT_PATTERNS = ("*.safetensors",)
SETTINGS_PATTERNS = (  # with the weights, all files that decide the vectors
    "config.json", "*processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model",
)  # fmt: skip
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
        patterns = (*WEIGHT_PATTERNS, *SETTINGS_PATTERNS)
        try:
            for path in sorted({path for pattern in patterns for path in self.folder.glob(pattern)}):
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
    if not any(folder.glob(WEIGHT_PATTERNS[0])):
        raise SpaceError(f"'{folder}' has no weights: a file *.safetensors is missing")
    config = _read_json(folder / "config.json")
    found = find_known_model(name)
    card = find_card(config, _read_json(folder / "tokenizer_config.json"), folder)
    if dimension and dimension not in card.matryoshka:
        allowed = f"can be cut to {', '.join(map(str, card.matryoshka))}" if card.matryoshka else "cannot be cut"
        raise SpaceError(f"vectors of {card.title} {allowed}, not to {dimension}")
    model = found[1] if found and found[0] is card else None
    return Checkpoint(name or folder.name, folder, config, card, model, dimension)


def find_card(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], folder: Path) -> ModelCard:
    """The card of the family of a `config.json`. Raises `SpaceError` if no family has its `model_type`."""
    model_type = str(config.get("model_type", ""))
    cards = [card for card in all_cards() if model_type in card.model_types]
    if not cards:
        known = ", ".join(sorted({kind for card in all_cards() for kind in card.model_types}))
        raise SpaceError(f"'{folder}' has the model_type '{model_type}', which is not supported; supported: {known}")
    if len(cards) > 1:  # SigLIP 2 with a fixed size has the model_type of SigLIP, and Gemma's tokenizer
        is_siglip2 = "gemma" in str(tokenizer_config.get("tokenizer_class", "")).lower()
        is_siglip2 |= "siglip2" in str(tokenizer_config.get("tokenizer_class", "")).lower()
        cards = [card for card in cards if (card.family == "siglip2") == is_siglip2] or cards
    return cards[0]


def _split_dimension(name: str) -> tuple[str, int]:
    """``name:256`` → (``name``, 256); without a number → (name, 0)."""
    before, colon, after = name.rpartition(":")
    return (before, int(after)) if colon and after.isdigit() else (name, 0)


def _folder(name: str, weights: str) -> Path:
    if weights:
        if not Path(weights).is_dir():
            raise SpaceError(f"weights '{weights}' is not a folder: set it to the folder with config.json")
        return Path(weights)
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    found = find_known_model(name)
    downloaded = downloaded_folder(name, found[1].revision if found else "") if name.count("/") == 1 else None
    if downloaded is None:
        raise SpaceError(
            f"'{name}' is neither a folder nor a downloaded model. Download it with: sensebind weights fetch {name}"
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


def _read_json(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file; empty if there is no such file. Raises `SpaceError`."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpaceError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise SpaceError(f"'{path}' does not hold a JSON object")
    return data
