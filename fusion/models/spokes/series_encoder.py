"""A small encoder for time series of any numbers: motion, gas, touch, torque, ranges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CONV_CHANNELS = 64
SPECTRAL_BANDS = 24
MIN_AMPLITUDE = 1e-3  # added to amplitudes (in deviations of the channel) before the logarithm


class SeriesEncoder(nn.Module):
    """Series float32 (B, C, T) → (B, outputs).

    The features are statistics of each channel (mean, deviation, deviation of the differences), its spectrum in bands
    evenly spaced in the logarithm of frequency, and the mean and maximum over time of three strided convolutions. One
    hidden layer reads them. `mean` and `deviation` (C,) are those of the training data, see `fit_normalization`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, length: int, dimension: int, hidden: int = 256) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.convolutions = nn.Sequential(
            nn.Conv1d(channels, CONV_CHANNELS, 9, 2, 4), nn.GELU(),
            nn.Conv1d(CONV_CHANNELS, CONV_CHANNELS, 9, 3, 4), nn.GELU(),
            nn.Conv1d(CONV_CHANNELS, 2 * CONV_CHANNELS, 5, 2, 2), nn.GELU(),
        )  # fmt: skip
        bands = len(_band_edges(length)) - 1
        self.read = nn.Sequential(
            nn.LayerNorm(channels * (3 + bands) + 4 * CONV_CHANNELS),
            nn.Linear(channels * (3 + bands) + 4 * CONV_CHANNELS, hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, dimension),
        )

    def fit_normalization(self, series: Tensor) -> None:
        """Set mean and deviation of each channel from training data (N, C, T). The deviation is the median over
        windows, so that a few windows of strong motion do not make all others look still."""
        self.mean.copy_(series.mean(dim=(0, 2)))
        deviations = (series - self.mean[:, None]).square().mean(dim=2).sqrt()
        self.deviation.copy_(deviations.median(dim=0).values.clamp(min=1e-6))

    def forward(self, series: Tensor) -> Tensor:
        x = (series - self.mean[:, None]) / self.deviation[:, None]
        channel_statistics = torch.cat(
            [x.mean(2), torch.log(x.std(2) + MIN_AMPLITUDE), torch.log(x.diff(dim=2).std(2) + MIN_AMPLITUDE)], dim=1
        )
        window = torch.hann_window(x.shape[2], device=x.device, dtype=x.dtype)
        amplitude = torch.fft.rfft((x - x.mean(2, keepdim=True)) * window, dim=2).abs() * 2 / x.shape[2]
        edges = _band_edges(self.length)
        bands = [amplitude[..., a:b].square().sum(-1).sqrt() for a, b in zip(edges, edges[1:], strict=False)]
        band_amplitudes = torch.log(torch.stack(bands, dim=2) + MIN_AMPLITUDE).flatten(1)
        convolved = self.convolutions(x)
        pooled = torch.cat([convolved.mean(2), convolved.amax(2)], dim=1)
        return torch.as_tensor(self.read(torch.cat([channel_statistics, band_amplitudes, pooled], dim=1)))


def _band_edges(length: int) -> list[int]:
    """Edges of the spectrum's bands, in bins: evenly spaced in the logarithm, at least one bin each, without bin 0."""
    top = length // 2 + 1
    raw = torch.logspace(0, torch.log10(torch.tensor(float(max(top, 2)))).item(), SPECTRAL_BANDS + 1).round().long()
    return sorted({int(edge) for edge in raw.clamp(1, top)})
