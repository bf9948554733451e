"""Figures of images on real data: people by phrase, and retrieval between colour, thermal and depth images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sensebind.evaluation.spaces.retrieval import recall_at_k
from sensebind.evaluation.tables import read_table
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION
from sensebind.fusion.core.space import Hub, Space
from sensebind.fusion.io.sensor_files import read_windows
from sensebind.fusion.models.image_rendering import RenderingHub
from sensebind.fusion.models.spokes.bound_space import BoundSpace
from sensebind.fusion.models.starter.space import StarterSpace, detector_input
from sensebind.replay.embed_files import embed_files

PERSON_PHRASES = ("a person", "a person nearby", "people", "someone", "a man")
MIN_PERSON_SHARE = 0.05  # of the image: smaller people are left out
ROOM_STEP = 3  # of the images of a room, every third: neighbours show the same view


class ImageDataError(SensebindError):
    """Images are missing. The message names the folder."""


def report_lines(space: Space, folder: Path) -> list[str]:
    """A Markdown table of all figures for which the folder of evaluation data has images. Raises `ImageDataError` if it
    has none."""
    lines: list[str] = []
    if VISION not in space.modalities:
        raise ImageDataError(f"space {space.id} has no encoder for vision: choose another --space")
    if (folder / "coco256" / "labels.csv").is_file():
        lines += person_lines(space, folder / "coco256")
    visible = sorted((folder / "roadscene" / "visible").glob("*"))
    thermal = [folder / "roadscene" / "thermal" / path.name for path in visible]
    rooms = [sorted(room.glob("*.color.jpg"))[::ROOM_STEP] for room in sorted((folder / "rgbd_rooms").glob("*"))]
    for title, colour, other, modality in (
        ("visible → thermal R@1, RoadScene", visible, thermal, THERMAL),
        _depth_pairs("7-Scenes, one room", sorted((folder / "seven_scenes").glob("*.color.jpg"))),
        _depth_pairs("two other places", [path for room in rooms for path in room]),
    ):
        spaces = [(title, space)] if modality in space.modalities else []
        if (hub := _hub_of(space)) is not None:
            spaces.append((f"{title}, rendered for the image encoder", RenderingHub(hub, [modality])))
        for name, one in spaces if colour else ():
            vectors = [embed_files(one, m, [str(p) for p in f]) for m, f in ((VISION, colour), (modality, other))]
            scores = torch.from_numpy(vectors[0] @ vectors[1].T)
            recall = recall_at_k(scores, torch.arange(len(colour)))[0]
            lines.append(f"| {name} | {recall:.3f} | {1 / len(colour):.3f} | {len(colour)} pairs |")
    if not lines:
        raise ImageDataError(
            f"'{folder}' has none of coco256, roadscene, seven_scenes, rgbd_rooms: --shared is the folder that "
            "contains 'evaluation'"
        )
    return ["| figure | value | chance | data |", "| --- | --- | --- | --- |", *lines]


def _hub_of(space: Space) -> Hub | None:
    """The hub whose own modalities do not include rendered ones; None if the space has none with an image encoder."""
    while isinstance(space, BoundSpace | RenderingHub):
        space = space.hub
    return space if isinstance(space, Hub) else None


def area_under_roc(positive: npt.NDArray[np.floating], negative: npt.NDArray[np.floating]) -> float:
    """The probability that a score of `positive` (P,) is above one of `negative` (N,); ties count half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def person_lines(space: Space, folder: Path) -> list[str]:
    """The area under the ROC curve of phrases for a person: images with a person that is large enough, against images
    without people. Raises `TableError`."""
    rows = read_table(folder / "labels.csv", ("file", "person", "largest_person_share_of_picture"))
    shares = np.array([row.number("largest_person_share_of_picture") for row in rows])
    without = np.array([row["person"] == "0" for row in rows])
    large = ~without & (shares > MIN_PERSON_SHARE)
    files = [str(folder / "images" / row["file"]) for row in rows]
    scores = embed_files(space, VISION, files) @ space.embed_text(PERSON_PHRASES).numpy().T
    data = f"{large.sum()} with a person, {without.sum()} without"
    named = {f'"{phrase}"': scores[:, at] for at, phrase in enumerate(PERSON_PHRASES)}
    hub = space.hub if isinstance(space, BoundSpace) else space
    if isinstance(hub, StarterSpace):
        named["the object detector's score of a person alone"] = _detector_scores(hub, files)
    return [
        f"| {name}, AUC, COCO | {area_under_roc(values[large], values[without]):.3f} | 0.500 | {data} |"
        for name, values in named.items()
    ]


@torch.inference_mode()
def _detector_scores(space: StarterSpace, files: Sequence[str]) -> npt.NDArray[np.float32]:
    """The object detector's highest score of a person in each image, (N,)."""
    detector, trained_window = space.detector(), space.trained_windows[VISION]
    person = detector.labels.index("Person")
    images = (space.tensor(read_windows(VISION, file, trained_window)[0]) for file in files)
    rows = (detector_input(image[None].to(space.device, space.dtype)) for image in images)
    return np.array([float(detector.presence(row)[0, person]) for row in rows], np.float32)


def _depth_pairs(title: str, colour: Sequence[Path]) -> tuple[str, Sequence[Path], Sequence[Path], str]:
    depth = [path.with_name(path.name.replace("color.jpg", "depth.png")) for path in colour]
    return f"colour → depth R@1, {title}", colour, depth, DEPTH
