"""Fixed (untrained) features of a sound, on which a sound spoke is trained.

The trunk was trained on speech. Its last features lose much of other sounds, its earlier stages do not. Accuracy of a
linear probe on ESC-10 with three folds: 0.74 from the last features, 0.87 from all stages and spectrum statistics.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.models.starter.wakeword_trunk import MIN_SAMPLES, STAGE_CHANNELS, WakewordTrunk
from sensebind.fusion.preprocess.audio import log_mel_frames

SPECTRUM_BANDS = 64  # means of pairs of the 128 bands of `log_mel_frames`
MODULATION_GROUPS = 8  # groups of bands whose rhythm is measured
MODULATION_BANDS = 16  # bands of the rhythm's frequency, evenly spaced from 0.5 to 40 Hz
MODULATION_FFT_FRAMES = 200  # frames of the Fourier transform of the rhythm: 2 s
SMOOTHING_FRAMES = 9  # frames of 10 ms; faster changes count as roughness
LOW_QUANTILE, HIGH_QUANTILE = 0.05, 0.95  # quantiles over time
FEATURE_SIZE = 3 * sum(STAGE_CHANNELS) + 6 * SPECTRUM_BANDS + MODULATION_GROUPS * MODULATION_BANDS + 1


class AudioFeatureExtractor(nn.Module):
    """Sound float32 (B, samples) in −1..1 at 16 kHz → float32 (B, 1809). Has no trainable parameters."""

    def __init__(self, trunk: WakewordTrunk) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)

    def forward(self, sound: Tensor) -> Tensor:
        sound = pad_to_min_length(sound)
        return torch.cat([self.stage_statistics(sound), spectrum_statistics(log_mel_frames(sound))], dim=1)

    def stage_statistics(self, sound: Tensor) -> Tensor:
        """(B, samples) → (B, 1296): mean, deviation and maximum over time and mel of each stage's channels, in turn."""
        parts = [x.flatten(2) for x in self.trunk.stage_outputs(sound)]
        return torch.cat([statistic for x in parts for statistic in (x.mean(2), x.std(2), x.amax(2))], dim=1)


def pad_to_min_length(sound: Tensor) -> Tensor:
    """(B, samples), padded with silence at the end to the shortest sound that the trunk takes."""
    return functional.pad(sound, (0, max(0, MIN_SAMPLES - sound.shape[-1])))


def spectrum_statistics(frames: Tensor) -> Tensor:
    """Log-mel (B, T, 128) → (B, 513): mean level, deviation, changes, roughness and two quantiles of each of 64 bands,
    the rhythm (the spectrum of the level over time, in 8 groups of bands), and the mean level of all bands."""
    bands = frames.unflatten(-1, (SPECTRUM_BANDS, -1)).mean(-1)
    smooth = functional.avg_pool1d(
        bands.transpose(1, 2), SMOOTHING_FRAMES, 1, SMOOTHING_FRAMES // 2, count_include_pad=False
    )
    in_order = _sorted(bands)
    quantiles = [_quantile(in_order, fraction) for fraction in (LOW_QUANTILE, HIGH_QUANTILE)]
    groups = bands.unflatten(-1, (MODULATION_GROUPS, -1)).mean(-1)
    modulation = torch.fft.rfft(groups - groups.mean(1, keepdim=True), n=MODULATION_FFT_FRAMES, dim=1).abs()[
        :, 1 : 1 + 5 * MODULATION_BANDS
    ]
    rhythm = modulation.unflatten(1, (MODULATION_BANDS, -1)).mean(2).log1p()
    return torch.cat(
        [
            bands.mean(1),
            bands.std(1),
            bands.diff(dim=1).abs().mean(1),
            (bands - smooth.transpose(1, 2)).std(1),
            *quantiles,
            rhythm.flatten(1),
            bands.mean((1, 2))[:, None],
        ],
        dim=1,
    )


def _sorted(bands: Tensor) -> Tensor:
    """(B, T, N) → (B, N, T), each band's levels sorted. On a CPU by NumPy, whose sort takes a tenth of the time."""
    across = bands.transpose(1, 2).contiguous()
    if across.device.type != "cpu" or across.requires_grad:
        return across.sort(dim=-1).values
    return torch.from_numpy(np.sort(across.numpy(), axis=-1))


def _quantile(in_order: Tensor, fraction: float) -> Tensor:
    """(…, T), sorted → (…): as `torch.quantile`, with linear interpolation."""
    position = fraction * (in_order.shape[-1] - 1)
    below = int(position)
    return torch.lerp(in_order[..., below], in_order[..., min(below + 1, in_order.shape[-1] - 1)], position - below)
