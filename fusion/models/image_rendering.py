"""Depth and thermal images for a hub that has no encoder for them: rendered as grey images, for its image encoder.

This is a baseline: the image encoder has seen few such images. `sensebind align` trains spokes that start from the same
rendering.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor, nn

from sensebind.fusion.core import encodings
from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION, Calibration, Frame
from sensebind.fusion.core.space import Encoder, Hub, Preparation, Space, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.depth import log_depth_image
from sensebind.fusion.preprocess.thermal import stretch_contrast

RENDERED = (DEPTH, THERMAL)
RENDERED_WINDOW = TrainedWindow(0.25, frames=1)


class RenderingHub(Hub):
    """A hub whose image encoder also embeds depth and thermal images, where the hub has no encoder for them.

    Depth: near is bright, on a logarithmic scale between the 1st and the 99th percentile. Thermal: warm is bright.
    """

    def __init__(self, hub: Hub, rendered: Sequence[str]) -> None:
        self.hub, self.rendered = hub, tuple(rendered)
        self.device, self.dtype = hub.device, hub.dtype
        self.shipped_spokes, self.compiled = hub.shipped_spokes, hub.compiled

    @property
    def id(self) -> str:
        """The id of the hub: the vectors are in its space."""
        return self.hub.id

    @property
    def dimension(self) -> int:
        return self.hub.dimension

    @property
    def licence(self) -> str:
        return self.hub.licence

    @property
    def modalities(self) -> tuple[str, ...]:
        return (*self.hub.modalities, *self.rendered)

    @property
    def logit_scales(self) -> Mapping[str, float]:
        return {**self.hub.logit_scales, **dict.fromkeys(self.rendered, self.hub.logit_scales[VISION])}

    @property
    def logit_biases(self) -> Mapping[str, float]:
        """See `core.space.Space`."""
        biases = self.hub.logit_biases
        return {**biases, **dict.fromkeys(self.rendered, biases[VISION])} if VISION in biases else biases

    @property
    def trained_windows(self) -> Mapping[str, TrainedWindow]:
        return {**self.hub.trained_windows, **dict.fromkeys(self.rendered, RENDERED_WINDOW)}

    def tensor(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        return self.hub.tensor(self._as_vision(window))

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """See `core.space.Space`."""
        return self.hub.embed(self._encoder_name(modality), batch)

    def embed_async(self, modality: str, batch: Tensor) -> EmbeddingFuture:
        """See `core.space.Space`."""
        return self.hub.embed_async(self._encoder_name(modality), batch)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """See `core.space.Space`."""
        return self.hub.embed_text(texts)

    def encoder_id(self, modality: str) -> str:
        """See `core.space.Space`. Of rendered images: from that of the image encoder."""
        encoder = self.hub.encoder_id(self._encoder_name(modality))
        return f"rendered-{encoder}" if modality in self.rendered else encoder

    def competence(self, modality: str, phrases: Sequence[str]) -> Tensor:
        """See `core.space.Space`. The competence of rendered images is not known: 1."""
        if modality in self.rendered:
            return super().competence(modality, phrases)
        return self.hub.competence(modality, phrases)

    def limits_classifiers(self, modality: str) -> bool:
        """See `core.space.Space`. False for rendered images."""
        return modality not in self.rendered and self.hub.limits_classifiers(modality)

    def nearest_phrases(self, modality: str, phrase: str) -> list[str]:
        """See `core.space.Space`."""
        return self.hub.nearest_phrases(modality, phrase)

    def object_names(self, modality: str) -> tuple[str, ...]:
        """See `core.space.Space`."""
        return self.hub.object_names(self._encoder_name(modality))

    def named_objects(self, phrases: Sequence[str]) -> list[str]:
        """See `core.space.Space`."""
        return self.hub.named_objects(phrases)

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """See `core.space.Space`."""
        compiled = self.hub.compiled_modalities
        return compiled | set(self.rendered) if VISION in compiled else compiled

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        return self.hub.device_input(self._as_vision(window))

    def preparation(self, modality: str) -> Preparation | None:
        """See `core.space.Space`."""
        prepare = self.hub.preparation(self._encoder_name(modality))
        return partial(_prepare_rendered, prepare) if prepare and modality in self.rendered else prepare

    def encoder(self, modality: str) -> Encoder:
        """See `core.space.Space`."""
        return self.hub.encoder(self._encoder_name(modality))

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`."""
        return self.hub.graph_capturable(self._encoder_name(modality))

    def image_encoder(self) -> nn.Module:
        """See `core.space.Hub`."""
        return self.hub.image_encoder()

    def target_encoder(self) -> Encoder:
        """See `core.space.Hub`."""
        return self.hub.target_encoder()

    def computed_concepts(self, name: str, rate: float) -> nn.Module:
        """See `core.space.Hub`: the hub's."""
        return self.hub.computed_concepts(name, rate)

    def _encoder_name(self, modality: str) -> str:
        return VISION if modality in self.rendered else modality

    def _as_vision(self, window: Window) -> Window:
        return rendered_window(window) if window.modality in self.rendered else window


def with_rendering(space: Space, modalities: Iterable[str] | None) -> Space:
    """The space; with a `RenderingHub` around it if it is a hub with an image encoder that may render, and `modalities`
    (None: all) has one of depth and thermal for which the hub has no encoder."""
    if not isinstance(space, Hub) or not space.renders_images or VISION not in space.modalities:
        return space
    requested = set(RENDERED if modalities is None else modalities)
    rendered = [m for m in RENDERED if m in requested and m not in space.modalities]
    return RenderingHub(space, rendered) if rendered else space


def _prepare_rendered(prepare: Preparation, window: Window) -> Tensor:
    return prepare(rendered_window(window))


def rendered_window(window: Window) -> Window:
    """A window of depth or thermal images → a window of vision with its newest image, rendered.

    Raises `EncodingError` if the image cannot be decoded, and `ValueError` for windows of other data.
    """
    sample = window.samples[-1]
    if not isinstance(sample.data, Frame):
        raise ValueError(f"a window of {window.modality} holds frames, not {type(sample.data).__name__}")
    levels = render(window.modality, sample.data, window.calibration)
    grey = np.round(255 * levels).astype(np.uint8)
    height, width = grey.shape
    frame = Frame(np.repeat(grey[..., None], 3, axis=2).ravel(), "rgb8", height, width, 3 * width)
    return replace(window, modality=VISION, samples=(replace(sample, modality=VISION, data=frame),))


def render(modality: str, frame: Frame, calibration: Calibration) -> np.ndarray:
    """A depth or thermal image → float32 levels (H, W) in 0..1. Raises `EncodingError`."""
    if modality == DEPTH:
        return log_depth_image(encodings.decode_depth(frame, calibration))
    return stretch_contrast(encodings.decode_thermal(frame, calibration))
