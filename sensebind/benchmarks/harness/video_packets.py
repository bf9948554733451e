"""Packets of a video, for benchmarks and tests: images that PyAV encodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
# As encoders of robots are set: no images that wait for later ones.
OPTIONS = {
    "h264": {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "log=-1"},
    "hevc": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "av1": {"preset": "10", "svtav1-params": "pred-struct=1:rc=2:lookahead=0"},
}


def encode_video(
    images: Iterable[npt.NDArray[np.uint8]],
    codec: str = "h264",
    *,
    rate: int = 30,
    keyframe_interval: int = 30,
    options: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Encode RGB images, uint8 (H, W, 3) with even sizes, to packets in the order in which an encoder sends them.

    `keyframe_interval`: images from one keyframe to the next. `options`: instead of `OPTIONS`.
    """
    import av

    context: Any = None
    packets: list[bytes] = []
    for number, image in enumerate(images):
        if context is None:
            context = av.CodecContext.create(ENCODERS[codec], "w")
            context.height, context.width = image.shape[:2]
            context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, rate), Fraction(rate)
            context.gop_size, context.bit_rate, context.thread_count = keyframe_interval, 4_000_000, 1
            context.options = dict(OPTIONS[codec] if options is None else options)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = number
        packets += [bytes(packet) for packet in context.encode(frame)]
    if context is not None:
        packets += [bytes(packet) for packet in context.encode(None)]
    return packets
