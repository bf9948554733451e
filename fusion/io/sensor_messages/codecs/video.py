"""Decodes the packets of a camera's video (H.264, H.265, AV1, VP9) to images with PyAV, as they arrive.

An image of a video needs those before it, back to a keyframe. So each packet is decoded at once, and windows hold
images: a window never needs a packet from before its own time, and nothing waits in a queue.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from sensebind.fusion.core.encodings import EncodingError, video_in
from sensebind.fusion.core.samples import MAX_PIXELS, SECOND, Frame, Sample

INSTALL = "pip install av"  # PyAV; in a ROS workspace, pip does not know the extra `video` of Sensebind
MAX_HELD_IMAGES = 16  # decoded images that wait for the next packet: the most that H.264 and H.265 reorder
AFTER_DAMAGE = "after a damaged packet, until the next keyframe,"
MAX_PACKETS_WITHOUT_KEYFRAME = 300  # after damage; then a video without keyframes is decoded again
MIN_BACKWARD_JUMP = 1 * SECOND  # ns: a packet that is older than the newest by more begins another video
START_CODE = b"\0\0\1"  # of a unit in the byte stream of H.264 and H.265 (Annex B)
# Units that begin a sequence: of H.264 IDR slice and parameter set, of H.265 IRAP slices and parameter sets.
H264_KEY_UNITS = frozenset((5, 7))
HEVC_KEY_UNITS = frozenset((*range(16, 24), 32, 33, 34))
DECODERS = {"av1": "libdav1d"}  # codec → the decoder that needs no graphics card, if its name differs
H264_SLICES, HEVC_SLICES = range(1, 6), range(32)  # units that hold pixels: those after them need not be looked at


class VideoDecoder:
    """The decoder of one sensor's video. It begins at a keyframe, and again at one after a damaged packet.

    Raises `EncodingError` if PyAV is not installed.
    """

    def __init__(self, codec: str, max_pixels: int = MAX_PIXELS) -> None:
        """`codec`: as in `VIDEO_FORMATS` of `encodings.video_formats`. `max_pixels`: of an image; FFmpeg allocates no
        larger one."""
        try:
            import av
        except ImportError as error:
            raise EncodingError(f"its images are {codec} video, which needs PyAV: {INSTALL}") from error
        self._av, self.codec, self._max_pixels = av, codec, max_pixels
        self._restart()

    def _restart(self) -> None:
        self._context: Any = self._av.CodecContext.create(DECODERS.get(self.codec, self.codec), "r")
        self._context.thread_count = 1  # threads would hold images back
        self._context.options = {"max_pixels": str(self._max_pixels)}
        self._context.flags |= self._av.codec.context.Flags.low_delay
        self._wait_for_keyframe("before the first keyframe")
        self._has_begun = False  # whether the decoder was given a keyframe
        self._newest_stamp = 0

    def _wait_for_keyframe(self, reason: str) -> None:
        self._reason = reason  # why packets give no image until the next keyframe; empty: they give one
        self._packets_dropped = 0
        self._held: deque[tuple[int, Frame]] = deque(maxlen=MAX_HELD_IMAGES)

    def decode(self, sample: Sample) -> Sample:
        """Decode one packet. Returns the sample of the oldest image that is decoded, with its own stamp: `rgb8`.

        Raises `EncodingError` for a packet that gives no image. Its text is the same for the same cause.
        """
        assert isinstance(sample.data, Frame)
        data = sample.data.data.tobytes()
        if sample.stamp < self._newest_stamp - MIN_BACKWARD_JUMP:
            self._restart()
        self._newest_stamp = max(self._newest_stamp, sample.stamp)
        is_waiting = self._reason and self._packets_dropped < MAX_PACKETS_WITHOUT_KEYFRAME
        if is_waiting and not begins_sequence(self.codec, data):
            self._drop_packet(data, sample.stamp)
        try:
            self._held.extend(self._images(data, sample.stamp))
        except self._av.error.FFmpegError as error:
            if not self._reason:
                self._wait_for_keyframe(AFTER_DAMAGE)
            raise EncodingError(f"a packet of its {self.codec} video is damaged") from error
        self._reason, self._has_begun = "", True
        if not self._held:
            raise EncodingError(
                f"a packet of its {self.codec} video gives no image yet: the encoder holds images back (B-frames), so "
                "that the newest ones are missing; set it to send each at once, such as tune=zerolatency"
            )
        stamp, frame = self._held.popleft()
        return replace(sample, stamp=stamp, data=frame)

    def _drop_packet(self, data: bytes, stamp: int) -> NoReturn:
        """Drop a packet before a keyframe. A decoder that has begun must see it: without keyframes, it recovers."""
        self._packets_dropped += 1
        if self._has_begun:
            with suppress(self._av.error.FFmpegError, EncodingError):
                self._images(data, stamp)
        raise EncodingError(f"a packet of its {self.codec} video {self._reason} gives no image")

    def _images(self, data: bytes, stamp: int) -> list[tuple[int, Frame]]:
        """The images that a packet completes, and their stamps. Raises `FFmpegError`, also if one is damaged."""
        packet = self._av.Packet(data)
        packet.pts = stamp
        found = []
        images = self._context.decode(packet)
        if len(images) > MAX_HELD_IMAGES:  # those of AV1 and VP9 may repeat an image with two bytes
            raise EncodingError(f"a packet of its {self.codec} video has more than {MAX_HELD_IMAGES} images")
        for image in images:
            if image.is_corrupt:
                raise self._av.error.InvalidDataError(0, "an image is damaged")
            if image.width * image.height > self._max_pixels:
                raise EncodingError(f"an image of its {self.codec} video has more than {self._max_pixels:,} pixels")
            pixels = image.to_ndarray(format="rgb24")
            height, width = pixels.shape[:2]
            frame = Frame(pixels.reshape(-1), "rgb8", height, width, 3 * width)
            found.append((stamp if image.pts is None else int(image.pts), frame))
        return found


def begins_sequence(codec: str, packet: bytes) -> bool:
    """Return whether a packet can be decoded without those before it. True for AV1 and VP9, whose decoders decide."""
    if codec not in ("h264", "hevc"):
        return True
    is_h264 = codec == "h264"
    keys, slices = (H264_KEY_UNITS, H264_SLICES) if is_h264 else (HEVC_KEY_UNITS, HEVC_SLICES)
    at = packet.find(START_CODE)
    while 0 <= at < len(packet) - len(START_CODE):
        first = packet[at + len(START_CODE)]
        unit = first & 0x1F if is_h264 else first >> 1 & 0x3F
        if unit in keys or unit in slices:
            return unit in keys
        at = packet.find(START_CODE, at + len(START_CODE))
    return False


class VideoStream:
    """The video of one sensor: a `VideoDecoder` for the codec of its packets. Images pass unchanged."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._decoder: VideoDecoder | None = None

    def decode(self, sample: Sample) -> Sample:
        """Return a sample with an image, as `VideoDecoder.decode`. Raises `EncodingError`."""
        frame = sample.data
        video = video_in(frame) if isinstance(frame, Frame) and frame.compressed else None
        if video is None:
            return sample
        if video.problem:
            raise EncodingError(video.problem)
        if self._decoder is None or self._decoder.codec != video.codec:
            self._decoder = VideoDecoder(video.codec, self._max_pixels)
        return self._decoder.decode(sample)
