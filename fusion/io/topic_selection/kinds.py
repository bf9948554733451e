"""Decides which modality the images of a topic are of: by type, encoding, CameraInfo and frame, and then by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from sensebind.fusion.core.encodings import Pixels, why_not_decoded
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION
from sensebind.fusion.io.messages import IMAGE_TYPE
from sensebind.fusion.io.sensor_messages.sample_decoder import MESSAGE_TYPES
from sensebind.fusion.io.topic_selection.examination import UNREAD_IMAGES, TopicFacts

STEREO_ASPECT = 2.5  # width / height from which an image may be two views side by side
INFO_TOLERANCE = 0.02  # of the width in CameraInfo, when it is compared with half an image's


class Word(Enum):
    """What a word in a name says about an image."""

    DEPTH = "depth"
    DISPARITY = "disparity"
    THERMAL = "thermal"
    MAKER = "maker of thermal and other cameras"
    INFRARED = "infrared"
    COLOUR = "colour"


WORDS = {  # patterns in lower-case names
    Word.DISPARITY: re.compile("disparity"),
    Word.DEPTH: re.compile("depth"),
    # Also as in thermique, thermisch, termica, termokamera, waermebild
    Word.THERMAL: re.compile("thermal|thermi(?:c|qu|sch)|thermo|termi[ck]|termo|w(?:ae|a)rmebild|lwir"),
    Word.MAKER: re.compile("flir|lepton|optris|(?<![a-z])boson"),
    Word.INFRARED: re.compile(r"infra(?!str)|(?<![a-z])n?ir((?![a-z])|cam|img|image|left|right)|near_?ir|swir"),
    Word.COLOUR: re.compile(r"(?<![a-z])(rgb|colou?r|visible)(?=/)|/(rgb|colou?r|visible)$"),  # not `image_color`
}
MODALITY_OF_WORD = {
    Word.DISPARITY: DEPTH,
    Word.DEPTH: DEPTH,
    Word.THERMAL: THERMAL,
    Word.MAKER: THERMAL,
    Word.INFRARED: THERMAL,
}
ALIGNED_TO = re.compile(r"_to_[a-z0-9]+")  # in `aligned_depth_to_infra1`: names another camera
# Words in the names of topics of images that other programs made from a camera's images. They are no further cameras.
DERIVED_IMAGE = re.compile(
    r"(?<![a-z])(debug|dbg|annotated|annotations?|overlay|detections?|viz|visuali[sz]ation|masks?|segmentation|semantics?"
    r"|labels?|results?|markers?|features?|tracks?|tracked|preview|thumbnail|resized|map|costmap|trajectory|bbox(es)?"
    r"|boxes|yolo(v?\d+)?|detectnet|openpose|skeletons?|keypoints?|heatmap|rviz|predictions?|rendering|rendered|bev"
    r"|birds?_?eye(_view)?)(?![a-z])"
)
# Words in the names of topics whose numbers are no distances, though their encoding is that of depth images.
NO_DISTANCE = re.compile(
    r"(?<![a-z])(confidence|uncertainty|variance|cost|costmap|normals?|flow|elevation|heatmap|scores?|probability"
    r"|masks?|segmentation|semantics?|labels?|ids?|amplitude|intensity|reflectivity|signal|near_ir"
    r"|inverse(_depth)?|inv_depth|relative_depth)(?![a-z])"
)
# Words in the names of grey images that a lidar or a time-of-flight camera makes: its own light, and distances.
RETURNED_LIGHT = re.compile(r"(?<![a-z])(signal|reflec|reflectivity|amplitude|intensity)_(image|img)(?![a-z])")
RANGES = re.compile(r"(?<![a-z])range_(image|img)(?![a-z])")
SIDE_BY_SIDE = re.compile(r"side_?by_?side|(?<![a-z])sbs(?![a-z])")
STEREO = re.compile("stereo")


class Use(IntEnum):
    """How well a topic serves its modality. Only topics of the best use that a recording has become sensors."""

    SENSOR = 0
    UNSURE = 1  # nothing but the encoding says so
    INFRARED = 2  # near-infrared images, as vision
    FALSE_COLOUR = 3  # colours that mean temperatures or distances, as vision
    DERIVED = 4  # images that another program made


@dataclass(frozen=True, slots=True)
class Verdict:
    """The modality of a topic's images, None if they are of none, and the reason. `seemed`: another modality, which the
    name suggests."""

    modality: str | None
    reason: str
    use: Use = Use.SENSOR
    seemed: str | None = None


def judge_images(topics: Sequence[TopicFacts]) -> dict[str, Verdict]:
    """Name of each image topic → the modality of its images."""
    found = {facts.name: _with_stereo_note(facts, _decodable(facts, _judge(facts, topics))) for facts in topics}
    for facts in topics:
        if source := _source_of(facts, topics, found):
            reason = (
                f"made by another program from the images of {source.name}: the same frame_id and stamps, and no "
                "CameraInfo"
            )
            found[facts.name] = replace(found[facts.name], reason=reason, use=Use.DERIVED)
        word, verdict = _word(facts), found[facts.name]
        seemed = verdict.seemed or (MODALITY_OF_WORD.get(word) if word else None)
        found[facts.name] = replace(verdict, seemed=seemed if seemed != verdict.modality else None)
    return found


def _judge(facts: TopicFacts, topics: Sequence[TopicFacts]) -> Verdict:
    if facts.topic.type not in MESSAGE_TYPES[VISION]:
        return Verdict(
            None, UNREAD_IMAGES[facts.topic.type], seemed=DEPTH if "Disparity" in facts.topic.type else VISION
        )
    if facts.problem:
        return Verdict(None, facts.problem, seemed=modality_of_name(facts.name) or VISION)
    pixels = facts.pixels
    if Pixels.COLOUR in (pixels, facts.original) or Pixels.MOSAIC in (pixels, facts.original):
        return _judge_colour(facts, topics)
    if pixels is Pixels.COMPRESSED_DEPTH:
        return Verdict(DEPTH, f"real depth ({facts.encoding_text})")
    if pixels is Pixels.FLOAT or pixels is Pixels.COUNTS:
        return _judge_numbers(facts)
    if pixels is Pixels.GREY or pixels is Pixels.GREY16:
        return _judge_grey(facts)
    return _judge_unknown(facts)


def _decodable(facts: TopicFacts, verdict: Verdict) -> Verdict:
    """The verdict; no modality, if raw images of this encoding cannot be decoded as those of the modality."""
    if facts.topic.type != IMAGE_TYPE or verdict.modality is None or not facts.encoding:
        return verdict
    problem = why_not_decoded(facts.encoding, verdict.modality)
    return Verdict(None, problem, seemed=verdict.modality) if problem else verdict


def _judge_colour(facts: TopicFacts, topics: Sequence[TopicFacts]) -> Verdict:
    """The verdict on colour images: they are neither temperatures nor distances."""
    what, word = facts.encoding_text, _word(facts)
    if _is_derived(facts):
        return Verdict(VISION, f"images that another program made, by the name ({what})", Use.DERIVED)
    if word is Word.INFRARED and facts.pixels is not Pixels.MOSAIC:
        return _infrared(facts)
    if word is Word.DISPARITY:
        return Verdict(VISION, f"colours of disparity ({what})", Use.FALSE_COLOUR)
    if word is Word.THERMAL and facts.pixels is not Pixels.MOSAIC:
        return Verdict(VISION, f"colours ({what}), not temperatures: a thermal sensor needs grey", Use.FALSE_COLOUR)
    if word is Word.DEPTH and not _has_own_info(facts, topics) and facts.pixels is not Pixels.MOSAIC:
        return Verdict(VISION, f"colours ({what}), not distances", Use.FALSE_COLOUR)
    return Verdict(VISION, f"{'video' if facts.pixels is Pixels.VIDEO else 'colour images'} ({what})")


def _judge_numbers(facts: TopicFacts) -> Verdict:
    """The verdict on images of floating-point numbers, and of counts of 16 bits."""
    what, word = facts.encoding_text, _word(facts)
    if word is Word.DISPARITY:
        return _disparity()
    if word in (Word.THERMAL, Word.MAKER):
        return Verdict(THERMAL, f"thermal by the name or frame ({what})")
    if NO_DISTANCE.search(facts.name.lower()):
        return Verdict(None, f"numbers ({what}) that are no distances, by the name")
    if word is Word.INFRARED:
        if facts.pixels is Pixels.COUNTS:
            return _infrared(facts)
        return Verdict(None, f"infrared light ({what}), neither temperatures nor distances")
    if word is Word.DEPTH:
        return Verdict(DEPTH, f"depth by encoding and name ({what})")
    if facts.info_size is not None:
        return Verdict(DEPTH, f"depth by encoding, with CameraInfo ({what})")
    if _is_derived(facts):
        return Verdict(None, f"numbers ({what}) that another program made, by the name")
    return Verdict(DEPTH, f"depth by encoding ({what})", Use.UNSURE)


def _judge_grey(facts: TopicFacts) -> Verdict:
    """The verdict on grey images of 8 or 16 bits."""
    what, word, deep = facts.encoding_text, _word(facts), facts.pixels is Pixels.GREY16
    if word is Word.DISPARITY:
        return _disparity()
    if facts.original in (Pixels.COUNTS, Pixels.FLOAT) or (word is Word.DEPTH and not deep):
        if word in (Word.THERMAL, Word.MAKER):
            return Verdict(THERMAL, f"thermal by the name or frame, levels of 8 bits ({what})", Use.UNSURE)
        if word is Word.INFRARED:
            return _infrared(facts)
        return Verdict(None, f"a depth image of only 8 bits ({what}), not metres: record compressedDepth instead")
    if word in (Word.THERMAL, Word.MAKER):
        use = Use.SENSOR if deep else Use.UNSURE
        return Verdict(THERMAL, f"thermal by the name or frame ({what})", use)
    if word is Word.DEPTH:
        return Verdict(DEPTH, f"depth by the name ({what})")
    if word is Word.INFRARED or RETURNED_LIGHT.search(facts.name.lower()):
        return _infrared(facts)
    if RANGES.search(facts.name.lower()):
        text = f"the ranges of a lidar ({what}): to use them as depth, set depth.topic, and depth.unit to their unit"
        return Verdict(None, text, seemed=DEPTH)
    if _is_derived(facts):
        return Verdict(VISION, f"images that another program made, by the name ({what})", Use.DERIVED)
    return Verdict(VISION, f"grey images ({what})")


def _judge_unknown(facts: TopicFacts) -> Verdict:
    """The verdict on images whose messages do not say what they are: by the name alone."""
    what, word = facts.encoding_text if facts.encoding or facts.content else "its messages cannot be read", _word(facts)
    if facts.pixels is Pixels.VIDEO and not facts.content:
        what = facts.topic.type.rpartition("/")[2]
    if word is Word.DISPARITY:
        return _disparity()
    if word in (Word.THERMAL, Word.MAKER):
        return Verdict(THERMAL, f"thermal by the name ({what})")
    if word is Word.DEPTH and facts.pixels is not Pixels.VIDEO:
        return Verdict(DEPTH, f"depth by the name ({what})")
    if word is Word.INFRARED:
        return _infrared(facts)
    if _is_derived(facts):
        return Verdict(VISION, f"images that another program made, by the name ({what})", Use.DERIVED)
    return Verdict(VISION, f"{'video' if facts.pixels is Pixels.VIDEO else 'images, by type'} ({what})")


def _infrared(facts: TopicFacts) -> Verdict:
    return Verdict(VISION, f"near-infrared light ({facts.encoding_text}), not temperatures", Use.INFRARED)


def _disparity() -> Verdict:
    return Verdict(None, "disparity, not metres: record depth images too (stereo_image_proc)")


def _word(facts: TopicFacts) -> Word | None:
    """What the name says about the images; if it says nothing, what the frame says.

    The word nearest to the end of the topic counts: it names the data, and those before it name the device. `thermal`
    beside `ir` is thermal. Frames name devices: that of an infrared camera is often the frame of the depth images.
    """
    lower = ALIGNED_TO.sub("", facts.name.lower()).removesuffix("/compressed")
    ends = {word: [m.end() for m in pattern.finditer(lower)][-1:] for word, pattern in WORDS.items()}
    last = max((word for word in ends if ends[word]), key=lambda word: ends[word], default=None)
    if last is Word.INFRARED and (ends[Word.THERMAL] or ends[Word.MAKER]):
        return Word.THERMAL
    if last is not None:
        return last
    frame = " ".join(facts.frame_ids).lower()
    of_frame = (word for word in (Word.THERMAL, Word.MAKER, Word.INFRARED) if WORDS[word].search(frame))
    return next(of_frame, None)


def _is_derived(facts: TopicFacts) -> bool:
    """Whether the name of an image topic says that another program made the images."""
    return DERIVED_IMAGE.search(facts.name.lower()) is not None


def _has_own_info(facts: TopicFacts, topics: Sequence[TopicFacts]) -> bool:
    """Whether CameraInfo lies beside a topic, and no topic with numbers for pixels lies there too."""
    numbers = (Pixels.COUNTS, Pixels.FLOAT, Pixels.COMPRESSED_DEPTH)
    return facts.info_size is not None and not any(
        other.pixels in numbers for other in topics if other.namespace == facts.namespace
    )


def _source_of(facts: TopicFacts, topics: Sequence[TopicFacts], verdicts: dict[str, Verdict]) -> TopicFacts | None:
    """The camera from whose images another program made those of a topic: it has the same frame and stamps, a size
    that is not smaller, and CameraInfo, which the topic lacks. None: they are a camera's own."""

    def is_camera(other: TopicFacts) -> bool:
        verdict = verdicts[other.name]
        return (verdict.modality, verdict.use) == (VISION, Use.SENSOR) and other.pixels in (
            Pixels.COLOUR,
            Pixels.MOSAIC,
        )

    if not is_camera(facts) or facts.info_size is not None or not any(facts.frame_ids):
        return None
    cameras = (other for other in topics if is_camera(other) and other.info_size is not None)
    same = (c for c in cameras if c.frame_ids == facts.frame_ids and {*c.stamps} & {*facts.stamps})
    return next((camera for camera in same if camera.width >= facts.width), None)


def _with_stereo_note(facts: TopicFacts, verdict: Verdict) -> Verdict:
    """The verdict, with a note if its images seem to be two views side by side."""
    if verdict.modality is None or facts.height == 0:
        return verdict
    is_wide = facts.width >= STEREO_ASPECT * facts.height
    info_width = facts.info_size[0] if facts.info_size else 0
    has_half_info = info_width > 0 and abs(2 * info_width - facts.width) <= INFO_TOLERANCE * facts.width
    lower = facts.name.lower()
    if not (SIDE_BY_SIDE.search(lower) or (is_wide and (has_half_info or STEREO.search(lower)))):
        return verdict
    note = f"{facts.width} × {facts.height} pixels are probably two views side by side, which are embedded as one image"
    return replace(verdict, reason=f"{verdict.reason}; {note}")


def modality_of_name(topic: str) -> str:
    """The modality that the name of an image topic suggests if nothing else is known; empty if it is no camera's."""
    lower = topic.lower()
    if DERIVED_IMAGE.search(lower) or WORDS[Word.DISPARITY].search(lower):
        return ""
    if WORDS[Word.INFRARED].search(ALIGNED_TO.sub("", lower)) and not WORDS[Word.DEPTH].search(lower):
        return VISION  # most are near-infrared cameras
    words = (Word.DEPTH, Word.THERMAL, Word.MAKER)
    return next((MODALITY_OF_WORD[word] for word in words if WORDS[word].search(lower)), VISION)
