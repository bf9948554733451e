"""A spoke: the encoder of one sense that was bound to a frozen hub, and the file it is kept in.

A spoke turns windows of its sense into vectors of the hub's space. Three kinds, by what a window holds:

- **image**: depth and thermal cameras. A copy of the hub's image encoder looks at the picture as at a grey photograph;
  a residual after it is trained, and, beyond `head`, the copy too: by low rank (`lora`) or all of it (`whole`).
- **sound**: a pretrained trunk, frozen, and a small network on it.
- **series**: any numbers over time: motion, gas, touch, torque. A small network of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.core import encodings
from sensebind.fusion.core.futures import Deferred, EmbeddingFuture
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, Frame, Reading, Sound
from sensebind.fusion.core.space import Aperture, Hub, SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.openvino import images as compiled
from sensebind.fusion.models.openvino import sounds as compiled_sound
from sensebind.fusion.models.spokes import lora
from sensebind.fusion.models.spokes.series_encoder import SeriesEncoder
from sensebind.fusion.models.spokes.sound_features import SIZE, SoundFeatures
from sensebind.fusion.preprocess import depth as depth_frontend
from sensebind.fusion.preprocess import thermal as thermal_frontend
from sensebind.fusion.preprocess.image import levels_tensor
from sensebind.fusion.preprocess.resampling import series, waveform

FORMAT = "sensebind spoke 1"
KINDS = ("image", "sound", "series")
METHODS = ("whole", "head", "lora")
SOUND_RATE = 16_000  # Hz, the trunk's
RESIDUAL = 128  # rank of the sum after an image encoder


@dataclass(frozen=True)
class SpokeSpec:
    """Everything of a spoke but its weights. `length` in seconds and `frames` are its window's; `rate` (Hz) and
    `channels` a series'; `rank` of LoRA; `logit_scale` what its cosines are multiplied by before a softmax; `about`
    what the card says: data, licence, recipe, figures."""

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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpaceError(f"a spoke of kind '{self.kind}' is not known; known: {', '.join(KINDS)}")
        if self.method not in METHODS or (self.method == "lora" and self.kind != "image"):
            raise SpaceError(f"a spoke of kind '{self.kind}' cannot be trained by '{self.method}'")

    @property
    def aperture(self) -> Aperture:
        return Aperture(self.length, self.frames)


class Residual(nn.Module):
    """Unit vectors (B, D) → unit vectors (B, D): v plus a low-rank function of v, which is zero at first."""

    def __init__(self, dimension: int, rank: int = RESIDUAL) -> None:
        super().__init__()
        self.down = nn.Linear(dimension, rank)
        self.up = nn.Linear(rank, dimension)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors + self.up(functional.gelu(self.down(vectors))), dim=1)


class ImageEncoder(nn.Module):
    """Levels float32 (B, 1 or 3, 224, 224) in 0..1 → unit vectors (B, D); one plane is seen as grey."""

    def __init__(self, hub: Hub, spec: SpokeSpec) -> None:
        super().__init__()
        self.trunk = hub.image_encoder().requires_grad_(spec.method == "whole")
        if spec.method == "lora":
            lora.adapt(self.trunk, spec.rank)
        self.residual = Residual(spec.dimension)

    def forward(self, levels: Tensor) -> Tensor:
        return torch.as_tensor(self.residual(self.trunk(levels.expand(-1, 3, -1, -1))))


class SoundEncoder(nn.Module):
    """Sound float32 (B, samples) at 16 kHz, or its features (B, 1809) → unit vectors (B, D).

    `mean` and `deviation` of the features are those of the training data.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: SoundFeatures, dimension: int, hidden: int = 384) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(SIZE))
        self.register_buffer("deviation", torch.ones(SIZE))
        self.read = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(SIZE, hidden), nn.GELU(), nn.Dropout(0.3), nn.Linear(hidden, dimension)
        )

    def fit_scale(self, features: Tensor) -> None:
        """Take mean and deviation from training features (N, 1809)."""
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0).clamp(min=1e-4))

    def forward(self, sound: Tensor) -> Tensor:
        features = sound if sound.shape[1] == SIZE else self.features(sound)
        scaled = ((features - self.mean) / self.deviation).clamp(-5, 5)
        return functional.normalize(self.read(scaled), dim=1)


class SeriesSpokeEncoder(nn.Module):
    """Series float32 (B, C, T) → unit vectors (B, D)."""

    def __init__(self, spec: SpokeSpec) -> None:
        super().__init__()
        self.network = SeriesEncoder(spec.channels, round(spec.length * spec.rate), spec.dimension)

    def fit_scale(self, series: Tensor) -> None:
        """Take mean and deviation of each channel from training data (N, C, T)."""
        self.network.fit_scale(series)

    def forward(self, series: Tensor) -> Tensor:
        return functional.normalize(self.network(series), dim=1)


class Spoke:
    """An encoder with its frontend. It begins untrained: an image spoke then sees as the hub does."""

    def __init__(self, spec: SpokeSpec, hub: Hub) -> None:
        if spec.dimension != hub.dimension:
            raise SpaceError(f"the spoke for '{spec.modality}' has {spec.dimension} numbers, {hub.id} {hub.dimension}")
        self.spec = spec
        self._compiled: compiled.Compiled | None = None  # the encoder
        self.sliding: compiled_sound.CompiledSound | None = None  # the same, of a sound
        self.encoder: nn.Module
        if spec.kind == "image":
            self.encoder = ImageEncoder(hub, spec)
        elif spec.kind == "sound":
            self.encoder = SoundEncoder(sound_features(), spec.dimension)
        else:
            self.encoder = SeriesSpokeEncoder(spec)
        self.encoder.eval()

    def tensor(self, window: Window) -> Tensor:
        """One window → the encoder's input without the batch axis. Raises `EncodingError`, `ValueError`."""
        if self.spec.kind == "sound":
            return torch.from_numpy(waveform(window, SOUND_RATE))
        if self.spec.kind == "series":
            return torch.from_numpy(series(window, self.spec.rate, self.spec.channels))
        return picture(window)

    def slide(self, window: Window) -> Tensor:
        """As `tensor`, and as much further as what windows of a stream share need be worked out only once."""
        if self.sliding is None:
            return self.tensor(window)
        start = round(window.start * SOUND_RATE / SECOND)
        return self.sliding.slide(window.samples[-1].frame_id, start, waveform(window, SOUND_RATE))

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Tensor:
        """(B, …) stacked tensors → float32 unit vectors (B, D) on the CPU."""
        if self._compiled is not None:
            return self._compiled.start(batch).fetch()
        device = next(self.encoder.parameters()).device
        return self.vectors(batch.to(device)).cpu()

    def vectors(self, batch: Tensor) -> Tensor:
        """As `embed`, of a batch that is on the encoder's device, and left there."""
        return torch.as_tensor(self.encoder(batch)).float()

    def start(self, batch: Tensor) -> EmbeddingFuture:
        """Begin to `embed`: what is compiled goes on while others are begun."""
        if self._compiled is not None:
            return self._compiled.start(batch)
        return Deferred(lambda: self.embed(batch))

    @property
    def is_compiled(self) -> bool:
        """Whether `embed` uses what `compile` made."""
        return self._compiled is not None

    def compile(self) -> None:
        """From now on embed with what `compiled` makes of the encoder for this processor, where that agrees with it.

        A series stays with PyTorch, for it is little work; so do images where the hub has nothing compiled.
        """
        encoder, spec = self.encoder, self.spec
        if isinstance(encoder, SoundEncoder):
            length = round(spec.length * SOUND_RATE)
            sound = compiled_sound.CompiledSound(encoder, encoder.features.trunk, length)
            if compiled.agrees(sound, encoder, compiled_sound.example(length), spec.modality):
                self._compiled = self.sliding = sound
        elif isinstance(encoder, ImageEncoder) and isinstance(encoder.trunk, compiled.Compilable):
            planes = 1 if spec.modality in (DEPTH, THERMAL) else 3
            images = encoder.trunk.compile_for(planes, encoder.residual)
            if compiled.agrees(images, encoder, compiled.picture(planes), spec.modality):
                self._compiled = images

    def own_state(self) -> dict[str, Tensor]:
        """What the file holds: all that training changes, and the scale of the data. Not what others ship."""
        trained = {name for name, p in self.encoder.named_parameters() if p.requires_grad}
        scale = {name for name in self.encoder.state_dict() if name.endswith((".mean", ".deviation"))}
        scale |= {"mean", "deviation"} & set(self.encoder.state_dict())
        keep = trained | {name for name in scale if not name.startswith(("trunk.", "features."))}
        return {name: tensor for name, tensor in self.encoder.state_dict().items() if name in keep}


def picture(window: Window) -> Tensor:
    """The newest frame of an image-like window → levels float32 (1 or 3, 224, 224) in 0..1: the whole view."""
    frame = window.samples[-1].data
    if not isinstance(frame, Frame):
        raise ValueError(f"a window of {window.modality} holds frames, not {type(frame).__name__}")
    if window.modality == DEPTH:
        return levels_tensor(depth_frontend.relief(encodings.depth_metres(frame, window.calibration)))
    if window.modality == THERMAL:
        return levels_tensor(thermal_frontend.contrast(encodings.thermal(frame, window.calibration)))
    return levels_tensor(encodings.rgb(frame).astype(np.float32) / 255)


def sound_features() -> SoundFeatures:
    """The frozen trunk of sounds, from its package. Raises `SpaceError`."""
    from sensebind.fusion.models.starter import space as starter
    from sensebind.fusion.models.starter import wakeword_trunk

    files = [starter.find(name) for name in ("melspectrogram.tflite", "embedding_model.tflite")]
    return SoundFeatures(wakeword_trunk.load(files[0].parent))


def save(spoke: Spoke, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a spoke as safetensors. Raises `SpaceError` where the file cannot be written."""
    state = {n: t.detach().to("cpu", dtype).contiguous() for n, t in spoke.own_state().items()}
    metadata = {"format": FORMAT, "spoke": json.dumps(asdict(spoke.spec), sort_keys=True)}
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(safetensors.torch.save(state, metadata))  # `save_file` would make it the owner's alone
    except OSError as error:
        raise SpaceError(f"spoke file '{path}' cannot be written: {error}") from error


def read_spec(path: str | Path) -> SpokeSpec:
    """What a spoke's file says of it. Raises `SpaceError` for a file that is missing or no spoke."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise SpaceError(f"'{path}' is no spoke: make one with sensebind align")
    try:
        return SpokeSpec(**json.loads(metadata["spoke"]))
    except (KeyError, ValueError, TypeError) as error:
        raise SpaceError(f"spoke file '{path}' is damaged: {error}") from error


def load(path: str | Path, hub: Hub, device: str | torch.device = "cpu", fast: bool = False) -> Spoke:
    """The spoke in a file, for inference; compiled if `fast`. Raises `SpaceError`, also where it was bound to another
    hub."""
    spec = read_spec(path)
    if spec.hub != hub.id:
        raise SpaceError(f"spoke '{path}' was bound to {spec.hub}, and the hub here is {hub.id}: align it again")
    spoke = Spoke(spec, hub)
    fill(spoke, path)
    lora.merge(spoke.encoder)
    spoke.encoder.requires_grad_(False).to(device)
    if fast:
        spoke.compile()
    return spoke


def fill(spoke: Spoke, path: str | Path) -> None:
    """Put a file's weights into a spoke of the same spec. Raises `SpaceError` for missing, extra or other shapes."""
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {error}") from error
    wanted = spoke.own_state()
    wrong = sorted(state.keys() ^ wanted.keys()) or [n for n in wanted if state[n].shape != wanted[n].shape]
    if wrong:
        raise SpaceError(f"spoke file '{path}' does not fit: {', '.join(wrong[:5])} missing, extra or of another shape")
    spoke.encoder.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)


def digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `SpaceError`."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise SpaceError(f"spoke file '{path}' cannot be read: {error.strerror}") from error


def kind_of(modality: str, example: Window) -> str:
    """The kind of spoke that fits what a modality's windows hold."""
    data = example.samples[0].data
    return {Frame: "image", Sound: "sound", Reading: "series"}[type(data)]
