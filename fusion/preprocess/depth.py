"""Depth in metres → disparity, as ImageBind's depth encoder takes it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.samples import Calibration
from sensebind.fusion.preprocess.image import IMAGE_SIZE, resize_and_crop

Float32Array = npt.NDArray[np.float32]

MIN_DEPTH, MAX_DEPTH = 0.01, 50.0  # m, to which depth is clipped (facebookresearch/omnivore, issue 12)
DEFAULT_BASELINE = 0.075  # m, a Kinect's, the sensor of the SUN RGB-D and NYU images (same source)
DEFAULT_FOCAL_LENGTH, DEFAULT_FOCAL_WIDTH = (
    525.0,
    640,
)  # px, a Kinect's nominal, where neither CameraInfo nor parameters tell
MAX_DISPARITY = 75.0


def disparity(depth: Float32Array, focal_length: float, baseline: float) -> Float32Array:
    """float32 (H, W) metres → float32 (H, W) disparity in pixels, baseline · focal_length / depth.

    Depth is clipped to 0.01..50 m. No reading (NaN) is 0: as far as can be, which is what most lost readings are.
    """
    with np.errstate(invalid="ignore"):
        clipped = np.clip(depth, MIN_DEPTH, MAX_DEPTH)
    found = np.asarray(np.float32(baseline * focal_length) / clipped, np.float32)
    found[np.isnan(found)] = 0.0
    return found


def focal_length_at(width: int, calibration: Calibration) -> float:
    """Focal length in pixels of an image `width` pixels wide."""
    if calibration.focal_length > 0 and calibration.focal_width > 0:
        return calibration.focal_length * width / calibration.focal_width
    return DEFAULT_FOCAL_LENGTH * width / DEFAULT_FOCAL_WIDTH


def imagebind_tensor(
    depth: Float32Array,
    calibration: Calibration = Calibration(),
    *,
    max_disparity: float = MAX_DISPARITY,
    mean: float = 0.0,
    std: float = 1.0,
) -> torch.Tensor:
    """float32 (H, W) metres → float32 (1, 224, 224): (min(disparity, max) / max − mean) / deviation.

    The focal length is that of the image which is embedded: shorter side 224. The defaults are those of
    Omnivore's configuration, ImageBind's own being published nowhere. Resized by the nearest pixel, for a mean of
    two depths is a surface that is not there. Raises `ValueError` for other shapes.
    """
    if depth.ndim != 2 or 0 in depth.shape:
        raise ValueError(f"expected depth of shape (H, W) in metres, got {depth.shape}")
    height, width = depth.shape
    short = min(height, width)
    focal = focal_length_at(width, calibration) * IMAGE_SIZE / short
    # The pixels that are kept first: what is done to each is the same, and it is a fifth of the work.
    size = IMAGE_SIZE * width // short, IMAGE_SIZE * height // short
    kept = cv2.resize(np.asarray(depth, np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT)
    small = disparity(kept, focal, calibration.baseline or DEFAULT_BASELINE)
    square = resize_and_crop(torch.from_numpy(small)[None, None])[0]
    return (square.clamp(0, max_disparity) / max_disparity - mean) / std


def inverse_depth_image(depth: Float32Array, nearest: float = 0.5) -> npt.NDArray[np.uint8]:
    """float32 (H, W) metres → uint8 (H, W): 255 at `nearest` metres and nearer, falling as 1 / depth, 0 unknown."""
    return np.round(255 * np.clip(disparity(depth, nearest, 1.0), 0, 1)).astype(np.uint8)


def log_depth_image(depth: Float32Array) -> Float32Array:
    """float32 (H, W) metres → levels (H, W) in 0..1 for an image encoder: near is bright.

    The logarithm of depth, so that a step looks the same near and far, between its 1st and 99th percentile in this
    frame. Places without a reading are filled in from around them: most are shadows beside edges. All 0 where nothing
    was read.
    """
    height, width = depth.shape
    size = (min(width, 160), min(height, 120))
    small = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    missing = ~np.isfinite(small)
    if missing.all():
        return np.zeros(small.shape, np.float32)
    logs = np.log(np.clip(np.where(missing, 1.0, small), MIN_DEPTH, MAX_DEPTH))
    low, high = np.percentile(logs[~missing], (1, 99))
    levels = np.clip((high - logs) / max(high - low, 0.1), 0, 1)
    if not missing.any():
        return levels.astype(np.float32)
    filled = cv2.inpaint(np.round(levels * 255).astype(np.uint8), missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return np.where(missing, filled.astype(np.float32) / 255, levels).astype(np.float32)
