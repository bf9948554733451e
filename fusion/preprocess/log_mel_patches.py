"""Converts sound at 16 kHz to the log-mel patches that YAMNet takes: magnitudes in 64 bands, 96 frames a patch.

A frame is 25 ms long, multiplied by a periodic Hann window, and one begins every 10 ms. All steps run in PyTorch, in
batches, on the sound's device. Source: TensorFlow Model Garden, research/audioset/yamnet.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from sensebind.fusion.preprocess.audio import FFT_SIZE, FRAME_LENGTH, FRAME_SHIFT, mel_filterbank

BAND_COUNT = 64
MIN_FREQUENCY, MAX_FREQUENCY = 125.0, 7500.0  # Hz
LOG_OFFSET = 0.001  # added to magnitudes before the logarithm
PATCH_FRAMES = 96
PATCH_SAMPLES = FRAME_LENGTH + (PATCH_FRAMES - 1) * FRAME_SHIFT  # 0.975 s
HOP_SAMPLES = 48 * FRAME_SHIFT  # 0.48 s between the starts of patches, in YAMNet's own code


def log_mel_patches(sound: Tensor) -> Tensor:
    """Sound float32 (B, N) in −1..1 at 16 kHz → float32 (B, P, 96, 64), in nats of magnitude.

    The last patch ends with the sound, and each other one 0.48 s before the next, as long as they fit. If the first of
    them does not begin with the sound, one more patch does. So all samples are used. A sound that is shorter than a
    patch is padded with silence at its end.
    """
    sound = functional.pad(sound, (0, max(0, PATCH_SAMPLES - sound.shape[-1])))
    spare = sound.shape[-1] - PATCH_SAMPLES
    starts = list(range(spare % HOP_SAMPLES, spare + 1, HOP_SAMPLES))
    if starts[0] > 0:
        starts.insert(0, 0)
    window, bands = _window_and_filterbank(sound.device)
    patches = torch.stack([sound[:, start : start + PATCH_SAMPLES] for start in starts], dim=1)
    frames = patches.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    magnitude = torch.fft.rfft(frames * window, FFT_SIZE)[..., : FFT_SIZE // 2].abs()
    return torch.log(magnitude @ bands.T + LOG_OFFSET)


@cache  # CUDA graphs keep pointers to the tensors
def _window_and_filterbank(device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(FRAME_LENGTH, periodic=True, dtype=torch.float64)
    bands = mel_filterbank(BAND_COUNT, MIN_FREQUENCY, MAX_FREQUENCY)
    with torch.inference_mode(False):
        return window.float().to(device), bands.float().to(device)
