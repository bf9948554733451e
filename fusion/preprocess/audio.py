"""Sound at 16 kHz → log-mel spectrograms, as Kaldi computes them and as audio transformers take them.

Frames of 25 ms every 10 ms, each without its mean, pre-emphasised, under a Hann window; the power of their spectrum,
in bands evenly spaced in mel; its natural logarithm. All in PyTorch: batched, on the waveform's device.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

RATE = 16_000  # Hz
FRAME, SHIFT, SPECTRUM = 400, 160, 512  # samples
BANDS, FRAMES = 128, 204  # what ImageBind's audio encoder sees
LOWEST, HIGHEST = 20.0, 8000.0  # Hz
PRE_EMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)
CLIP = 2 * RATE  # samples that ImageBind was trained with
LOUDEST = 100.0  # times full scale; integers that were not scaled are beyond
IMAGEBIND_MEAN, IMAGEBIND_DEVIATION = -4.268, 9.138

Waveform = Tensor | npt.NDArray[np.floating]


def log_mel(waveform: Waveform) -> Tensor:
    """(N,), (C, N) or (B, C, N) at 16 kHz, −1..1 → float32 (128, 204) or (B, 128, 204), in nats of power.

    The mean over time and channels is removed, then channel 0 is used. 2 s fill 198 of the 204 frames; the rest is
    0, and what comes after 204 frames is left out. Raises `ValueError` for other shapes, for less than one frame
    (400 samples) and for values that are not finite or far beyond full scale.
    """
    samples = _samples(waveform)
    centred = samples - samples.mean(dim=(-2, -1), keepdim=True)
    frames = log_mel_frames(centred[..., 0, :])[..., :FRAMES, :].transpose(-2, -1)
    return torch.nn.functional.pad(frames, (0, FRAMES - frames.shape[-1]))


def imagebind_tensor(waveform: Waveform) -> Tensor:
    """As `log_mel`, normalised, with a channel axis: (1, 128, 204) or (B, 1, 128, 204). The padding is 0.467 then."""
    return (log_mel(waveform) - IMAGEBIND_MEAN).div_(IMAGEBIND_DEVIATION).unsqueeze(-3)


def imagebind_batch(samples: Tensor) -> Tensor:
    """Sounds (B, N) on any device → (B, 1, 128, 204) there: as `imagebind_tensor` of each, but nothing is checked.

    Samples are float in −1..1 or int16 at full scale, which is a quarter to a half of the bytes to send to a GPU.
    """
    scaled = samples.float() / 32768.0 if samples.dtype == torch.int16 else samples.float()
    centred = scaled - scaled.mean(dim=-1, keepdim=True)
    frames = log_mel_frames(centred)[:, :FRAMES].transpose(1, 2)
    spectrum = torch.nn.functional.pad(frames, (0, FRAMES - frames.shape[-1]))
    return (spectrum - IMAGEBIND_MEAN).div_(IMAGEBIND_DEVIATION).unsqueeze(1)


def imagebind_clips(waveform: Waveform, count: int = 3) -> Tensor:
    """(N,) or (C, N) of any length → (count, 1, 128, 204): clips of 2 s from the start to the end, evenly spaced."""
    samples = _samples(waveform)
    spare = max(samples.shape[-1] - CLIP, 0)
    starts = [spare * i // max(count - 1, 1) for i in range(count)]
    return imagebind_tensor(torch.stack([samples[:, start : start + CLIP] for start in starts]))


class SlidingLogMel:
    """Log-mel of windows that slide over one channel: every frame is computed once.

    The window's mean is not removed first, because each frame loses its own mean anyway: in exact arithmetic the
    result is that of `log_mel`. In float32 they differ by rounding: under 2e-6 on average, and under 0.01 in any cell.
    """

    def __init__(self, hop: int, length: int = CLIP) -> None:
        """`hop` and `length` in samples. Raises `ValueError` where frames of windows would not coincide."""
        if hop <= 0 or hop % SHIFT:
            raise ValueError(f"hop must be a multiple of {SHIFT} samples (10 ms), not {hop}")
        if not FRAME <= length < FRAME + FRAMES * SHIFT:
            raise ValueError(f"length must be {FRAME} to {FRAME + FRAMES * SHIFT - 1} samples, not {length}")
        self.hop, self.length = hop, length
        self._samples = torch.empty(0)  # those that later frames need
        self._frames = torch.empty(0, BANDS)  # those that later windows need
        self._missing = length  # samples until the next window is whole

    def push(self, samples: Waveform) -> list[Tensor]:
        """Any number of samples (N,) → the windows that they complete, each float32 (128, 204)."""
        block = torch.as_tensor(samples, dtype=torch.float32)
        if block.ndim != 1 or not (block.abs() <= LOUDEST).all():
            raise ValueError(f"expected finite samples of one channel, (N,) in −1..1, got {tuple(block.shape)}")
        self._missing -= len(block)
        self._samples = torch.cat([self._samples.to(block.device), block])
        if len(self._samples) >= FRAME:
            frames = log_mel_frames(self._samples)
            self._samples = self._samples[len(frames) * SHIFT :]
            self._frames = torch.cat([self._frames.to(block.device), frames])
        windows = []
        while self._missing <= 0:
            own = self._frames[: 1 + (self.length - FRAME) // SHIFT].T
            windows.append(torch.nn.functional.pad(own, (0, FRAMES - own.shape[1])))
            self._frames = self._frames[self.hop // SHIFT :]
            self._missing += self.hop
        return windows


def log_mel_frames(samples: Tensor) -> Tensor:
    """float32 (…, N) at 16 kHz → (…, 1 + (N − 400) // 160, 128), in nats of power; nothing is padded."""
    window, bands = _constants(samples.device)
    frames = samples.unfold(-1, FRAME, SHIFT)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample stands before itself
    spectrum = torch.fft.rfft((frames - PRE_EMPHASIS * before) * window, SPECTRUM)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power[..., : SPECTRUM // 2] @ bands.T).clamp_(min=FLOOR).log_()


def mel_bands() -> Tensor:
    """float64 (128, 256): triangles in mel(f) = 1127 ln(1 + f / 700), each from its neighbours' centres to its own.

    The third is narrower than the spectrum's resolution and empty. The Nyquist frequency belongs to none.
    """
    edges = torch.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2, dtype=torch.float64)
    left, centre, right = (edges[i : i + BANDS, None] for i in range(3))
    frequencies = torch.arange(SPECTRUM // 2, dtype=torch.float64) * RATE / SPECTRUM
    mel = 1127.0 * torch.log1p(frequencies / 700.0)
    return torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0)


def _mel(frequency: float) -> float:
    return float(1127.0 * np.log1p(frequency / 700.0))


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(FRAME, periodic=False, dtype=torch.float64)
    return window.float().to(device), mel_bands().float().to(device)


def _samples(waveform: Waveform) -> Tensor:
    """float32 (…, C, N). Raises `ValueError`."""
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    samples = samples[None] if samples.ndim == 1 else samples
    if samples.ndim not in (2, 3) or 0 in samples.shape or samples.shape[-1] < FRAME:
        raise ValueError(
            f"expected a waveform at 16 kHz of shape (N,), (C, N) or (B, C, N) with N ≥ {FRAME}, "
            f"got {tuple(torch.as_tensor(waveform).shape)}"
        )
    check(samples)
    return samples


def check(samples: Waveform) -> None:
    """Raise `ValueError` for less than one frame and for values that are not finite or far beyond full scale."""
    if samples.shape[-1] < FRAME:
        raise ValueError(f"expected a waveform of {FRAME} samples or more, got {samples.shape[-1]}")
    if not torch.as_tensor(samples).abs().max() <= LOUDEST:  # so written, NaN is refused as well
        raise ValueError("expected a waveform scaled to −1..1, got values that are far beyond or not finite")
