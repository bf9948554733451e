"""Converts depth in metres to the inputs of ImageBind's depth encoder (disparity) and of image encoders."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.encodings import depth_in_metres
from sensebind.fusion.core.samples import Calibration
from sensebind.fusion.preprocess.image import IMAGE_SIZE, resize_and_crop, shorter_side

Float32Array = npt.NDArray[np.float32]

MIN_DEPTH, MAX_DEPTH = 0.01, 50.0  # m: depth is clipped to this range (facebookresearch/omnivore, issue 12)
DEFAULT_BASELINE = 0.075  # m: of a Kinect, the sensor of the SUN RGB-D and NYU images (same source)
# px: nominal values of a Kinect, used if neither CameraInfo nor parameters give them.
DEFAULT_FOCAL_LENGTH, DEFAULT_FOCAL_WIDTH = 525.0, 640
MAX_DISPARITY = 75.0


def disparity(depth: Float32Array, focal_length: float, baseline: float) -> Float32Array:
    """float32 (H, W) metres → float32 (H, W) disparity in pixels, baseline · focal_length / depth.

    Depth is clipped to 0.01..50 m. A missing reading (NaN) becomes 0 (infinitely far), because most are far away.
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
    depth: npt.NDArray[np.generic],
    calibration: Calibration = Calibration(),
    *,
    max_disparity: float = MAX_DISPARITY,
    mean: float = 0.0,
    std: float = 1.0,
) -> torch.Tensor:
    """float32 (H, W) metres → float32 (1, 224, 224): (min(disparity, max_disparity) / max_disparity − mean) / std.

    `depth` may also be uint16 counts, as `encodings.depth_pixels` returns them. Then only the pixels that are kept are
    converted to metres. The focal length is scaled to the embedded image, whose shorter side is 224. The defaults are
    those of Omnivore's configuration, because ImageBind's values are not published. Resizing takes the nearest pixel,
    because the mean of two depths is a surface that does not exist. Raises `ValueError` for other shapes.
    """
    if depth.ndim != 2 or 0 in depth.shape:
        raise ValueError(f"expected depth of shape (H, W) in metres, got {depth.shape}")
    height, width = depth.shape
    short = shorter_side(height, width)
    focal = focal_length_at(width, calibration) * IMAGE_SIZE / short
    # Resize before the conversions: the result is the same, with a fifth of the work.
    size = IMAGE_SIZE * width // short, IMAGE_SIZE * height // short
    pixels = depth if depth.dtype == np.uint16 else np.asarray(depth, np.float32)
    kept = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST_EXACT))
    small = disparity(depth_in_metres(kept, calibration), focal, calibration.baseline or DEFAULT_BASELINE)
    square = resize_and_crop(torch.from_numpy(small)[None, None])[0]
    return (square.clamp(0, max_disparity) / max_disparity - mean) / std


def inverse_depth_image(depth: Float32Array, nearest: float = 0.5) -> npt.NDArray[np.uint8]:
    """float32 (H, W) metres → uint8 (H, W): 255 up to `nearest` metres, then proportional to 1 / depth; missing: 0."""
    return np.round(255 * np.clip(disparity(depth, nearest, 1.0), 0, 1)).astype(np.uint8)


def log_depth_image(depth: Float32Array) -> Float32Array:
    """float32 (H, W) metres → float32 levels in 0..1 for an image encoder, at most 120 × 160: near is bright.

    The levels are linear in the logarithm of depth, so that a step looks the same near and far, from its 1st to its
    99th percentile in this frame. Missing readings are filled from their neighbours, because most are shadows beside
    edges. All 0 if there is no reading.
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
