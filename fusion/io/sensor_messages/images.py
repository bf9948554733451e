"""Converts image messages and packets of videos to samples, and CameraInfo to the calibration of a camera."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from sensebind.fusion.core.samples import MAX_BASELINE, MAX_FOCAL_LENGTH, Calibration, Frame, Sample
from sensebind.fusion.io.messages import (
    COMPRESSED_IMAGE_TYPE,
    COMPRESSED_VIDEO_TYPE,
    FFMPEG_PACKET_TYPE,
    IMAGE_TYPE,
    Message,
    stamp_to_ns,
)


def image_sample(modality: str, message: Message) -> Sample:
    """sensor_msgs/Image → a sample that shares the message's memory."""
    return Sample(
        modality,
        stamp_to_ns(message.header.stamp),
        Frame(
            np.frombuffer(message.data, np.uint8),
            message.encoding,
            message.height,
            message.width,
            message.step,
            bool(message.is_bigendian),
        ),
        message.header.frame_id,
    )


def compressed_image_sample(modality: str, message: Message) -> Sample:
    """sensor_msgs/CompressedImage → a sample that shares the message's memory."""
    return Sample(
        modality,
        stamp_to_ns(message.header.stamp),
        Frame(np.frombuffer(message.data, np.uint8), message.format, compressed=True),
        message.header.frame_id,
    )


def compressed_video_sample(modality: str, message: Message) -> Sample:
    """foxglove_msgs/CompressedVideo → a sample with one packet of a video, which shares the message's memory."""
    frame = Frame(np.frombuffer(message.data, np.uint8), message.format, compressed=True)
    return Sample(modality, stamp_to_ns(message.timestamp), frame, message.frame_id)


def ffmpeg_packet_sample(modality: str, message: Message) -> Sample:
    """ffmpeg_image_transport_msgs/FFMPEGPacket → a sample with one packet of a video, which shares the message's
    memory. `encoding` is the name of a codec or of an encoder, and may have names of pixel formats after it."""
    frame = Frame(np.frombuffer(message.data, np.uint8), message.encoding, compressed=True)
    return Sample(modality, stamp_to_ns(message.header.stamp), frame, message.header.frame_id)


def with_camera_info(calibration: Calibration, message: Message) -> Calibration:
    """`calibration` with its unknown values set from a sensor_msgs/CameraInfo.

    The focal length is fx of K, the column of the forward axis cx. The baseline is −Tx/fx of P, if that is positive
    (sensor_msgs/CameraInfo). K is of the full image: if the camera sends a region of it, `roi`, the column is counted
    from its left edge, and the width is that of the region. Values that no camera has are not used: depth would be
    infinite from then on, because the first value counts.
    """
    # In ROS 1 the names are capital letters.
    k, p = (message.k, message.p) if hasattr(message, "k") else (message.K, message.P)
    focal, tx = float(k[0]), float(p[3])
    if not calibration.focal_length and 0 < focal <= MAX_FOCAL_LENGTH and message.width > 0:
        left, width, centre = 0, int(message.width), float(k[2])
        if 0 < message.roi.width < width:
            left, width = int(message.roi.x_offset), int(message.roi.width)
        calibration = replace(
            calibration,
            focal_length=focal,
            focal_width=width,
            principal_x=centre - left if math.isfinite(centre) else None,
        )
    if not calibration.baseline and p[0] > 0 and 0 < (baseline := -tx / float(p[0])) <= MAX_BASELINE:
        calibration = replace(calibration, baseline=baseline)
    return calibration


SAMPLE_CONVERTERS = {
    IMAGE_TYPE: image_sample,
    COMPRESSED_IMAGE_TYPE: compressed_image_sample,
    COMPRESSED_VIDEO_TYPE: compressed_video_sample,
    FFMPEG_PACKET_TYPE: ffmpeg_packet_sample,
}
