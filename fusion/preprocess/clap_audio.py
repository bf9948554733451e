"""The log-mel spectrograms of CLAP, as the files of a checkpoint describe them, in batches on any device.

A sound that is shorter than the model's input is repeated and padded with silence. A frame is multiplied by a Hann
window; its power spectrum is summed in bands that are evenly spaced in mel. The output is in decibels.

There are two kinds of bands. Models that were trained without fusion have those of Slaney's Auditory Toolbox, where
each band has unit area. Models with fusion have those of HTK, where each band has unit height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.preprocess.audio import mel_bands

MIN_POWER = 1e-10  # −100 dB
TRUNCATIONS = ("fusion", "rand_trunc")  # how the published feature extractor cuts sounds that are too long
PADDINGS = ("repeatpad", "repeat", "pad")


@dataclass(frozen=True, slots=True)
class ClapRecipe:
    """How sound becomes the input of CLAP.

    Attributes:
        rate: samples per second.
        max_samples: length of the model's input. Shorter sounds are padded to it.
        fft_size, hop: length of a frame, and step from one frame to the next, in samples.
        bands: number of bands.
        lowest, highest: the frequencies in Hz between which the bands lie.
        slaney: whether the bands are Slaney's; else HTK's.
        padding: repeatpad: whole repetitions, then silence; repeat: repetitions, of which the last one is cut; pad:
            silence.
    """

    rate: int = 48_000
    max_samples: int = 480_000
    fft_size: int = 1024
    hop: int = 480
    bands: int = 64
    lowest: float = 0.0
    highest: float = 14_000.0
    slaney: bool = False
    padding: str = "repeatpad"

    @property
    def frames(self) -> int:
        """Number of frames of a spectrogram."""
        return 1 + self.max_samples // self.hop


def read_clap_recipe(settings: Mapping[str, Any], fused: bool) -> ClapRecipe:
    """The recipe in the settings of a feature extractor of CLAP (`preprocessor_config.json`).

    Missing settings have the defaults of the library. `fused`: whether the model was trained with fusion; it decides
    the kind of bands if no setting does. Raises `RecipeError` for settings that cannot be followed.
    """
    truncation = settings.get("truncation") or TRUNCATIONS[0 if fused else 1]
    padding = settings.get("padding") or "repeatpad"
    rate = int(settings.get("sampling_rate", 48_000))
    recipe = ClapRecipe(
        rate=rate,
        max_samples=round(settings.get("max_length_s", 10) * rate),
        fft_size=int(settings.get("fft_window_size", 1024)),
        hop=int(settings.get("hop_length", 480)),
        bands=int(settings.get("feature_size", 64)),
        lowest=float(settings.get("frequency_min", 0)),
        highest=float(settings.get("frequency_max", 14_000)),
        slaney=truncation == "rand_trunc",
        padding=str(padding),
    )
    problems = (
        (truncation not in TRUNCATIONS, f"truncation {truncation!r} is not one of {', '.join(TRUNCATIONS)}"),
        (truncation == "fusion" and not fused, "truncation is fusion, but the model was trained without fusion"),
        (padding not in PADDINGS, f"padding {padding!r} is not one of {', '.join(PADDINGS)}"),
        (min(rate, recipe.hop, recipe.bands) < 1, "sampling_rate, hop_length and feature_size must be at least 1"),
        (recipe.fft_size < 2 or recipe.fft_size % 2 != 0, f"fft_window_size {recipe.fft_size} is not an even number"),
        (recipe.max_samples < recipe.fft_size, "max_length_s is shorter than a frame"),
        (not 0 <= recipe.lowest < recipe.highest, "frequency_min must be less than frequency_max"),
    )
    for wrong, problem in problems:
        if wrong:
            raise RecipeError(f"feature extractor: {problem}")
    return recipe


def clap_log_mel(samples: Tensor, recipe: ClapRecipe) -> Tensor:
    """Sounds float32 (B, N), N ≤ `max_samples`, on any device → float32 (B, 1, frames, bands) there, in dB of power.

    No band is below −100 dB. The Fourier transform is in float64: sound of a microphone at 16 kHz leaves the bands
    above 8 kHz empty, and the rounding of float32 would raise them by up to 1 dB.
    """
    window, bands = _constants(recipe, samples.device)
    half = recipe.fft_size // 2
    padded = torch.nn.functional.pad(pad_to_length(samples, recipe), (half, half), mode="reflect")
    spectrum = torch.fft.rfft(padded.unfold(-1, recipe.fft_size, recipe.hop) * window)  # float64
    power = (spectrum.real.square() + spectrum.imag.square()).float()
    return (power @ bands).clamp_(min=MIN_POWER).log10_().mul_(10)[:, None]


def pad_to_length(samples: Tensor, recipe: ClapRecipe) -> Tensor:
    """Sounds (B, N), N ≤ `max_samples` → (B, `max_samples`), repeated or padded with silence."""
    length = samples.shape[-1]
    missing = recipe.max_samples - length
    if missing and recipe.padding != "pad":
        times = recipe.max_samples // length + (recipe.padding == "repeat")
        samples = samples.repeat(1, times)[:, : recipe.max_samples]
    return torch.nn.functional.pad(samples, (0, recipe.max_samples - samples.shape[-1]))


@lru_cache(maxsize=8)
def _constants(recipe: ClapRecipe, device: torch.device) -> tuple[Tensor, Tensor]:
    """The Hann window, float64 (fft_size,), and the bands, float32 (fft_size / 2 + 1, bands), on the device. Cached,
    because a new transfer makes the host wait."""
    bands = mel_bands(recipe.rate, recipe.fft_size, recipe.bands, recipe.lowest, recipe.highest, slaney=recipe.slaney)
    with torch.inference_mode(False):
        window = torch.hann_window(recipe.fft_size, dtype=torch.float64)
        return window.to(device), torch.from_numpy(bands).float().to(device)
