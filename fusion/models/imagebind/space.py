"""ImageBind as a space: the encoders of the official checkpoint with the interface of all spaces."""

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
from sensebind.fusion.core.space import Hub, Preparation, SpaceError, TrainedWindow
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
    """ImageBind as a space. Each modality's encoder is a separate model, so one can be loaded without the others."""

    id: str
    licence = "CC BY-NC-SA 4.0 (not for commercial use)"
    renders_images = False
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
        scales = {modality_of_entry(name): min(math.exp(log), MAX_LOGIT_SCALE) for name, log in logs.items()}
        self.logit_scales: Mapping[str, float] = {
            m: scales.get(m, 1.0) for m in MODALITIES if m in self._available_modalities
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
        """Load the encoders of `modalities` (None: all in the file) from `weights`: the official file, or files that
        `sensebind weights convert` made from it. The text encoder, unless named, is loaded with the first phrase.
        `sizes`: arguments of `ImageBind`, for a checkpoint of other sizes than the published one.

        Raises `SpaceError` if weights are missing or wrong.
        """
        if not weights:
            raise SpaceError(
                f"{SPACE_NAME} needs its checkpoint, which is not for commercial use ({cls.licence}): "
                f"download {CHECKPOINT_URL} and set weights to its path"
            )
        space = cls(weights, device, resolve_dtype(dtype, device), sizes)
        requested = space._available_modalities if modalities is None else set(modalities)
        for modality in MODALITIES:
            if modality in requested:
                space.load_encoder(modality)
        return space

    @property
    def dimension(self) -> int:
        return int(self._config_overrides.get("out_embed_dim", 1024))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(m for m in MODALITIES if m in self._models or (m == TEXT and m in self._available_modalities))

    def tensor(self, window: Window) -> Tensor:
        """One window → its encoder's input. Two frames become one clip (1, 3, 2, 224, 224), sound over 2 s 3 clips."""
        return encoder_input(window)

    def device_input(self, window: Window) -> Tensor:
        """One window → the tensor that is sent to a GPU; `encoder` preprocesses it there.

        An image is uint8 (H, W, 3), two frames (2, H, W, 3), a thermal image uint8 (H, W). Sound of at most 2 s is
        (N,): int16 if it was received so, else float32. All else is as in `tensor`: a depth image of 224 × 224 pixels
        is smaller than the received one.
        """
        return raw_input(window)

    def preparation(self, modality: str) -> Preparation:
        """See `core.space.Space`."""
        return raw_input if self.device.type == "cuda" else encoder_input

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        """Returns a function: stacked `device_input`s or `tensor`s (B, …) on the device → unit vectors float32
        (B, dimension) there. It checks nothing and never waits for the device. Raises `ValueError` for a modality
        that is not loaded."""
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
        """See `core.space.Space`. True: no encoder waits for the device."""
        return True

    @torch.no_grad()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """(B, …) stacked tensors → float32 (B, dimension) unit vectors on the CPU.

        Raises `ValueError` for a modality that is not loaded, and `RuntimeError` if the device fails or vectors are not
        finite.
        """
        if modality not in self.modalities:
            raise ValueError(f"{self.id} has no encoder for '{modality}' here; it has {', '.join(self.modalities)}")
        vectors = self.load_encoder(modality).embed(modality, batch.to(self.device)).cpu()
        if not torch.isfinite(vectors).all():
            raise RuntimeError(f"vectors of {modality} are not finite in {self.dtype}: set dtype to float32")
        return vectors

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, dimension) unit vectors on the CPU. Vectors are cached."""
        if not texts:
            return torch.empty(0, self.dimension)
        return self._text_cache.embed(self.id, texts, self._embed_phrases)

    def _embed_phrases(self, texts: Sequence[str]) -> Tensor:
        tokens = text.imagebind_tokens(texts)
        return torch.cat([self.embed(TEXT, batch) for batch in tokens.split(TEXT_BATCH_SIZE)])

    def image_encoder(self) -> torch.nn.Module:
        """A trainable copy of the image encoder: see `core.space.Hub`."""
        return ImageBindImageEncoder(copy.deepcopy(self.load_encoder(VISION)).to("cpu", torch.float32))

    def load_encoder(self, modality: str) -> ImageBind:
        """The encoder of one modality, loaded by the first call. Raises `SpaceError` if the weights do not hold it."""
        with self._load_lock:
            if modality not in self._models:
                self._models[modality] = self._load(modality)
            return self._models[modality]

    def _load(self, modality: str) -> ImageBind:
        if modality not in self._available_modalities:
            available = ", ".join(sorted(self._available_modalities))
            raise SpaceError(f"'{self._weights}' holds no encoder for '{modality}'; it has {available}")
        with torch.device("meta"):
            model = ImageBind(modalities=[modality], **self._config_overrides)
        model.load_checkpoint(
            files.read_tensors(self._weights, lambda name: modality_of_entry(name) == modality, self.dtype)
        )
        return model.to(self.device).eval()


class ImageBindImageEncoder(torch.nn.Module):
    """RGB images float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, D): normalization and image encoder."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: ImageBind) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(image.IMAGEBIND_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.IMAGEBIND_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        vectors = self.model({VISION: (images - self.mean) / self.std})[VISION]
        return torch.nn.functional.normalize(vectors, dim=1)


def encoder_input(window: Window) -> Tensor:
    """As `ImageBindSpace.tensor`."""
    if window.modality == VISION:
        frames = _distinct_frames(window)
        tensors = [image.imagebind_tensor(encodings.decode_rgb(_frame(sample))) for sample in frames]
        return tensors[0] if len(tensors) == 1 else torch.stack(tensors, dim=1)[None]
    if window.modality == AUDIO:
        samples = resample_audio(window, audio.SAMPLE_RATE)
        one_clip = samples.shape[-1] <= audio.CLIP_SAMPLES
        return audio.imagebind_tensor(samples) if one_clip else audio.imagebind_clips(samples)
    if window.modality == DEPTH:
        pixels = encodings.depth_pixels(_frame(window.samples[-1]))
        return depth.imagebind_tensor(pixels, window.calibration)
    if window.modality == THERMAL:
        return thermal.imagebind_tensor(encodings.decode_thermal(_frame(window.samples[-1]), window.calibration))
    if window.modality == IMU:
        return imu.imagebind_tensor(window)
    raise ValueError(f"{SPACE_NAME} cannot take windows of modality '{window.modality}'")


def raw_input(window: Window) -> Tensor:
    """As `ImageBindSpace.device_input`."""
    if window.modality == VISION:
        frames = [encodings.decode_rgb(_frame(sample)) for sample in _distinct_frames(window)]
        same_shape = len({frame.shape for frame in frames}) == 1
        if same_shape:
            return _writable_tensor(frames[0] if len(frames) == 1 else np.stack(frames))
    if window.modality == THERMAL:
        heat = encodings.decode_thermal(_frame(window.samples[-1]), window.calibration)
        return torch.from_numpy(thermal.to_uint8(heat))
    if window.modality == AUDIO:
        samples = resample_audio(window, audio.SAMPLE_RATE)
        audio.check_waveform(samples)
        if len(samples) <= audio.CLIP_SAMPLES:
            return torch.from_numpy(_int16_if_lossless(samples, window))
    return encoder_input(window)


def _distinct_frames(window: Window) -> Sequence[Sample]:
    """The frames of a vision window: one, or two different ones. Raises `ValueError` for more."""
    frames = window.samples[:1] if window.samples[0] is window.samples[-1] else window.samples
    if len(frames) > 2:
        raise ValueError(f"ImageBind takes 1 or 2 frames of a window, not {len(frames)}: set vision.frames to 1 or 2")
    return frames


def _writable_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """A tensor of the same bytes. Copies memory that is read-only or has negative strides: PyTorch cannot share it."""
    shared = pixels.flags.writeable and min(pixels.strides) >= 0
    return torch.from_numpy(pixels if shared else pixels.copy())


def _int16_if_lossless(
    samples: npt.NDArray[np.float32], window: Window
) -> npt.NDArray[np.float32] | npt.NDArray[np.int16]:
    """int16 if the sound was received as int16 with one channel at the required rate, so that no precision is lost."""
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


# Modality → preprocessing on the device, of stacked `ImageBindSpace.device_input`s.
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
    """The type that `dtype` names. `auto`: the fastest type of the device that loses no precision that matters.

    GPUs since Ampere: bf16; older GPUs: fp16. CPUs that multiply bf16 matrices (AMX, or AVX-512 with bf16): bf16,
    which is several times faster there and needs half the memory. All others: float32, which is faster than emulated
    bf16. Raises `SpaceError` for other names.
    """
    if dtype != AUTO_DTYPE:
        return torch_dtype(dtype)
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    features = torch.cpu.get_capabilities() if kind == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if features.get("amx_bf16") or features.get("avx512_bf16") else torch.float32
