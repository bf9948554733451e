"""ImageBind as a space: the official checkpoint's encoders behind the interface that all spaces have."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core import encodings
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION, Frame, Sample, Sound
from sensebind.fusion.core.space import Hub, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.imagebind import weights as files
from sensebind.fusion.models.imagebind.network import (
    MAX_LOGIT_SCALE,
    MODALITIES,
    SPACE_NAME,
    ImageBind,
    modality_of_entry,
    state_dict_shapes,
)
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.precision import AUTO_DTYPE, torch_dtype
from sensebind.fusion.preprocess import audio, depth, image, imu, text, thermal
from sensebind.fusion.preprocess.resampling import resample_audio

CHECKPOINT_URL = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
TEXT_BATCH_SIZE = 64  # phrases that are embedded together


class ImageBindSpace(Hub):
    """ImageBind as a space. Each modality's encoder is a model of its own: one can be there without the rest."""

    id: str
    licence = "CC BY-NC-SA 4.0 (not for commercial use)"
    trained_windows: Mapping[str, TrainedWindow] = {
        VISION: TrainedWindow(2.0, frames=2),
        AUDIO: TrainedWindow(2.0),
        DEPTH: TrainedWindow(1.0, frames=1),
        THERMAL: TrainedWindow(1.0, frames=1),
        IMU: TrainedWindow(5.0),
    }

    def __init__(self, weights: str, device: str, dtype: torch.dtype, sizes: Mapping[str, Any]) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.id = f"{SPACE_NAME}@{files.published_digest(weights)[:12]}"
        self._weights, self._config_overrides = weights, sizes
        entries = files.read_entries(weights)
        self._available_modalities = {modality_of_entry(name) for name in entries} & set(MODALITIES)
        files.check_entries(entries, state_dict_shapes(self._available_modalities or MODALITIES, sizes), f"'{weights}'")
        logs = files.read_tensors(weights, lambda name: name.endswith(".log_logit_scale"))
        learned = {modality_of_entry(name): min(math.exp(log), MAX_LOGIT_SCALE) for name, log in logs.items()}
        self.logit_scales: Mapping[str, float] = {
            m: learned.get(m, 1.0) for m in MODALITIES if m in self._available_modalities
        }
        self._models: dict[str, ImageBind] = {}
        self._load_lock = threading.Lock()  # guards `_models`: one encoder is loaded at a time
        self._text_cache = TextEmbeddingCache()

    @classmethod
    def load(
        cls,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
        **sizes: Any,
    ) -> ImageBindSpace:
        """The encoders that `modalities` need, from `weights`: the official file, or what `sensebind weights convert`
        made of it. The text encoder, unless named, is loaded when the first phrase comes. `sizes`: of `ImageBind`,
        for a checkpoint that is not the published one.

        Raises `SpaceError` where weights are missing or wrong.
        """
        if not weights:
            raise SpaceError(
                f"{SPACE_NAME} needs its checkpoint, which is not for commercial use ({cls.licence}): "
                f"download {CHECKPOINT_URL} and set weights:=<the file>"
            )
        space = cls(weights, device, resolve_dtype(dtype, device), sizes)
        asked = space._available_modalities if modalities is None else set(modalities)
        for modality in MODALITIES:
            if modality in asked:
                space.load_encoder(modality)
        return space

    @property
    def dimension(self) -> int:
        return int(self._config_overrides.get("out_embed_dim", 1024))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._models or (m == TEXT and m in self._available_modalities))

    def tensor(self, window: Window) -> Tensor:
        """One window → its encoder's input. Two frames make one clip (1, 3, 2, 224, 224); a sound over 2 s, 3 clips."""
        if window.modality == VISION:
            return self._image_tensor(window)
        if window.modality == AUDIO:
            samples = resample_audio(window, audio.SAMPLE_RATE)
            one = samples.shape[-1] <= audio.CLIP_SAMPLES
            return audio.imagebind_tensor(samples) if one else audio.imagebind_clips(samples)
        if window.modality == DEPTH:
            metres = encodings.decode_depth(_frame(window.samples[-1]), window.calibration)
            return depth.imagebind_tensor(metres, window.calibration)
        if window.modality == THERMAL:
            return thermal.imagebind_tensor(encodings.decode_thermal(_frame(window.samples[-1]), window.calibration))
        if window.modality == IMU:
            return imu.imagebind_tensor(window)
        raise ValueError(f"{SPACE_NAME} cannot take windows of modality '{window.modality}'")

    def device_input(self, window: Window) -> Tensor:
        """One window → what is sent to a GPU, where `encoder` prepares it: images as bytes, uint8 (H, W, 3) or, of two
        frames, (2, H, W, 3); thermal ones uint8 (H, W); sounds of at most 2 s (N,), int16 where they came so.
        Otherwise as `tensor`: a depth image is smaller when its 224 × 224 pixels have been picked than as it came.
        """
        if window.modality == VISION:
            frames = [encodings.decode_rgb(_frame(sample)) for sample in _distinct_frames(window)]
            same = len({frame.shape for frame in frames}) == 1
            if same:
                return _writable_tensor(frames[0] if len(frames) == 1 else np.stack(frames))
        if window.modality == THERMAL:
            heat = encodings.decode_thermal(_frame(window.samples[-1]), window.calibration)
            return torch.from_numpy(thermal.to_uint8(heat))
        if window.modality == AUDIO:
            samples = resample_audio(window, audio.SAMPLE_RATE)
            audio.check_waveform(samples)
            if len(samples) <= audio.CLIP_SAMPLES:
                return torch.from_numpy(_int16_if_lossless(samples, window))
        return self.tensor(window)

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        """What makes unit vectors float32 (B, dimension) of `device_input`s or `tensor`s (B, …) on the device, and
        nothing on the host: no check, no wait. Raises `ValueError` for a modality that is not loaded."""
        if modality not in self.modalities:
            raise ValueError(f"{self.id} has no encoder for '{modality}' here; it has {', '.join(self.modalities)}")
        model = self.load_encoder(modality)

        def encode(rows: Tensor) -> Tensor:
            return model.embed_unchecked(modality, self.preprocess(modality, rows))

        return encode

    def preprocess(self, modality: str, rows: Tensor) -> Tensor:
        """Stacked `device_input`s (B, …) → the encoder's input, on their device. Stacked `tensor`s are returned
        unchanged."""
        return DEVICE_PREPROCESSING[modality](rows) if modality in DEVICE_PREPROCESSING else rows

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`: nothing waits for the device."""
        return True

    @torch.no_grad()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """(B, …) stacked tensors → float32 (B, dimension) unit vectors on the CPU.

        Raises `ValueError` for a modality that is not loaded, and `RuntimeError` for what a device fails to do.
        """
        if modality not in self.modalities:
            raise ValueError(f"{self.id} has no encoder for '{modality}' here; it has {', '.join(self.modalities)}")
        vectors = self.load_encoder(modality).embed(modality, batch.to(self.device)).cpu()
        if not torch.isfinite(vectors).all():
            raise RuntimeError(f"vectors of {modality} are not finite in {self.dtype}: set dtype:=float32")
        return vectors

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, dimension) unit vectors on the CPU. Phrases asked for before are remembered."""
        if not texts:
            return torch.empty(0, self.dimension)
        return self._text_cache.embed(self.id, texts, self._embed_phrases)

    def _embed_phrases(self, texts: Sequence[str]) -> Tensor:
        tokens = text.imagebind_tokens(texts)
        return torch.cat([self.embed(TEXT, batch) for batch in tokens.split(TEXT_BATCH_SIZE)])

    def image_encoder(self) -> torch.nn.Module:
        """A copy of the image encoder that can be trained: see `core.space.Hub`."""
        return ImageBindImageEncoder(copy.deepcopy(self.load_encoder(VISION)).to("cpu", torch.float32))

    def _image_tensor(self, window: Window) -> Tensor:
        tensors = [image.imagebind_tensor(encodings.decode_rgb(_frame(sample))) for sample in _distinct_frames(window)]
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors, dim=1)[None]

    def load_encoder(self, modality: str) -> ImageBind:
        """The encoder of one modality, loaded when it is first needed. Raises `SpaceError` for weights without it."""
        with self._load_lock:
            if modality not in self._models:
                self._models[modality] = self._load(modality)
            return self._models[modality]

    def _load(self, modality: str) -> ImageBind:
        if modality not in self._available_modalities:
            held = ", ".join(sorted(self._available_modalities))
            raise SpaceError(f"'{self._weights}' holds no encoder for '{modality}'; it has {held}")
        with torch.device("meta"):
            model = ImageBind(modalities=[modality], **self._config_overrides)
        model.load_checkpoint(
            files.read_tensors(self._weights, lambda name: modality_of_entry(name) == modality, self.dtype)
        )
        return model.to(self.device).eval()


class ImageBindImageEncoder(torch.nn.Module):
    """RGB levels float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, D): the image encoder with its frontend."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: ImageBind) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(image.IMAGEBIND_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.IMAGEBIND_STD).view(3, 1, 1), persistent=False)

    def forward(self, levels: Tensor) -> Tensor:
        vectors = self.model({VISION: (levels - self.mean) / self.std})[VISION]
        return torch.nn.functional.normalize(vectors, dim=1)


def _distinct_frames(window: Window) -> Sequence[Sample]:
    """The frames that stand for a window of vision: one, or two that are not the same. Raises `ValueError`."""
    frames = window.samples[:1] if window.samples[0] is window.samples[-1] else window.samples
    if len(frames) > 2:
        raise ValueError(f"ImageBind takes 1 or 2 frames of a window, not {len(frames)}: set vision.frames to that")
    return frames


def _writable_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """A tensor of the same bytes; PyTorch shares no memory that is read-only or runs backwards."""
    shared = pixels.flags.writeable and min(pixels.strides) >= 0
    return torch.from_numpy(pixels if shared else pixels.copy())


def _int16_if_lossless(
    samples: npt.NDArray[np.float32], window: Window
) -> npt.NDArray[np.float32] | npt.NDArray[np.int16]:
    """int16 where the sound came so, at the rate and with the one channel that are wanted: the same numbers."""
    blocks = [sample.data for sample in window.samples if isinstance(sample.data, Sound)]
    if all(b.data.dtype == np.int16 and b.data.shape[1] == 1 and b.sample_rate == audio.SAMPLE_RATE for b in blocks):
        return (samples * 32768).astype(np.int16)
    return samples


def _prepare_vision(rows: Tensor) -> Tensor:
    if rows.dtype != torch.uint8:
        return rows
    if rows.ndim == 4:
        return image.imagebind_batch(rows.permute(0, 3, 1, 2))
    both = image.imagebind_batch(rows.flatten(0, 1).permute(0, 3, 1, 2))
    return both.unflatten(0, (-1, rows.shape[1])).transpose(1, 2)[:, None]  # (B, 1 clip, 3, 2, 224, 224)


def _prepare_thermal(rows: Tensor) -> Tensor:
    return thermal.imagebind_batch(rows) if rows.dtype == torch.uint8 else rows


def _prepare_audio(rows: Tensor) -> Tensor:
    return audio.imagebind_batch(rows) if rows.ndim == 2 else rows


# What is done on the device to what `ImageBindSpace.device_input` gave.
DEVICE_PREPROCESSING: Mapping[str, Callable[[Tensor], Tensor]] = {
    VISION: _prepare_vision,
    THERMAL: _prepare_thermal,
    AUDIO: _prepare_audio,
}


def _frame(sample: Sample) -> Frame:
    if not isinstance(sample.data, Frame):
        raise ValueError(f"a window of {sample.modality} holds frames, not {type(sample.data).__name__}")
    return sample.data


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """The type that `dtype` names; `auto`: the fastest that the device computes in without loss that matters.

    Ampere GPUs and later: bf16; older: fp16. CPUs that multiply bf16 matrices (AMX, or AVX-512 with bf16): bf16,
    which is several times faster there and half the memory. All others: float32, which is faster where bf16 must be
    emulated. Raises `SpaceError` for other names.
    """
    if dtype != AUTO_DTYPE:
        return torch_dtype(dtype)
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    abilities = torch.cpu.get_capabilities() if kind == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else torch.float32
