"""Which video a compressed message contains, by its format and by its bytes, and whether it can be decoded."""

from __future__ import annotations

from typing import NamedTuple

# Codec → the names that formats of messages use for it, in lower-case letters without dots. `video.py` of
# `fusion/io/sensor_messages/codecs` decodes them.
VIDEO_FORMATS = {
    "h264": ("h264", "x264", "avc"),
    "hevc": ("h265", "hevc", "x265", "hvc1", "hev1"),
    "av1": ("av1",),
    "vp9": ("vp9", "vp09"),
}
UNREAD_VIDEO_FORMATS = ("vp8", "vp08", "mpeg1", "mpeg2", "mpeg4", "mp4v", "theora")
START_CODES = (b"\0\0\1", b"\0\0\0\1")  # of a unit in the byte stream of H.264 and H.265 (Annex B)
H264_FIRST_UNITS = frozenset((1, 5, 6, 7, 8, 9))  # slices, and what stands before them in a packet
# Without 3, a picture of a higher temporal layer: it looks like the information (SEI) of H.264.
HEVC_FIRST_UNITS = frozenset((0, 1, 2, *range(4, 10), *range(16, 22), *range(32, 36), 39))
TS_PACKET = 188  # bytes of a packet of an MPEG transport stream, which begins with TS_SYNC
TS_SYNC = 0x47
# Brands of files in the same container as MP4 that are images (ISO/IEC 23008-12, AVIF): they are not read.
IMAGE_BRANDS = (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1")
BARE_PACKETS = "set the encoder to send the packets of the video alone"
BYTE_STREAM = (
    "set the encoder to the byte stream (GStreamer: video/x-h264,stream-format=byte-stream or video/x-h265,…; FFmpeg: "
    "-bsf:v h264_mp4toannexb or hevc_mp4toannexb)"
)


class Video(NamedTuple):
    """A message that contains video: its codec, as in `VIDEO_FORMATS`, or the name of what cannot be decoded; and why
    that is, with the remedy (empty: it can be decoded)."""

    codec: str
    problem: str = ""


def is_video_format(name: str) -> bool:
    """Whether the format of a compressed image means a video, also one that is not read."""
    return _named_codec(name) != ""


def find_video(name: str, start: bytes, size: int) -> Video | None:
    """The video in a compressed message; None for what is none. The caller looks for image files first.

    `name`: the format of the message, which may be empty or wrong. `start`: its first bytes, 1000 if it has as many.
    `size`: the number of its bytes.
    """
    if container := _container(start):
        return Video(container, f"its messages are {container} files, which contain video: {BARE_PACKETS}")
    named, found = _named_codec(name), _codec_of_byte_stream(start)
    if found:
        return Video(named if named in ("h264", "hevc") else found)
    if named in ("h264", "hevc", "") and (found := _codec_with_lengths(named, start, size)):
        text = f"its messages are {found} video with lengths in place of start codes (AVCC): {BYTE_STREAM}"
        return Video(found, text)
    if not named:
        return None
    if named in VIDEO_FORMATS:
        return Video(named)
    return Video(named, f"its messages are {named} video, which is not read: set the encoder to H.264 or H.265")


def _named_codec(name: str) -> str:
    """The codec, or the name of video that is not read, in the format of a message; empty: it is no video's.

    Of the parts between semicolons, the first two may name it: `hevc;yuv420p;bgr8;bgr8`, `bgr8; h264 compressed`.
    """
    for part in name.lower().replace(".", "").replace("-", "").split(";")[:2]:
        for codec, names in VIDEO_FORMATS.items():
            if any(own in part for own in names):
                return codec
        if unread := next((own for own in UNREAD_VIDEO_FORMATS if own in part), ""):
            return unread
    return ""


def _container(start: bytes) -> str:
    """The container of video that begins with these bytes; empty: none."""
    if start[:4] == b"DKIF":
        return "IVF"
    if start[4:8] in (b"ftyp", b"moof", b"styp") and start[8:12] not in IMAGE_BRANDS:
        return "MP4"
    if start[:4] == b"\x1aE\xdf\xa3":
        return "Matroska"
    if start[:4] == b"RIFF" and start[8:11] == b"AVI":
        return "AVI"
    if start[:3] == b"FLV":
        return "FLV"
    if start[:4] == b"OggS":
        return "Ogg"
    packets = start[0 : 4 * TS_PACKET + 1 : TS_PACKET]
    return "MPEG-TS" if len(start) >= TS_PACKET and set(packets) == {TS_SYNC} else ""


def _codec_of_byte_stream(start: bytes) -> str:
    """`h264` or `hevc` for the begin of a packet in the byte stream format; empty: it is none."""
    after = next((len(code) for code in START_CODES if start.startswith(code)), 0)
    return _codec_of_unit(start[after : after + 2]) if after else ""


def _codec_of_unit(header: bytes) -> str:
    """The codec of a unit with these first two bytes; empty: it is none. A unit of H.265 has layer 0 and its number of
    temporal layers in the second byte, which H.264 fills with data."""
    if len(header) < 2 or header[0] & 0x80:
        return ""
    first, second = header
    if first & 1 == 0 and 1 <= second <= 7 and first >> 1 in HEVC_FIRST_UNITS:
        return "hevc"
    return "h264" if first & 0x1F in H264_FIRST_UNITS else ""


def _codec_with_lengths(named: str, start: bytes, size: int) -> str:
    """The codec of units that begin with their lengths, four bytes each; empty: they do not. `named`: the codec that
    the format of the message names. Without one, the lengths must be those of the message to its end."""
    at, codec = 0, ""
    while at < size:
        if at + 6 > len(start):  # not known further
            return codec if named else ""
        length = int.from_bytes(start[at : at + 4], "big")
        found = _codec_of_unit(start[at + 4 : at + 6])
        if length < 2 or not found or at + 4 + length > size:
            return ""
        codec, at = codec or found, at + 4 + length
    return codec
