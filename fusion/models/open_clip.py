"""Any image-text model of open_clip as a hub: `space: open_clip:ViT-B-32`, `weights: <its file>`.

Use it if the licence of ImageBind's weights forbids your use. It embeds vision and text. `sensebind align` trains
spokes for other modalities. It needs the package open_clip_torch (extra `open_clip`). Nothing is downloaded.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from sensebind.fusion.core import encodings
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Encoder, Hub, Preparation, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.imagebind import weights as files
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.precision import torch_dtype
from sensebind.fusion.preprocess.image import IMAGE_SIZE, squash_to_tensor

FAMILY_NAME = "open_clip"
TEXT_BATCH_SIZE = 64


class ClipImageEncoder(nn.Module):
    """RGB images float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, D): resizing, normalization and image encoder."""

    mean: Tensor
    std: Tensor

    def __init__(self, visual: nn.Module, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.visual, self.image_size = visual, image_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.image_size != IMAGE_SIZE:
            images = interpolate(images, (self.image_size, self.image_size), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (images - self.mean) / self.std
        return normalize(self.visual(pixels.to(next(self.visual.parameters()).dtype)).float(), dim=1)


class OpenClipSpace(Hub):
    """An image-text model of open_clip as a hub. Images are resized to a square, without cropping."""

    id: str
    dimension: int
    licence = "that of the weights: see their source"
    trained_windows: Mapping[str, TrainedWindow] = {
        VISION: TrainedWindow(0.5, frames=1),
        AUDIO: TrainedWindow(2.0),
        DEPTH: TrainedWindow(0.25, frames=1),
        THERMAL: TrainedWindow(0.25, frames=1),
        IMU: TrainedWindow(5.0),
    }

    def __init__(self, name: str, model: Any, tokenizer: Any, digest: str, device: str, dtype: torch.dtype) -> None:
        visual = model.visual
        side = visual.image_size[0] if isinstance(visual.image_size, Sequence) else visual.image_size
        mean = getattr(visual, "image_mean", None) or (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
        std = getattr(visual, "image_std", None) or (0.26862954, 0.26130258, 0.27577711)
        self.id = f"{FAMILY_NAME}-{name}@{digest[:12]}"
        self.device = torch.device(device)
        self._model, self._tokenizer = model.eval().requires_grad_(False).to(self.device, dtype), tokenizer
        self._image_encoder = ClipImageEncoder(self._model.visual, int(side), mean, std).to(self.device)
        scale = getattr(model, "logit_scale", None)
        self._logit_scale = float(scale.detach().float().exp()) if isinstance(scale, Tensor) else 100.0
        self._text_cache = TextEmbeddingCache()
        self._text_lock = threading.Lock()  # one thread at a time uses the text encoder
        self.dimension = int(self._encode_text(["a photo"]).shape[1])

    @classmethod
    def load(
        cls,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
        model: str = "",
    ) -> OpenClipSpace:
        """Load open_clip's model `model`, with the weights in the file `weights`. Raises `SpaceError`."""
        try:
            import open_clip
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit PyTorch raises RuntimeError
            raise SpaceError(
                f"{FAMILY_NAME} cannot be imported ({error}): pip install 'sensebind[open_clip]'"
            ) from error
        if not model or open_clip.get_model_config(model) is None:
            known = ", ".join(open_clip.list_models()[:8])
            raise SpaceError(
                f"open_clip has no model '{model}': name one, as in open_clip:ViT-B-32 (known: {known}, …)"
            )
        if not weights or not Path(weights).is_file():
            raise SpaceError(
                f"space '{FAMILY_NAME}:{model}' needs a weight file: set weights to its path; '{weights}' is not a file"
            )
        precision = torch_dtype(dtype)
        clip = open_clip.create_model(model, pretrained=None, device="cpu")
        try:
            state = files.read_tensors(weights, lambda name: True)
            clip.load_state_dict(state, strict=True)
            tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError) as error:
            raise SpaceError(f"'{weights}' does not fit open_clip's {model}: {str(error).splitlines()[0]}") from error
        return cls(model, clip, tokenizer, sha256_of(weights), device, precision)

    @property
    def modalities(self) -> tuple[str, ...]:
        return (TEXT, VISION)

    @property
    def logit_scales(self) -> Mapping[str, float]:
        return {TEXT: self._logit_scale, VISION: self._logit_scale}

    def tensor(self, window: Window) -> Tensor:
        """The newest frame of a vision window → RGB float32 (3, 224, 224) in 0..1.

        Raises `EncodingError`, and `ValueError` for windows of other modalities.
        """
        return newest_image(window)

    def preparation(self, modality: str) -> Preparation:
        """See `core.space.Space`."""
        return newest_image

    @torch.inference_mode()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """RGB images (B, 3, 224, 224) in 0..1 → float32 (B, D) unit vectors on the CPU. Raises `ValueError` for other
        modalities than vision."""
        if modality != VISION:
            raise ValueError(f"{self.id} has no encoder for '{modality}'; it has {TEXT} and {VISION}")
        return torch.as_tensor(self._image_encoder(batch.to(self.device))).cpu()

    def encoder(self, modality: str) -> Encoder:
        """See `core.space.Space`. Raises `ValueError` for other modalities than vision."""
        if modality != VISION:
            raise ValueError(f"{self.id} has no encoder for '{modality}'; it has {TEXT} and {VISION}")
        return lambda rows: torch.as_tensor(self._image_encoder(rows))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, D) unit vectors on the CPU."""
        return (
            self._text_cache.embed(self.id, texts, self._encode_text) if len(texts) else torch.empty(0, self.dimension)
        )

    def image_encoder(self) -> nn.Module:
        """See `core.space.Hub`."""
        return copy.deepcopy(self._image_encoder).to("cpu", torch.float32)

    @torch.inference_mode()
    def _encode_text(self, texts: Sequence[str]) -> Tensor:
        with self._text_lock:
            parts = [
                self._model.encode_text(self._tokenizer(list(texts[i : i + TEXT_BATCH_SIZE])).to(self.device))
                .float()
                .cpu()
                for i in range(0, len(texts), TEXT_BATCH_SIZE)
            ]
        return normalize(torch.cat(parts), dim=1)


def newest_image(window: Window) -> Tensor:
    """As `OpenClipSpace.tensor`."""
    frame = window.samples[-1].data
    if window.modality != VISION or not isinstance(frame, Frame):
        raise ValueError(f"open_clip cannot take windows of modality '{window.modality}'")
    return squash_to_tensor(encodings.decode_rgb(frame).astype("float32") / 255)
