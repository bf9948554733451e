"""A model of transformers as a space and a hub: `space: transformers:<folder or owner/model>`.

Families that have a card in `cards/` are supported. Nothing is downloaded here: `sensebind weights fetch` does that.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION
from sensebind.fusion.core.space import Encoder, Hub, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.image_rendering import RENDERED
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.precision import AUTO_DTYPE, DTYPE_NAMES, torch_dtypes
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import PREFIX, Checkpoint, open_checkpoint, without_network
from sensebind.fusion.models.transformers.family import ModelFamily, RgbEncoder, SensorEncoder

LOG = logging.getLogger(__name__)

MIN_VERSION = (5, 24)
INSTALL = "pip install 'transformers>=5.24' huggingface_hub sentencepiece protobuf (Python 3.11 or newer)"
FAMILY_MODULES = {  # family of a card → module and class that load it
    "clap": "clap:ClapFamily",
    "clip": "image_text:ImageTextFamily",
    "metaclip_2": "image_text:ImageTextFamily",
    "pe_audio_video": "pe_av:PeFamily",
    "siglip": "image_text:ImageTextFamily",
    "siglip2": "image_text:ImageTextFamily",
    "embedding_gemma2": "embedding_gemma:EmbeddingGemmaFamily",
}
SPOKE_WINDOWS: Mapping[str, TrainedWindow] = {  # of modalities for which a spoke may be trained
    AUDIO: TrainedWindow(2.0),
    DEPTH: TrainedWindow(0.25, frames=1),
    THERMAL: TrainedWindow(0.25, frames=1),
    IMU: TrainedWindow(5.0),
}


class TransformersSpace(Hub):
    """A model of transformers. Its card (`card`) says what is published about its family."""

    id: str
    dimension: int
    licence: str
    logit_scales: Mapping[str, float]

    def __init__(self, checkpoint: Checkpoint, model: ModelFamily, device: str, dtype: torch.dtype) -> None:
        self.card: ModelCard = checkpoint.card
        self.device, self.dtype = torch.device(device), dtype
        self.dimension = checkpoint.dimension or model.dimension
        cut = f"-{self.dimension}" if self.dimension < model.dimension else ""
        variant = f"+{model.variant}" if model.variant else ""
        name = Path(checkpoint.name).name or checkpoint.folder.resolve().name
        self.id = f"{name}{variant}{cut}@{checkpoint.digest()[:12]}"
        self.licence = licence_of(checkpoint)
        self.logit_scales = {m: s for m, s in model.logit_scales.items() if m == TEXT or m in model.encoders}
        self._logit_biases = dict(model.logit_biases)
        if not all(map(math.isfinite, (*self.logit_scales.values(), *self._logit_biases.values()))):
            raise SpaceError(f"'{checkpoint.folder}': the logit scale or bias is not finite: the weights are damaged")
        self._encoders: Mapping[str, SensorEncoder] = {m: e.to(self.device) for m, e in model.encoders.items()}
        self._text = model.text.to(self.device)
        self._text_cache = TextEmbeddingCache()
        self.trained_windows: Mapping[str, TrainedWindow] = {
            **SPOKE_WINDOWS,
            **{modality: encoder.window for modality, encoder in model.encoders.items()},
        }

    @classmethod
    def load(
        cls,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = AUTO_DTYPE,
        model: str = "",
    ) -> TransformersSpace:
        """Load the checkpoint `model`: a folder, or a downloaded model of Hugging Face. `weights`: its folder, if it is
        elsewhere. Raises `SpaceError`."""
        _check_package()
        checkpoint = open_checkpoint(model, weights)
        precision = _precision(checkpoint.card, dtype, device)
        requested = None if modalities is None else set(modalities)
        if requested is not None and requested & set(RENDERED):
            requested.add(VISION)  # its encoder embeds rendered images
        names = None if requested is None else sorted(requested)
        with without_network():
            loaded = cls(checkpoint, _family(checkpoint).load(checkpoint, names, precision), device, precision)
        _log(checkpoint, loaded)
        return loaded

    @property
    def modalities(self) -> tuple[str, ...]:
        return (TEXT, *self._encoders)

    @property
    def logit_biases(self) -> Mapping[str, float]:
        """See `core.space.Space`."""
        return self._logit_biases

    def tensor(self, window: Window) -> Tensor:
        """See `core.space.Space`. Raises `EncodingError`, and `ValueError` for modalities without an encoder."""
        encoder = self._encoder_of(window.modality)
        return encoder.prepare(encoder.device_input(window)[None])[0]

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`. Images are uint8 (H, W, 3); the device resizes and normalizes them."""
        return self._encoder_of(window.modality).device_input(window)

    @torch.inference_mode()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """See `core.space.Space`. Raises `ValueError` for modalities without an encoder, and `RuntimeError` if vectors
        are not finite."""
        vectors = self._cut(self._encoder_of(modality)(batch.to(self.device))).cpu()
        return self._finite(modality, vectors)

    def encoder(self, modality: str) -> Encoder:
        """See `core.space.Space`. Raises `ValueError` for modalities without an encoder."""
        encoder = self._encoder_of(modality)
        return lambda rows: self._cut(encoder(encoder.prepare(rows)))

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`."""
        return modality in self._encoders and self._encoders[modality].capturable

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, D) unit vectors on the CPU. The first template of the card is put around each."""
        if not len(texts):
            return torch.empty(0, self.dimension)
        return self._text_cache.embed(self.id, texts, self._embed_text)

    def image_encoder(self) -> nn.Module:
        """See `core.space.Hub`. Raises `SpaceError` if the image encoder is not loaded."""
        encoder = self._encoders.get(VISION)
        if not isinstance(encoder, RgbEncoder):
            raise SpaceError(f"{self.id} has no image encoder here; it has {', '.join(self.modalities)}")
        return HubImageEncoder(copy.deepcopy(encoder).to("cpu", torch.float32), self.dimension)

    def _embed_text(self, texts: Sequence[str]) -> Tensor:
        return self._finite(TEXT, self._cut(self._text.embed(texts)))

    def _finite(self, modality: str, vectors: Tensor) -> Tensor:
        if torch.isfinite(vectors).all():
            return vectors
        remedy = "the weights are damaged" if self.dtype == torch.float32 else "set dtype to float32"
        raise RuntimeError(f"vectors of {modality} are not finite in {self.dtype}: {remedy}")

    def _cut(self, vectors: Tensor) -> Tensor:
        return cut_vectors(vectors, self.dimension)

    def _encoder_of(self, modality: str) -> SensorEncoder:
        if modality not in self._encoders:
            raise ValueError(f"{self.id} has no encoder for '{modality}'; it has {', '.join(self.modalities)}")
        return self._encoders[modality]


class HubImageEncoder(nn.Module):
    """RGB images float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, D)."""

    def __init__(self, encoder: RgbEncoder, dimension: int) -> None:
        super().__init__()
        self.encoder, self.dimension = encoder, dimension

    def forward(self, images: Tensor) -> Tensor:
        return cut_vectors(self.encoder(self.encoder.prepare_float(images)), self.dimension)


def cut_vectors(vectors: Tensor, dimension: int) -> Tensor:
    """Unit vectors (B, D) → unit vectors (B, dimension): the first numbers (Matryoshka)."""
    return vectors if vectors.shape[1] == dimension else normalize(vectors[:, :dimension], dim=1)


def _check_package() -> None:
    """Raises `SpaceError` if the package transformers is missing or too old."""
    try:
        import transformers
    except ImportError as error:
        raise SpaceError(f"the space {PREFIX}:… needs the package transformers ({error}): {INSTALL}") from error
    if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < MIN_VERSION:
        raise SpaceError(f"the space {PREFIX}:… needs transformers 5.24, not {transformers.__version__}: {INSTALL}")


def licence_of(checkpoint: Checkpoint) -> str:
    """The licence of a checkpoint as a sentence. That of a checkpoint that its card does not name is not verified."""
    model, card = checkpoint.model, checkpoint.card
    if model is not None:
        return str(model.licence or card.licence)
    return (
        f"unverified: the card of {card.title}, whose models have {card.licence.id}, does not name '{checkpoint.name}'"
    )


def _family(checkpoint: Checkpoint) -> type[ModelFamily]:
    from importlib import import_module

    module, name = FAMILY_MODULES[checkpoint.card.family].split(":")
    family: type[ModelFamily] = getattr(import_module(f"{__package__}.{module}"), name)
    return family


def _precision(card: ModelCard, dtype: str, device: str) -> torch.dtype:
    """The precision of `dtype`. auto: the first of bf16, fp16 that the card allows on a GPU, else float32.

    Raises `SpaceError` if the card does not allow `dtype`.
    """
    known = torch_dtypes()
    if dtype == AUTO_DTYPE:
        on_gpu = torch.device(device).type == "cuda"
        fast = ("bf16", "fp16") if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
        return known[next((name for name in fast if on_gpu and name in card.dtypes), "float32")]
    if dtype not in known:
        raise SpaceError(f"dtype '{dtype}' is not one of {AUTO_DTYPE}, {', '.join(DTYPE_NAMES)}")
    if dtype not in card.dtypes:
        raise SpaceError(f"{card.title} cannot compute in {dtype}: set dtype to {' or '.join(card.dtypes)}")
    return known[dtype]


def _log(checkpoint: Checkpoint, space: TransformersSpace) -> None:
    if checkpoint.model is None:
        LOG.warning(
            "'%s' is not in the card of %s: the settings of the family are used, and its licence is not verified",
            checkpoint.name,
            checkpoint.card.title,
        )
    LOG.info("%s (%s): licence %s", space.id, checkpoint.card.title, space.licence)
