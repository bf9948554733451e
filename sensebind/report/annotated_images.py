"""Small images for the output bag, annotated with the active events, for Foxglove's image panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from sensebind.fusion.core.embeddings import sort_sensors
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.events import EventInterval, EventKind
from sensebind.fusion.core.samples import SECOND, Calibration, Frame, Sample
from sensebind.fusion.io.messages import COMPRESSED_IMAGE_TYPE, MessageFactory, header_message, stamp_message
from sensebind.report.panels import charts
from sensebind.report.sensor_previews import image_preview

ANNOTATIONS = "foxglove_msgs/msg/ImageAnnotations"
MAX_IMAGE_SIDE = 320  # px, the longer side
MIN_IMAGE_INTERVAL = SECOND // 2  # ns, minimum between images of one sensor
MAX_TEXT_LINES = 8  # lines of text on an image
KIND_COLOURS = {  # red, green, blue
    EventKind.PROMPT: (0.22, 0.63, 0.97),
    EventKind.NOVELTY: (0.96, 0.78, 0.38),
    EventKind.DISAGREEMENT: (0.71, 0.42, 0.64),
    EventKind.FAULT: (0.91, 0.38, 0.23),
    EventKind.CHANGE: (0.47, 0.93, 0.84),
    EventKind.UNKNOWN: (0.75, 0.75, 0.75),
}

BagMessage = tuple[str, str, int, Any]  # topic, type, stamp in ns, message


class AnnotatedImages:
    """Makes image messages as samples pass, and annotation messages at the end, when all events are known.

    The topics are `/annotated/<sensor>/image` (JPEG) and `/annotated/<sensor>/annotations`, with equal stamps.
    """

    def __init__(self, types: MessageFactory) -> None:
        self._types = types
        self._written_images: dict[str, list[tuple[int, int, int]]] = {}  # sensor → stamp in ns, width, height
        self._modalities: dict[str, str] = {}  # sensor → its modality

    def add(self, sample: Sample, calibration: Calibration | None = None) -> BagMessage | None:
        """A small image of this sample; None if it is not a readable image, or too close to the last one."""
        shown = self._written_images.setdefault(sample.sensor, [])
        self._modalities[sample.sensor] = sample.modality
        if not isinstance(sample.data, Frame) or (shown and abs(sample.stamp - shown[-1][0]) < MIN_IMAGE_INTERVAL):
            return None
        try:
            image = image_preview(sample, sample.data, calibration or Calibration(), MAX_IMAGE_SIDE)
        except EncodingError:
            return None  # the pipeline counts and reports it
        pixels = charts.false_colour(sample.modality, [image.values])[0]
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 70])
        if not done:
            return None
        shown.append((sample.stamp, pixels.shape[1], pixels.shape[0]))
        message = self._types.make(
            COMPRESSED_IMAGE_TYPE,
            header=header_message(self._types, sample.stamp, sample.frame_id),
            format="jpeg",
            data=data.ravel(),
        )
        return f"/annotated/{sample.sensor}/image", COMPRESSED_IMAGE_TYPE, sample.stamp, message

    @property
    def sensors(self) -> list[str]:
        """The sensors with images so far."""
        return [sensor for sensor in sort_sensors(self._modalities) if self._written_images[sensor]]

    def annotations(self, found: Sequence[EventInterval]) -> Iterator[BagMessage]:
        """Annotations of each image: the events active at its stamp; an empty message if there are none."""
        for sensor, shown in self._written_images.items():
            for stamp, width, height in shown:
                now = [o for o in found if o.onset <= stamp and (o.offset is None or stamp < o.offset)]
                message = self._message(stamp, width, height, sensor, now)
                yield f"/annotated/{sensor}/annotations", ANNOTATIONS, stamp, message

    def _message(self, stamp: int, width: int, height: int, sensor: str, now: Sequence[EventInterval]) -> Any:
        size = max(height / 20, 11.0)
        texts = [
            self._new(
                "TextAnnotation",
                timestamp=stamp_message(self._types, stamp),
                position=self._point(size / 2, size * (1.7 + 1.5 * line)),
                text=annotation_text(item, stamp),
                font_size=size,
                text_color=self._colour((1.0, 1.0, 1.0)),
                background_color=self._colour(_darken(KIND_COLOURS.get(item.kind, (0.4, 0.4, 0.4))), 0.85),
            )
            for line, item in enumerate(now[:MAX_TEXT_LINES])
        ]
        supported = [item for item in now if sensor in item.score_by_sensor]
        corners = [(1.0, 1.0), (width - 1.0, 1.0), (width - 1.0, height - 1.0), (1.0, height - 1.0)]
        frames = [
            self._new(
                "PointsAnnotation",
                timestamp=stamp_message(self._types, stamp),
                type=2,  # LINE_LOOP: a frame around the image, if its sensor supports an event
                points=[self._point(x, y) for x, y in corners],
                outline_color=self._colour(KIND_COLOURS.get(item.kind, (0.4, 0.4, 0.4))),
                outline_colors=[],
                fill_color=self._colour((0.0, 0.0, 0.0), 0.0),
                thickness=3.0,
            )
            for item in supported[:1]
        ]
        return self._new("ImageAnnotations", circles=[], points=frames, texts=texts)

    def _new(self, name: str, **fields: Any) -> Any:
        return self._types.make(f"foxglove_msgs/msg/{name}", **fields)

    def _point(self, x: float, y: float) -> Any:
        return self._new("Point2", x=float(x), y=float(y))

    def _colour(self, rgb: tuple[float, float, float], alpha: float = 1.0) -> Any:
        return self._new("Color", r=rgb[0], g=rgb[1], b=rgb[2], a=alpha)


def annotation_text(item: EventInterval, stamp: int) -> str:
    """The label of an event, and each sensor that supports it at `stamp` (ns), with its score."""
    reports = [evidence for tick, evidence in item.evidence_by_tick if tick <= stamp] or [
        e for _, e in item.evidence_by_tick[:1]
    ]
    evidence = reports[-1] if reports else ()
    sensors = ", ".join(f"{e.source} {e.score:.2f}" for e in sorted(evidence, key=lambda e: -e.score) if e.supports)
    return f"{item.label} ({sensors})" if sensors else item.label


def _darken(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """A colour dark enough for white text on it."""
    return rgb[0] * 0.45, rgb[1] * 0.45, rgb[2] * 0.45
