"""A spoke: an encoder of one modality that was trained to match a frozen hub, and its file.

A spoke turns windows of its modality into vectors of the hub's space. The data of a window decide its kind:

- **image**: depth and thermal cameras. A copy of the hub's image encoder takes the image as a grey photograph. Training
  changes only a residual after the copy (`head`), or also low-rank updates (`lora`) or all (`whole`) of the copy.
- **sound**: the frozen network YAMNet and a small network after it.
- **series**: any numbers over time (motion, gas, touch, torque). A small network.

A file can also be of the kind **joined**: `joined.py` loads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.core import encodings
from sensebind.fusion.core.atomic import write_bytes
from sensebind.fusion.core.documents import DocumentError, parse_json
from sensebind.fusion.core.errors import printable, require_finite_file
from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.core.samples import Frame, Reading, Sound
from sensebind.fusion.core.space import Hub, Preparation, Space, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.image_rendering import RENDERED, render
from sensebind.fusion.models.openvino import audio_encoder, graphs, image_encoder
from sensebind.fusion.models.spokes import lora
from sensebind.fusion.models.spokes.series_encoder import SeriesEncoder
from sensebind.fusion.models.spokes.sound_features import (
    FEATURE_SHAPE,
    AudioFeatureExtractor,
    load_audio_features,
    patch_statistics,
)
from sensebind.fusion.preprocess.audio import SAMPLE_RATE
from sensebind.fusion.preprocess.image import squash_to_tensor
from sensebind.fusion.preprocess.resampling import resample_audio, resample_readings

SPOKE_FORMAT = "sensebind spoke 1"
JOINED = "joined"  # the encoder of another space and a map to the hub: `joined.py`
IMAGE = "image"
SPOKE_KINDS = (IMAGE, "sound", "series", JOINED)
TRAINING_METHODS = ("whole", "head", "lora")
# Limits of what a file may ask for, before memory is allocated for it.
MAX_FILE_BYTES = 4 * 2**30
MAX_REASON_LENGTH = 500  # characters of an error, which quotes the file
MAX_DIMENSION, MAX_RANK = 65_536, 4_096
MAX_WINDOW, MAX_FRAMES = 3600.0, 1024  # s, images
MAX_SERIES = 2**24  # numbers in a window of a series: channels × length × rate
RESIDUAL_RANK = 128  # rank of the residual after an image encoder


@dataclass(frozen=True)
class SpokeSpec:
    """The description of a spoke. `length` (s) and `frames`: its window, as in `TrainedWindow`. `rate` (Hz) and
    `channels`: of a series. `rank`: of LoRA. `logit_scale`: the factor of its cosines before a softmax. `about`: the
    content of the card (data, licence, recipe, figures). `source`, `source_id`, `source_weights`: the space of
    a joined spoke's encoder. `concepts`: name of the concepts that the hub computes from a series
    (`Hub.computed_concepts`); empty: none. Raises `SpaceError` for an unknown kind or method."""

    modality: str
    kind: str
    hub: str
    dimension: int
    method: str = "whole"
    length: float = 0.25
    frames: int = 1
    rate: float = 0.0
    channels: int = 0
    rank: int = 0
    logit_scale: float = 20.0
    about: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    source_id: str = ""
    source_weights: str = ""
    concepts: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SPOKE_KINDS:
            raise SpaceError(f"spoke kind '{self.kind}' is not known; known: {', '.join(SPOKE_KINDS)}")
        if self.method not in TRAINING_METHODS or (self.method == "lora" and self.kind != IMAGE):
            raise SpaceError(f"a spoke of kind '{self.kind}' cannot be trained by '{self.method}'")
        texts = (self.modality, self.hub, self.source, self.source_id, self.source_weights, self.concepts)
        if not all(isinstance(text, str) for text in texts):
            raise SpaceError("modality, hub, source and concepts of a spoke must be text")
        if self.concepts and self.kind != "series":
            raise SpaceError(f"a spoke of kind '{self.kind}' cannot have concepts that are computed from series")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Raises `SpaceError` for a number of another type or out of its limits."""
        for name, low, high in (
            ("dimension", 1, MAX_DIMENSION), ("frames", 0, MAX_FRAMES), ("channels", 0, MAX_SERIES),
            ("rank", 0, MAX_RANK), ("length", 1e-6, MAX_WINDOW), ("rate", 0, MAX_SERIES), ("logit_scale", 1e-6, 1e6),
        ):  # fmt: skip
            value = getattr(self, name)
            whole = isinstance(SpokeSpec.__dataclass_fields__[name].default, int) or name == "dimension"
            accepted = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, accepted) or not low <= value <= high:
                raise SpaceError(
                    f"{name} of a spoke must be a {'whole ' if whole else ''}number from {low:g} to {high:g}"
                )
        if not isinstance(self.about, Mapping):
            raise SpaceError("about of a spoke must be a mapping")
        size = math.ceil(self.length * self.rate) * self.channels
        if self.kind == "series" and not 1 <= size <= MAX_SERIES:
            raise SpaceError(
                f"a window of a series has channels × length × rate numbers: 1 to {MAX_SERIES}, not {size}"
            )

    @property
    def trained_window(self) -> TrainedWindow:
        return TrainedWindow(self.length, self.frames)


class ResidualAdapter(nn.Module):
    """Unit vectors (B, D) → unit vectors (B, D): v plus a low-rank function of v, which is zero before training."""

    def __init__(self, dimension: int, rank: int = RESIDUAL_RANK) -> None:
        super().__init__()
        self.down = nn.Linear(dimension, rank)
        self.up = nn.Linear(rank, dimension)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors + self.up(functional.gelu(self.down(vectors))), dim=1)


class SpokeImageEncoder(nn.Module):
    """Images float32 (B, 1 or 3, 224, 224) in 0..1 → unit vectors (B, D). With one channel, images are grey."""

    def __init__(self, hub: Hub, spec: SpokeSpec) -> None:
        super().__init__()
        self.trunk = hub.image_encoder().requires_grad_(spec.method == "whole")
        if spec.method == "lora":
            lora.add_lora(self.trunk, spec.rank)
        self.residual = ResidualAdapter(spec.dimension)

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.residual(self.trunk(images.expand(-1, 3, -1, -1))))


class SpokeAudioEncoder(nn.Module):
    """Sound float32 (B, samples) at 16 kHz, or its features (B, 2, 1024) → unit vectors (B, D).

    `mean` and `deviation` of the features are those of the training data.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: AudioFeatureExtractor, dimension: int, hidden: int = 384) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(FEATURE_SHAPE))
        self.register_buffer("deviation", torch.ones(FEATURE_SHAPE))
        size = FEATURE_SHAPE[0] * FEATURE_SHAPE[1]
        self.read = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(size, hidden), nn.GELU(), nn.Dropout(0.3), nn.Linear(hidden, dimension)
        )

    def fit_normalization(self, features: Tensor) -> None:
        """Set mean and deviation from training features (N, 2, 1024)."""
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0).clamp(min=1e-4))

    def forward(self, sound: Tensor) -> Tensor:
        return self.of_features(sound if sound.ndim == 3 else self.features(sound))

    def of_features(self, features: Tensor) -> Tensor:
        """Features (B, 2, 1024) → unit vectors (B, D)."""
        scaled = ((features - self.mean) / self.deviation).clamp(-5, 5)
        return functional.normalize(self.read(scaled.flatten(1)), dim=1)


class SpokeSeriesEncoder(nn.Module):
    """Series float32 (B, C, T) → unit vectors (B, D), with the concepts that the hub computes from the series."""

    def __init__(self, hub: Hub, spec: SpokeSpec) -> None:
        super().__init__()
        self.network = SeriesEncoder(spec.channels, round(spec.length * spec.rate), spec.dimension)
        self.concepts = hub.computed_concepts(spec.concepts, spec.rate) if spec.concepts else None

    def fit_normalization(self, series: Tensor) -> None:
        """Set mean and deviation of each channel from training data (N, C, T)."""
        self.network.fit_normalization(series)

    def forward(self, series: Tensor) -> Tensor:
        vectors = functional.normalize(self.network(series), dim=1)
        return vectors if self.concepts is None else torch.as_tensor(self.concepts(series, vectors))


class Spoke:
    """An encoder with its preprocessing. A new spoke is untrained: an image spoke then gives the hub's vectors."""

    def __init__(self, spec: SpokeSpec, hub: Hub) -> None:
        if spec.kind == JOINED:
            raise SpaceError(f"the spoke for '{spec.modality}' is joined through text and has no weights to train")
        if spec.dimension != hub.dimension:
            raise SpaceError(
                f"the vectors of the spoke for '{spec.modality}' have {spec.dimension} dimensions, those of {hub.id} "
                f"{hub.dimension}"
            )
        self.spec = spec
        self._compiled: graphs.CompiledEncoder | None = None
        self.encoder: nn.Module
        if spec.kind == IMAGE:
            self.encoder = SpokeImageEncoder(hub, spec)
        elif spec.kind == "sound":
            self.encoder = SpokeAudioEncoder(load_audio_features(), spec.dimension)
        else:
            self.encoder = SpokeSeriesEncoder(hub, spec)
        self.encoder.eval()

    def tensor(self, window: Window) -> Tensor:
        """One window → the encoder's input without the batch axis. Raises `EncodingError`, `ValueError`."""
        return spoke_tensor(self.spec, window)

    def preparation(self) -> Preparation:
        """See `core.space.Space`."""
        return partial(spoke_tensor, self.spec)

    def device_input(self, window: Window) -> Tensor:
        """As `tensor`: windows are preprocessed on the host, by OpenCV."""
        return self.tensor(window)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Tensor:
        """(B, …) stacked tensors → float32 unit vectors (B, D) on the CPU."""
        if self._compiled is not None:
            return self.embed_on_device(batch)
        device = next(self.encoder.parameters()).device
        return self.embed_on_device(batch.to(device)).cpu()

    def embed_on_device(self, batch: Tensor) -> Tensor:
        """As `embed`, but the batch and the vectors are on the encoder's device. A compiled encoder's is the CPU."""
        if self._compiled is not None:
            return self._compiled.embed_async(batch).fetch()
        return torch.as_tensor(self.encoder(batch)).float()

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin to `embed`. A compiled encoder computes while the next batches are started."""
        if self._compiled is not None:
            return self._compiled.embed_async(batch)
        return DeferredFuture(lambda: self.embed(batch))

    @property
    def is_compiled(self) -> bool:
        """Whether `embed` uses a compiled encoder."""
        return self._compiled is not None

    @property
    def graph_capturable(self) -> bool:
        """Whether a CUDA graph can capture `embed_on_device`: always."""
        return True

    def compile(self) -> None:
        """Compile the encoder for this processor. `embed` uses the compiled one if its vectors match PyTorch's.

        The encoder of a series stays in PyTorch, because it is fast. So does an image encoder that is not a
        `CompilableEncoder`.
        """
        encoder, spec = self.encoder, self.spec
        if isinstance(encoder, SpokeAudioEncoder):
            network = encoder.features.network
            sounds = audio_encoder.CompiledAudioEncoder(
                network, lambda output: encoder.of_features(patch_statistics(output))
            )
            if graphs.matches_pytorch(sounds, encoder, audio_encoder.example_audio(spec.length), spec.modality):
                self._compiled = sounds
        elif isinstance(encoder, SpokeImageEncoder) and isinstance(encoder.trunk, graphs.CompilableEncoder):
            planes = 1 if spec.modality in RENDERED else 3
            images = encoder.trunk.compile_for_cpu(planes, encoder.residual)
            if graphs.matches_pytorch(images, encoder, image_encoder.example_image(planes), spec.modality):
                self._compiled = images

    def release_networks(self) -> None:
        """Release the frozen networks in PyTorch, which the compiled encoder replaces: 15 to 20 MB."""
        if isinstance(self.encoder, SpokeAudioEncoder):
            del self.encoder.features
        else:
            self.encoder = nn.Identity()

    def saved_state(self) -> dict[str, Tensor]:
        """The content of the file: trained parameters and the normalization of the data, without frozen weights of the
        hub or the trunk. Raises `SpaceError` for a compiled spoke, which has no trainable weights."""
        if self._compiled is not None:
            raise SpaceError(
                f"the spoke for '{self.spec.modality}' is compiled and cannot be saved: load it with compiled=False"
            )
        trained = {name for name, p in self.encoder.named_parameters() if p.requires_grad}
        normalization = {name for name in self.encoder.state_dict() if name.endswith((".mean", ".deviation"))}
        normalization |= {"mean", "deviation"} & set(self.encoder.state_dict())
        keep = trained | {name for name in normalization if not name.startswith(("trunk.", "features."))}
        return {name: tensor for name, tensor in self.encoder.state_dict().items() if name in keep}


def spoke_tensor(spec: SpokeSpec, window: Window) -> Tensor:
    """One window → the input of the spoke's encoder without the batch axis. Raises `EncodingError`, `ValueError`."""
    if spec.kind == "sound":
        return torch.from_numpy(resample_audio(window, SAMPLE_RATE))
    if spec.kind == "series":
        return torch.from_numpy(resample_readings(window, spec.rate, spec.channels))
    return image_tensor(window)


def image_tensor(window: Window) -> Tensor:
    """The newest frame of a window of images → float32 (1 or 3, 224, 224) in 0..1, resized without cropping."""
    frame = window.samples[-1].data
    if not isinstance(frame, Frame):
        raise ValueError(f"a window of {window.modality} holds frames, not {type(frame).__name__}")
    if window.modality in RENDERED:
        return squash_to_tensor(render(window.modality, frame, window.calibration))
    return squash_to_tensor(encodings.decode_rgb(frame).astype(np.float32) / 255)


def save(spoke: Spoke, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a spoke as safetensors. Raises `SpaceError` if the file cannot be written."""
    write_spoke(path, spoke.spec, spoke.saved_state(), dtype)


def write_spoke(
    path: str | Path, spec: SpokeSpec, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float16
) -> None:
    """Write the file of a spoke with these trained or fitted tensors. Raises `SpaceError` if it cannot be written."""
    state = {n: t.detach().to("cpu", dtype).contiguous() for n, t in tensors.items()}
    metadata = {"format": SPOKE_FORMAT, "spoke": json.dumps(asdict(spec), sort_keys=True)}
    try:
        # Not `save_file`: only the owner could read its file.
        write_bytes(path, safetensors.torch.save(state, metadata))
    except OSError as error:
        raise SpaceError(f"spoke file '{path}' cannot be written: {error.strerror or error}") from error


def read_spec(path: str | Path) -> SpokeSpec:
    """The description in a spoke file. Raises `SpaceError` if the file is missing or not a spoke."""
    try:
        require_finite_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {printable(error, MAX_REASON_LENGTH)}") from error
    if metadata.get("format") != SPOKE_FORMAT:
        raise SpaceError(f"'{path}' is not a spoke file: make one with sensebind align")
    try:
        return SpokeSpec(**parse_json(metadata["spoke"], "its description"))
    except (KeyError, TypeError, DocumentError, SpaceError) as error:
        reason = printable(error, MAX_REASON_LENGTH)
        raise SpaceError(f"spoke file '{path}' is damaged: {reason}; make another with sensebind align") from error


def load(path: str | Path, hub: Hub, device: str | torch.device = "cpu", compiled: bool = False) -> Spoke:
    """Load a spoke for inference; compile it if `compiled`. Raises `SpaceError`, also if it was trained for another
    hub."""
    spec = read_spec(path)
    check_hub(path, spec, hub)
    spoke = Spoke(spec, hub)
    load_weights(spoke, path)
    lora.merge_lora(spoke.encoder)
    spoke.encoder.requires_grad_(False).to(device)
    if compiled:
        spoke.compile()
        if spoke.is_compiled:
            spoke.release_networks()
    return spoke


def check_hub(path: str | Path, spec: SpokeSpec, hub: Space) -> None:
    """Raises `SpaceError` if the spoke in the file `path` was made for another hub."""
    if spec.hub != hub.id:
        raise SpaceError(f"spoke '{path}' was trained for the hub {spec.hub}, not for {hub.id}: align it again")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a spoke file. Raises `SpaceError`."""
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise SpaceError(f"spoke file '{path}' is larger than {MAX_FILE_BYTES / 2**30:g} GB: it is no spoke")
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {printable(error, MAX_REASON_LENGTH)}") from error
    if wrong := [name for name, tensor in state.items() if not _is_finite(tensor)]:
        raise SpaceError(f"the numbers in spoke file '{path}' are damaged ('{wrong[0]}'): make another")
    return state


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has real numbers, in a type that PyTorch calculates with: some it only stores, as 4 bits."""
    try:
        return not tensor.is_complex() and bool(torch.isfinite(tensor.float().sum()))
    except NotImplementedError:
        return False


def load_weights(spoke: Spoke, path: str | Path) -> None:
    """Load a file's weights into a spoke of the same spec. Raises `SpaceError` if entries are missing, extra or of
    another shape."""
    state = read_state(path)
    wanted = spoke.saved_state()
    wrong = sorted(state.keys() ^ wanted.keys()) or [n for n in wanted if state[n].shape != wanted[n].shape]
    if wrong:
        raise SpaceError(
            f"spoke file '{path}' does not fit: {', '.join(wrong[:5])} missing, extra or of another shape; align it "
            "again"
        )
    spoke.encoder.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)


def sha256_of_spoke(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `SpaceError`."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {error.strerror}") from error


def spoke_kind(modality: str, example: Window) -> str:
    """The kind of spoke for the data in a modality's windows."""
    data = example.samples[0].data
    return {Frame: IMAGE, Sound: "sound", Reading: "series"}[type(data)]
