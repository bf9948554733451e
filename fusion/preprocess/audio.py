"""Converts sound at 16 kHz to log-mel spectrograms as Kaldi computes them, for audio transformers.

A frame is 25 ms long, and one begins every 10 ms. The mean of each frame is removed. The frame is pre-emphasised and
multiplied by a Hann window. Its power spectrum is summed in bands that are evenly spaced in mel. The output is the
natural logarithm. All steps run in PyTorch, in batches, on the waveform's device.

`mel_bands` are the bands of other models, whose triangles are straight in Hz instead of mel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
FRAME_LENGTH, FRAME_SHIFT, FFT_SIZE = 400, 160, 512  # samples
NUM_MEL_BINS, NUM_FRAMES = 128, 204  # input of ImageBind's audio encoder
MIN_FREQUENCY, MAX_FREQUENCY = 20.0, 8000.0  # Hz
PRE_EMPHASIS = 0.97
MIN_POWER = float(np.finfo(np.float32).eps)
CLIP_SAMPLES = 2 * SAMPLE_RATE  # samples in a clip, as ImageBind was trained
SLANEY_CORNER = 1000.0  # Hz: Slaney's mel is linear below and logarithmic above (Slaney 1998, Auditory Toolbox)
SLANEY_LINEAR = 200 / 3  # Hz for one mel below the corner
SLANEY_LOG = np.log(6.4) / 27  # natural logarithm for one mel above the corner
MAX_AMPLITUDE = 100.0  # times full scale: largest valid value; integers that were not scaled exceed it
IMAGEBIND_MEAN, IMAGEBIND_STD = -4.268, 9.138

Waveform = Tensor | npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]


def log_mel(waveform: Waveform) -> Tensor:
    """(N,), (C, N) or (B, C, N) at 16 kHz, −1..1 → float32 (128, 204) or (B, 128, 204), in nats of power.

    The mean over time and channels is removed, then channel 0 is used. 2 s fill 198 of the 204 frames; the other
    frames are 0. Frames after the 204th are dropped. Raises `ValueError` for other shapes, for less than one frame (400
    samples) and for values that are not finite or far beyond full scale.
    """
    samples = _checked_waveform(waveform)
    centred = samples - samples.mean(dim=(-2, -1), keepdim=True)
    frames = log_mel_frames(centred[..., 0, :])[..., :NUM_FRAMES, :].transpose(-2, -1)
    return torch.nn.functional.pad(frames, (0, NUM_FRAMES - frames.shape[-1]))


def imagebind_tensor(waveform: Waveform) -> Tensor:
    """`log_mel`, normalized, with a channel axis: (1, 128, 204) or (B, 1, 128, 204). The padding becomes 0.467."""
    return (log_mel(waveform) - IMAGEBIND_MEAN).div_(IMAGEBIND_STD).unsqueeze(-3)


def imagebind_batch(samples: Tensor) -> Tensor:
    """Sounds (B, N) on any device → (B, 1, 128, 204) on that device: `imagebind_tensor` of each, without checks.

    Samples are float in −1..1 or int16 at full scale. int16 is a quarter to a half of the bytes to send to a GPU.
    """
    scaled = samples.float() / 32768.0 if samples.dtype == torch.int16 else samples.float()
    centred = scaled - scaled.mean(dim=-1, keepdim=True)
    frames = log_mel_frames(centred)[:, :NUM_FRAMES].transpose(1, 2)
    spectrum = torch.nn.functional.pad(frames, (0, NUM_FRAMES - frames.shape[-1]))
    return (spectrum - IMAGEBIND_MEAN).div_(IMAGEBIND_STD).unsqueeze(1)


def imagebind_clips(waveform: Waveform, count: int = 3) -> Tensor:
    """(N,) or (C, N) of any length → (count, 1, 128, 204): clips of 2 s from the start to the end, evenly spaced."""
    samples = _checked_waveform(waveform)
    spare = max(samples.shape[-1] - CLIP_SAMPLES, 0)
    starts = [spare * i // max(count - 1, 1) for i in range(count)]
    return imagebind_tensor(torch.stack([samples[:, start : start + CLIP_SAMPLES] for start in starts]))


class SlidingLogMel:
    """Log-mel of sliding windows of one channel; each frame is computed once.

    The mean of the window is not removed, because the mean of each frame is removed later. In exact arithmetic the
    result is equal to `log_mel`. In float32 it differs by rounding: less than 2e-6 on average and 0.01 in any cell.
    """

    def __init__(self, hop: int, length: int = CLIP_SAMPLES) -> None:
        """`hop` and `length` in samples. Raises `ValueError` if the frames of two windows would not coincide."""
        if hop <= 0 or hop % FRAME_SHIFT:
            raise ValueError(f"hop must be a multiple of {FRAME_SHIFT} samples (10 ms), not {hop}")
        if not FRAME_LENGTH <= length < FRAME_LENGTH + NUM_FRAMES * FRAME_SHIFT:
            raise ValueError(
                f"length must be {FRAME_LENGTH} to {FRAME_LENGTH + NUM_FRAMES * FRAME_SHIFT - 1} samples, not {length}"
            )
        self.hop, self.length = hop, length
        self._sample_buffer = torch.empty(0)  # samples for later frames
        self._frame_buffer = torch.empty(0, NUM_MEL_BINS)  # frames for later windows
        self._samples_until_window = length  # samples until the next window is complete

    def push(self, samples: Waveform) -> list[Tensor]:
        """Samples (N,) → the windows that are now complete, each float32 (128, 204). Raises `ValueError`."""
        block = torch.as_tensor(samples, dtype=torch.float32)
        if block.ndim != 1 or not (block.abs() <= MAX_AMPLITUDE).all():
            raise ValueError(f"expected finite samples of one channel, (N,) in −1..1, got {tuple(block.shape)}")
        self._samples_until_window -= len(block)
        self._sample_buffer = torch.cat([self._sample_buffer.to(block.device), block])
        if len(self._sample_buffer) >= FRAME_LENGTH:
            frames = log_mel_frames(self._sample_buffer)
            self._sample_buffer = self._sample_buffer[len(frames) * FRAME_SHIFT :]
            self._frame_buffer = torch.cat([self._frame_buffer.to(block.device), frames])
        windows = []
        while self._samples_until_window <= 0:
            own = self._frame_buffer[: 1 + (self.length - FRAME_LENGTH) // FRAME_SHIFT].T
            windows.append(torch.nn.functional.pad(own, (0, NUM_FRAMES - own.shape[1])))
            self._frame_buffer = self._frame_buffer[self.hop // FRAME_SHIFT :]
            self._samples_until_window += self.hop
        return windows


def log_mel_frames(samples: Tensor) -> Tensor:
    """Sound float32 (…, N) at 16 kHz, N ≥ 400 → float32 (…, 1 + (N − 400) // 160 frames, 128 bands), without padding:
    natural logarithm of the power."""
    window, bands = _window_and_filterbank(samples.device)
    frames = samples.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample is its own predecessor
    spectrum = torch.fft.rfft((frames - PRE_EMPHASIS * before) * window, FFT_SIZE)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power[..., : FFT_SIZE // 2] @ bands.T).clamp_(min=MIN_POWER).log_()


def mel_filterbank(bands: int = NUM_MEL_BINS, lowest: float = MIN_FREQUENCY, highest: float = MAX_FREQUENCY) -> Tensor:
    """float64 (`bands`, 256): triangles in mel(f) = 1127 ln(1 + f / 700), which end at the centres of their neighbours.

    Their ends are evenly spaced in mel from `lowest` to `highest` Hz. A triangle that is narrower than the resolution
    of the spectrum may be empty. No band contains the Nyquist frequency.
    """
    edges = torch.linspace(_hz_to_mel(lowest), _hz_to_mel(highest), bands + 2, dtype=torch.float64)
    left, centre, right = (edges[i : i + bands, None] for i in range(3))
    frequencies = torch.arange(FFT_SIZE // 2, dtype=torch.float64) * SAMPLE_RATE / FFT_SIZE
    mel = 1127.0 * torch.log1p(frequencies / 700.0)
    return torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0)


def _hz_to_mel(frequency: float) -> float:
    return float(1127.0 * np.log1p(frequency / 700.0))


@lru_cache(maxsize=8)
def _window_and_filterbank(device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64)
    return window.float().to(device), mel_filterbank().float().to(device)


def _checked_waveform(waveform: Waveform) -> Tensor:
    """float32 (…, C, N). Raises `ValueError`."""
    samples = torch.as_tensor(waveform, dtype=torch.float32)
    samples = samples[None] if samples.ndim == 1 else samples
    if samples.ndim not in (2, 3) or 0 in samples.shape or samples.shape[-1] < FRAME_LENGTH:
        raise ValueError(
            f"expected a waveform at 16 kHz of shape (N,), (C, N) or (B, C, N) with N ≥ {FRAME_LENGTH}, "
            f"got {tuple(torch.as_tensor(waveform).shape)}"
        )
    check_waveform(samples)
    return samples


def check_waveform(samples: Waveform) -> None:
    """Raise `ValueError` for less than one frame and for values that are not finite or far beyond full scale."""
    if samples.shape[-1] < FRAME_LENGTH:
        raise ValueError(f"expected a waveform of {FRAME_LENGTH} samples or more, got {samples.shape[-1]}")
    if not torch.as_tensor(samples).abs().max() <= MAX_AMPLITUDE:  # this form rejects NaN too
        raise ValueError("expected a waveform scaled to −1..1, got values that are not finite or far beyond this range")


def mel_bands(
    rate: int, fft_size: int, bands: int, lowest: float, highest: float, *, slaney: bool = False
) -> Float64Array:
    """float64 (fft_size / 2 + 1, bands): triangles in Hz, which end at the centres of their neighbours.

    `rate`: samples per second. `lowest`, `highest`: ends of the bands in Hz; the centres between them are evenly spaced
    in mel. HTK: mel is 2595 log10(1 + f / 700), and triangles are 1 at the centre. `slaney`: mel is linear below 1 kHz,
    and triangles have an area of 1 Hz. A triangle between two bins of the spectrum is empty.
    """
    edges = _to_hz(np.linspace(_to_mel(lowest, slaney), _to_mel(highest, slaney), bands + 2), slaney)
    frequencies = np.linspace(0, rate // 2, fft_size // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    triangles = np.maximum(np.minimum(rising, falling), 0)
    return triangles * (2 / (right - left)) if slaney else triangles


def _to_mel(hz: float, slaney: bool) -> float:
    if not slaney:
        return float(2595 * np.log10(1 + hz / 700))  # in another unit, the mel of `mel_filterbank`
    if hz < SLANEY_CORNER:
        return hz / SLANEY_LINEAR
    return float(SLANEY_CORNER / SLANEY_LINEAR + np.log(hz / SLANEY_CORNER) / SLANEY_LOG)


def _to_hz(mels: Float64Array, slaney: bool) -> Float64Array:
    if not slaney:
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    above = np.maximum(mels - SLANEY_CORNER / SLANEY_LINEAR, 0)
    return np.where(above > 0, SLANEY_CORNER * np.exp(SLANEY_LOG * above), SLANEY_LINEAR * mels)
