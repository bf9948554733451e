"""Decoding of images and sound: bytes to arrays in known units."""

from sensebind.fusion.core.encodings.camera import decode_rgb, sixteen_bit_pixels
from sensebind.fusion.core.encodings.depth import decode_depth, depth_in_metres, depth_pixels
from sensebind.fusion.core.encodings.errors import EncodingError
from sensebind.fusion.core.encodings.file_headers import FILE_FORMATS, file_format
from sensebind.fusion.core.encodings.image_files import (
    check_image_size,
    decode_photograph,
    decode_reduced,
    image_size,
    video_in,
)
from sensebind.fusion.core.encodings.pixel_formats import (
    CAMERA_ENCODINGS,
    PIXEL_FORMATS,
    Pixels,
    canonical_encoding,
    pixels_of,
    why_not_decoded,
)
from sensebind.fusion.core.encodings.raw_images import brightness_pixels, raw_pixels
from sensebind.fusion.core.encodings.sound import decode_pcm, pcm_to_float
from sensebind.fusion.core.encodings.thermal import ThermalImage, contrast_levels, decode_thermal, thermal_pixels
from sensebind.fusion.core.encodings.video_formats import Video, is_video_format

__all__ = [
    "CAMERA_ENCODINGS",
    "FILE_FORMATS",
    "PIXEL_FORMATS",
    "EncodingError",
    "Pixels",
    "ThermalImage",
    "Video",
    "brightness_pixels",
    "canonical_encoding",
    "check_image_size",
    "contrast_levels",
    "decode_depth",
    "decode_pcm",
    "decode_photograph",
    "decode_reduced",
    "decode_rgb",
    "decode_thermal",
    "depth_in_metres",
    "depth_pixels",
    "file_format",
    "image_size",
    "is_video_format",
    "pcm_to_float",
    "pixels_of",
    "raw_pixels",
    "sixteen_bit_pixels",
    "thermal_pixels",
    "video_in",
    "why_not_decoded",
]
