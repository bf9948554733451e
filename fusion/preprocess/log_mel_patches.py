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
PATCH_FRAMES, PATCH_HOP_FRAMES = 96, 48  # 0.96 s and 0.48 s
MIN_SAMPLES = FRAME_LENGTH + (PATCH_FRAMES - 1) * FRAME_SHIFT  # samples of one patch


def log_mel_patches(sound: Tensor) -> Tensor:
    """Sound float32 (B, N) in −1..1 at 16 kHz → float32 (B, P, 96, 64), in nats of magnitude.

    The last patch ends with the sound, so that the newest samples are always used. Each other patch ends 0.48 s before
    the next one. A sound that is shorter than a patch is padded with silence at its end.
    """
    sound = functional.pad(sound, (0, max(0, MIN_SAMPLES - sound.shape[-1])))
    spare = (sound.shape[-1] - MIN_SAMPLES) % (PATCH_HOP_FRAMES * FRAME_SHIFT)
    window, bands = _window_and_filterbank(sound.device)
    frames = sound[:, spare:].unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    magnitude = torch.fft.rfft(frames * window, FFT_SIZE)[..., : FFT_SIZE // 2].abs()
    log_mel = torch.log(magnitude @ bands.T + LOG_OFFSET)
    return log_mel.unfold(1, PATCH_FRAMES, PATCH_HOP_FRAMES).transpose(2, 3)


@cache  # CUDA graphs keep pointers to the tensors
def _window_and_filterbank(device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(FRAME_LENGTH, periodic=True, dtype=torch.float64)
    bands = mel_filterbank(BAND_COUNT, MIN_FREQUENCY, MAX_FREQUENCY)
    with torch.inference_mode(False):
        return window.float().to(device), bands.float().to(device)
