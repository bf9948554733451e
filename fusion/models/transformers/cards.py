"""Model cards: the published facts of each family of models, as data (`cards/*.yaml`).

Keys of a file that this module does not read are for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sensebind.fusion.core.documents import read_yaml
from sensebind.fusion.core.space import SpaceError

CARDS_FOLDER = Path(__file__).parent / "cards"


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of weights. `commercial`: whether it allows commercial use (None: not known). `source` and
    `revision`: the document that was read; without both, the licence is not verified."""

    id: str
    commercial: bool | None = None
    source: str = ""
    revision: str = ""
    verified: bool = False  # by whoever wrote the card

    def __str__(self) -> str:
        use = {True: "commercial use allowed", False: "not for commercial use", None: "commercial use not known"}
        checked = "" if self.is_verified else "; unverified: see the source of the weights"
        return f"{self.id} ({use[self.commercial]}{checked})"

    @property
    def is_verified(self) -> bool:
        """Whether the card cites the document and its revision."""
        return self.verified and bool(self.source and self.revision)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One published checkpoint of a family. `revision`: commit of its repository, which `sensebind weights fetch`
    downloads (empty: the newest). `parameters`: their number. `gflop`: per input, by modality. `memory_mb`: of the
    weights, by precision."""

    id: str
    revision: str = ""
    licence: Licence | None = None
    dimension: int = 0
    parameters: float = 0.0
    gflop: Mapping[str, float | None] = field(default_factory=dict)
    memory_mb: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts of a family.

    Attributes:
        family: the name that this package uses.
        title: the name for people.
        model_types: values of `model_type` in the `config.json` of its checkpoints.
        licence: that of the published weights.
        modalities: those with an encoder in a complete checkpoint.
        dtypes: precisions in which the encoders may compute.
        templates: published sentences around a phrase; each holds ``{}`` once.
        lowercase: whether phrases are written in lower case before the tokenizer.
        max_length: tokens of a phrase. 0: the limit of the tokenizer.
        padding: ``max_length`` or ``longest``: to which length phrases are padded.
        vision, audio: settings of the sensors; see the file of the family.
        matryoshka: lengths to which vectors may be cut.
        models: known checkpoints.
        notes: what a user must know; `sensebind weights fetch NAME` prints it.
    """

    family: str
    title: str
    model_types: tuple[str, ...]
    licence: Licence
    modalities: tuple[str, ...]
    dtypes: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)
    lowercase: bool = False
    max_length: int = 0
    padding: str = "longest"
    vision: Mapping[str, Any] = field(default_factory=dict)
    audio: Mapping[str, Any] = field(default_factory=dict)
    matryoshka: tuple[int, ...] = ()
    models: tuple[KnownModel, ...] = ()
    notes: str = ""

    def known_model(self, name: str) -> KnownModel | None:
        """The checkpoint called `name` (owner/model); None if the card does not know it."""
        return next((model for model in self.models if model.id.lower() == name.lower()), None)


def read_card(path: Path) -> ModelCard:
    """Read a card. Raises `SpaceError`, which names the file and the key, if it is damaged."""
    try:
        data = read_yaml(path)
        text = data.get("text", {})
        card = ModelCard(
            family=str(data["family"]),
            title=str(data["title"]),
            model_types=tuple(data["model_types"]),
            licence=_licence(data["licence"]),
            modalities=tuple(data["modalities"]),
            dtypes=tuple(data["dtypes"]),
            templates=tuple(text.get("templates") or ("{}",)),
            lowercase=bool(text.get("lowercase", False)),
            max_length=int(text.get("max_length") or 0),
            padding=str(text.get("padding", "longest")),
            vision=data.get("vision") or {},
            audio=data.get("audio") or {},
            matryoshka=tuple(data.get("matryoshka") or ()),
            models=tuple(_known_model(model) for model in data.get("models") or ()),
            notes=str(data.get("notes") or ""),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpaceError(f"the model card '{path}' cannot be read: {error!r}") from error
    _check(card, path)
    return card


@lru_cache(maxsize=1)
def all_cards() -> tuple[ModelCard, ...]:
    """The cards of all families, by name."""
    return tuple(read_card(path) for path in sorted(CARDS_FOLDER.glob("*.yaml")))


def card_of_family(family: str) -> ModelCard:
    """The card of a family. Raises `KeyError`."""
    return {card.family: card for card in all_cards()}[family]


def find_known_model(name: str) -> tuple[ModelCard, KnownModel] | None:
    """The card and the entry of a published checkpoint, by its name (owner/model); None if no card knows it."""
    for card in all_cards():
        if model := card.known_model(name):
            return card, model
    return None


def _licence(data: Mapping[str, Any]) -> Licence:
    return Licence(
        id=str(data["id"] or "not known"),
        commercial=data.get("commercial"),
        source=str(data.get("source") or ""),
        revision=str(data.get("revision") or ""),
        verified=bool(data.get("verified", False)),
    )


def _known_model(data: Mapping[str, Any]) -> KnownModel:
    return KnownModel(
        id=str(data["id"]),
        revision=str(data.get("revision") or ""),
        licence=_licence(data["licence"]) if data.get("licence") else None,
        dimension=int(data.get("dimension") or 0),
        parameters=float(data.get("parameters") or 0),
        gflop=data.get("gflop") or {},
        memory_mb=data.get("memory_mb") or {},
    )


def _check(card: ModelCard, path: Path) -> None:
    problems: Sequence[tuple[bool, str]] = (
        (any(template.count("{}") != 1 for template in card.templates), "each of text.templates must hold {} once"),
        (card.padding not in ("max_length", "longest"), "text.padding must be max_length or longest"),
        (card.padding == "max_length" and not card.max_length, "text.max_length is missing"),
        (not card.dtypes, "dtypes is empty"),
    )
    for wrong, problem in problems:
        if wrong:
            raise SpaceError(f"the model card '{path}' is wrong: {problem}")
