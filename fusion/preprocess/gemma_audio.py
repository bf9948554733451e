"""Converts sound to log-mel spectrograms as the audio encoder of Gemma 4 takes them.

A frame is 20 ms long, multiplied by a periodic Hann window, and one begins every 10 ms. Half a frame of silence is put
before the sound, so the first frame is centred at its start; nothing is put after it. The magnitudes of the spectrum
are summed in bands whose triangles are evenly spaced in mel (O'Shaughnessy) and straight in Hz. The output is the
natural logarithm. All steps run in PyTorch, in batches, on the sound's device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.preprocess.audio import mel_bands


@dataclass(frozen=True, slots=True)
class LogMelRecipe:
    """How a sound becomes a log-mel spectrogram.

    Attributes:
        rate: samples per second.
        frame, hop: length of a frame, and distance between the starts of frames, in samples.
        fft_size: length of the Fourier transform in samples.
        bands: number of bands.
        lowest, highest: ends of the bands in Hz.
        preemphasis: share of the sample before that is subtracted from each sample; 0: none.
        preemphasis_in_frame: the first sample of a frame is its own predecessor (HTK). False: the sample before the
            frame is.
        scale: factor of the samples −1..1.
        floor: added to magnitudes before the logarithm.
        mean, std: of each band; empty: not normalized.
    """

    rate: int = 16_000
    frame: int = 320
    hop: int = 160
    fft_size: int = 512
    bands: int = 128
    lowest: float = 0.0
    highest: float = 8000.0
    preemphasis: float = 0.0
    preemphasis_in_frame: bool = True
    scale: float = 1.0
    floor: float = 1e-3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def frames(self, samples: int) -> int:
        """The number of frames of a sound: each of them, and the sample after it, is within the sound."""
        return max(0, (samples + self.frame // 2 - self.frame - 1) // self.hop + 1)


def read_log_mel_recipe(settings: Mapping[str, Any], rate: int = 16_000) -> LogMelRecipe:
    """The recipe in the settings of a feature extractor of transformers (`Gemma4AudioFeatureExtractor`).

    Missing settings have the defaults of the extractor. Dither is not added: it would make vectors random. Raises
    `RecipeError`.
    """
    try:
        rate = int(settings.get("sampling_rate") or rate)
        frame = round(rate * float(settings.get("frame_length_ms", 20.0)) / 1000)
        recipe = LogMelRecipe(
            rate=rate,
            frame=frame,
            hop=round(rate * float(settings.get("hop_length_ms", 10.0)) / 1000),
            fft_size=(1 << (frame - 1).bit_length()) * (2 if settings.get("fft_overdrive", False) else 1),
            bands=int(settings.get("feature_size", 128)),
            lowest=float(settings.get("min_frequency", 0.0)),
            highest=float(settings.get("max_frequency", 8000.0)),
            preemphasis=float(settings.get("preemphasis", 0.0)),
            preemphasis_in_frame=bool(settings.get("preemphasis_htk_flavor", True)),
            scale=float(settings.get("input_scale_factor", 1.0)),
            floor=float(settings.get("mel_floor", 1e-3)),
            mean=tuple(float(value) for value in settings.get("per_bin_mean") or ()),
            std=tuple(float(value) for value in settings.get("per_bin_stddev") or ()),
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"the settings of the feature extractor cannot be read: {error}") from error
    if min(recipe.hop, recipe.bands, recipe.frame - 1) < 1 or not recipe.lowest < recipe.highest:
        raise RecipeError("the feature extractor has frames, hops or bands without any content")
    if any(len(values) not in (0, recipe.bands) for values in (recipe.mean, recipe.std)):
        raise RecipeError(f"per_bin_mean and per_bin_stddev must have {recipe.bands} numbers")
    return recipe


def log_mel(sounds: Tensor, recipe: LogMelRecipe) -> Tensor:
    """Sounds (B, N) on any device, float in −1..1 or int16 at full scale → float32 (B, frames, bands) there.

    There are `recipe.frames(N)` frames; samples after the last one are not used. Raises `ValueError` for sounds that
    are shorter than one frame.
    """
    if not recipe.frames(sounds.shape[-1]):
        raise ValueError(f"a sound of {sounds.shape[-1]} samples is too short: {recipe.frame // 2 + 1} are needed")
    samples = sounds.float() / 32768.0 if sounds.dtype == torch.int16 else sounds.float()
    window, bands, mean, std = _constants(recipe, sounds.device)
    # A frame is cut out with one more sample, which only decides how many frames there are, or is the predecessor.
    frames = pad(samples * recipe.scale, (recipe.frame // 2, 0)).unfold(-1, recipe.frame + 1, recipe.hop)
    if recipe.preemphasis and recipe.preemphasis_in_frame:
        first = frames[..., :1] * (1 - recipe.preemphasis)
        frames = torch.cat([first, frames[..., 1:-1] - recipe.preemphasis * frames[..., :-2]], dim=-1)
    elif recipe.preemphasis:
        frames = frames[..., 1:] - recipe.preemphasis * frames[..., :-1]
    else:
        frames = frames[..., :-1]
    magnitudes = torch.fft.rfft(frames * window, recipe.fft_size).abs()
    return (torch.log(magnitudes @ bands + recipe.floor) - mean) / std


@lru_cache(maxsize=8)  # CUDA graphs keep pointers to the tensors, and a new transfer makes the host wait
def _constants(recipe: LogMelRecipe, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Window (frame,), bands (fft_size // 2 + 1, bands), mean and std (bands,) or (1,), float32."""
    with torch.inference_mode(False):
        window = torch.hann_window(recipe.frame, periodic=True, dtype=torch.float64)
        mean, std = torch.tensor(recipe.mean or (0.0,)), torch.tensor(recipe.std or (1.0,))
        bands = torch.from_numpy(
            mel_bands(recipe.rate, recipe.fft_size, recipe.bands, recipe.lowest, recipe.highest)
        ).float()
        return window.float().to(device), bands.to(device), mean.to(device), std.to(device)
