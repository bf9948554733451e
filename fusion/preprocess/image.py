"""Converts RGB images to the inputs of image encoders. Resizing follows Pillow on any device."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

IMAGE_SIZE = 224
IMAGEBIND_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's values, with which ImageBind's image encoder was trained
IMAGEBIND_STD = (0.26862954, 0.26130258, 0.27577711)


def shorter_side(height: int, width: int) -> int:
    """The shorter side of an image that is resized by it and then cropped. Raises `ValueError` for one so narrow that
    this would take any amount of memory."""
    short = min(height, width)
    if max(height, width) > 100 * short:
        raise ValueError(f"an image of {height} × {width} pixels is too narrow to be cropped to a square")
    return short


def resize_and_crop(images: torch.Tensor, side: int = IMAGE_SIZE, mode: str = "bicubic") -> torch.Tensor:
    """(B, C, H, W) → (B, C, side, side) in the same dtype: resize the shorter side to `side`, then crop the centre.

    Resizing is antialiased; `mode` is bicubic or bilinear. uint8 is resized as in Pillow: along the rows, then along
    the columns, with each result rounded to 8 bits. It differs from Pillow by at most two levels. Floats are not
    rounded and may overshoot. The longer side becomes int(side · long / short); the crop starts at
    int(round((n − side) / 2)). Raises `ValueError` for other shapes and for images without pixels.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"expected images of shape (B, C, H, W) with pixels, got {tuple(images.shape)}")
    height, width = images.shape[-2:]
    short = shorter_side(height, width)
    height, width = int(side * height / short), int(side * width / short)
    top, left = round((height - side) / 2), round((width - side) / 2)
    if (height, width) == tuple(images.shape[-2:]):
        resized = images
    elif images.dtype == torch.uint8 and images.device.type != "cpu":
        resized = _resize_uint8(images, height, width, mode)
    else:  # on the CPU, PyTorch uses Pillow's algorithm for uint8
        resized = interpolate(images, (height, width), mode=mode, antialias=True)
    return resized[..., top : top + side, left : left + side]


def _resize_uint8(images: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """Pillow's two passes in float32, for devices without a uint8 kernel. Differs from Pillow by one level at most."""
    resized = images.float()
    for size in ((resized.shape[-2], width), (height, width)):
        if size != tuple(resized.shape[-2:]):
            resized = interpolate(resized, size, mode=mode, antialias=True).round_().clamp_(0, 255)
    return resized.to(torch.uint8)


def imagebind_tensor(rgb: npt.NDArray[np.uint8]) -> torch.Tensor:
    """One RGB image, uint8 (H, W, 3) → float32 (3, 224, 224), the input of ImageBind's vision encoder.

    Raises `ValueError` for other shapes and dtypes.
    """
    array = np.asarray(rgb)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"expected an RGB image, uint8 (H, W, 3), got {array.dtype} {array.shape}")
    # Copy an array that PyTorch cannot share: read-only, or with negative strides.
    shared = array if array.flags.writeable and min(array.strides) >= 0 else array.copy()
    return imagebind_batch(torch.from_numpy(shared).permute(2, 0, 1)[None])[0]


def imagebind_batch(images: torch.Tensor) -> torch.Tensor:
    """RGB images, uint8 (B, 3, H, W) on any device → float32 (B, 3, 224, 224) on that device.

    For a GPU, transfer the uint8 images and call this on them: a quarter of the bytes, and no work for the CPU.
    Raises `ValueError` for other shapes and dtypes.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images, uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    mean, deviation = _imagebind_mean_std(images.device)
    return (resize_and_crop(images).float() / 255 - mean) / deviation


@lru_cache(maxsize=8)
def _imagebind_mean_std(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (3, 1, 1). Cached, because a new transfer makes the host wait for the GPU."""
    both = (torch.tensor(values).view(3, 1, 1).to(device) for values in (IMAGEBIND_MEAN, IMAGEBIND_STD))
    return next(both), next(both)


def squash_to_tensor(levels: npt.NDArray[np.floating]) -> torch.Tensor:
    """Levels float32 (H, W) or (H, W, 3) in 0..1 → float32 (1 or 3, 224, 224).

    The image is not cropped, so its aspect ratio changes. Raises `ValueError` for other shapes.
    """
    if levels.ndim not in (2, 3) or 0 in levels.shape or (levels.ndim == 3 and levels.shape[2] != 3):
        raise ValueError(f"expected levels (H, W) or (H, W, 3), got {levels.shape}")
    shrinks = min(levels.shape[:2]) >= IMAGE_SIZE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(np.asarray(levels, np.float32), (IMAGE_SIZE, IMAGE_SIZE), interpolation=interpolation)
    planes = small[None] if small.ndim == 2 else small.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))


def starter_tensor(rgb: npt.NDArray[np.uint8]) -> torch.Tensor:
    """One RGB image, uint8 (H, W, 3) → float32 (3, 224, 224), the input of the starter space's EfficientNet-Lite0.

    The image is resized without a crop, because important objects are often at the edge; its aspect ratio changes.
    Values become (value − 127) / 128. Raises `ValueError` for other shapes and dtypes.
    """
    array = np.asarray(rgb)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"expected an RGB image, uint8 (H, W, 3), got {array.dtype} {array.shape}")
    shrinks = min(array.shape[:2]) >= IMAGE_SIZE
    small = cv2.resize(array, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return torch.from_numpy(small.transpose(2, 0, 1).astype(np.float32, order="C")).sub_(127).div_(128)
