"""SSD MobileNetV2, for inference: an image → the scores and the boxes of 23 kinds of objects at 1917 anchors.

The network is MobileNetV2 (Sandler et al., arXiv 1801.04381) with four additional layers. Two maps of the backbone and
the output of each additional layer, 19 × 19 to 1 × 1 cells, are the input of one linear layer for the classes and one
for the boxes (SSD: Liu et al., arXiv 1512.02325). Google trained it on Open Images. The starter space uses
the highest score of each label in the whole image, and the box that has it (`ObjectDetector.objects`).
Batch normalization is folded into its convolutions. `sensebind.training.conversion.object_detector` makes the weight
file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any, Final, NamedTuple

import safetensors
import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.core.documents import parse_json
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.starter.layers import Convolution, InvertedResidual

DETECTOR_FORMAT: Final = "sensebind object detector 1"
METADATA_KEY: Final = "object_detector"  # the only key of the file's metadata: JSON, see `load`
IMAGE_SIZE = 300
LABEL_COUNT = 23
CLASS_COUNT = LABEL_COUNT + 1  # the network's first class is the background
# Per stage: number of blocks, stride of the first block, expansion, output channels. All kernels are 3 × 3.
STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320))
STEM_CHANNELS, BACKBONE_CHANNELS = 32, 1280
FIRST_MAP_BLOCK = 13  # block whose expanded input is the first feature map
ADDITIONAL_LAYERS = ((256, 512), (128, 256), (128, 256), (64, 128))  # channels between the two convolutions, and after
MAP_CHANNELS = (576, BACKBONE_CHANNELS, 512, 256, 256, 128)
MAP_SIZES = (19, 10, 5, 3, 2, 1)  # rows and columns of the feature maps

# Anchors. A scale is the square root of an anchor's area, as a fraction of the image's side. Each feature map has one
# scale, equally spaced. A ratio is width / height.
MIN_SCALE, MAX_SCALE = 0.2, 0.95
RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
FIRST_MAP_ANCHORS = ((0.1, 1.0), (MIN_SCALE, 2.0), (MIN_SCALE, 1 / 2))  # (scale, ratio): the first map has fewer
ANCHOR_COUNT = 1917
CENTRE_DIVISOR, SIZE_DIVISOR = 10.0, 5.0  # the network's outputs for centres and sizes are multiplied by these


class DetectorOutput(NamedTuple):
    """The network's output for B images at N = 1917 anchors.

    `scores` (B, N, 23): of each label, 0 to 1, independent of each other. `boxes` (B, N, 4): left, top, right and
    bottom edge as fractions of the image's width and height, 0 to 1.
    """

    scores: Tensor
    boxes: Tensor


class ObjectDetector(nn.Module):
    """Images float32 (B, 3, 300, 300), RGB in −1..1 → `DetectorOutput`.

    Images are the whole of a camera image, squashed to a square with antialiasing. `labels`: the names of the 23
    labels, in the order of the scores.
    """

    anchors: Tensor

    def __init__(self, state: Mapping[str, Tensor], labels: tuple[str, ...]) -> None:
        """`state`: float32 weights, named as in `state_dict`. Raises `RuntimeError` if entries do not fit."""
        super().__init__()
        self.labels = labels
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[InvertedResidual] = []
        channels, size = STEM_CHANNELS, IMAGE_SIZE // 2
        for count, first_stride, expansion, outputs in STAGES:
            for index in range(count):
                stride = 1 if index else first_stride
                blocks.append(InvertedResidual(channels, outputs, 3, stride, expansion, odd_input=size % 2 == 1))
                channels, size = outputs, -(-size // stride)
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(channels, BACKBONE_CHANNELS, 1)
        additional, channels = [], BACKBONE_CHANNELS
        for reduced, outputs in ADDITIONAL_LAYERS:
            strided = Convolution(reduced, outputs, 3, stride=2, odd_input=size % 2 == 1)
            additional.append(nn.Sequential(Convolution(channels, reduced, 1), strided))
            channels, size = outputs, -(-size // 2)
        self.additional = nn.ModuleList(additional)
        counts = [len(shapes) for shapes in map_anchors()]
        self.class_heads, self.box_heads = (
            nn.ModuleList(
                Convolution(inputs, count * values, 1, activation="none")
                for inputs, count in zip(MAP_CHANNELS, counts, strict=True)
            )
            for values in (CLASS_COUNT, 4)
        )
        self.register_buffer("anchors", anchor_table(), persistent=False)
        self.load_state_dict(dict(state))
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> DetectorOutput:
        logits, encodings = self.raw_outputs(images)
        return DetectorOutput(logits[..., 1:].sigmoid(), decode_boxes(encodings, self.anchors))

    def presence(self, images: Tensor) -> Tensor:
        """The score of each label in the whole image, (B, 23). Boxes are not computed."""
        rows = [
            head(x).flatten(2).amax(dim=2).unflatten(1, (-1, CLASS_COUNT)).amax(dim=1)
            for head, x in zip(self.class_heads, self.feature_maps(images), strict=True)
        ]
        return torch.stack(rows).amax(dim=0)[:, 1:].sigmoid()

    def objects(self, images: Tensor) -> Tensor:
        """The best object of each label, (B, 23, 5): see `best_objects`."""
        return best_objects(*self.raw_outputs(images), self.anchors)

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, 1917, 24), background first, and encoded boxes (B, 1917, 4), which `decode_boxes` takes."""
        maps = self.feature_maps(images)
        logits, encodings = (
            torch.cat(
                [
                    # (B, anchors · values, rows, columns) → (B, rows · columns · anchors, values)
                    head(x).permute(0, 2, 3, 1).reshape(len(x), -1, values)
                    for head, x in zip(heads, maps, strict=True)
                ],
                dim=1,
            )
            for heads, values in ((self.class_heads, CLASS_COUNT), (self.box_heads, 4))
        )
        return logits, encodings

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The six feature maps: (B, `MAP_CHANNELS[i]`, `MAP_SIZES[i]`, `MAP_SIZES[i]`)."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            if index == FIRST_MAP_BLOCK:
                maps.append(block.expand(x))
                x = block.project(block.depthwise(maps[0]))
            else:
                x = block(x)
        maps.append(self.head(x))
        for layer in self.additional:
            maps.append(layer(maps[-1]))
        return maps


def map_anchors() -> Iterator[list[tuple[float, float]]]:
    """For each feature map, the (scale, ratio) of the anchors of a cell.

    The last anchor of a cell has the geometric mean of this scale and the next. The scale after the last is 1.
    """
    yield list(FIRST_MAP_ANCHORS)
    step = (MAX_SCALE - MIN_SCALE) / (len(MAP_SIZES) - 1)
    scales = [MIN_SCALE + step * number for number in range(len(MAP_SIZES))] + [1.0]
    for scale, following in zip(scales[1:-1], scales[2:], strict=True):
        yield [*((scale, ratio) for ratio in RATIOS), (sqrt(scale * following), 1.0)]


def anchor_table() -> Tensor:
    """The anchors, float32 (1917, 4): centre x, centre y, width and height as fractions of the image's.

    In the order of the network's outputs: by feature map, row, column, and anchor of the cell.
    """
    tables = []
    for size, shapes in zip(MAP_SIZES, map_anchors(), strict=True):
        centres = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        table = torch.empty(size, size, len(shapes), 4, dtype=torch.float64)
        table[..., 0], table[..., 1] = x[..., None], y[..., None]
        table[..., 2] = torch.tensor([scale * sqrt(ratio) for scale, ratio in shapes], dtype=torch.float64)
        table[..., 3] = torch.tensor([scale / sqrt(ratio) for scale, ratio in shapes], dtype=torch.float64)
        tables.append(table.reshape(-1, 4))
    return torch.cat(tables).float()


def decode_boxes(encodings: Tensor, anchors: Tensor) -> Tensor:
    """Encoded boxes (…, N, 4) at `anchors` (N, 4) → edges (…, N, 4): left, top, right, bottom, in 0..1.

    The encoding is the shift of the centre y and x in units of the anchor's size, and the logarithm of the ratio of
    the heights and widths.
    """
    y, x, height, width = encodings.unbind(dim=-1)
    anchor_x, anchor_y, anchor_width, anchor_height = anchors.unbind(dim=-1)
    x = anchor_x + anchor_width * x / CENTRE_DIVISOR
    y = anchor_y + anchor_height * y / CENTRE_DIVISOR
    half_width = anchor_width * torch.exp(width / SIZE_DIVISOR) / 2
    half_height = anchor_height * torch.exp(height / SIZE_DIVISOR) / 2
    edges = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)
    return edges.clamp(0, 1)


def presence(scores: Tensor) -> Tensor:
    """The score of each label in the whole image, 0 to 1: scores (B, N, 23) → (B, 23), the maximum over anchors."""
    return scores.amax(dim=1)


def resize(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) → (B, 3, 300, 300), bilinear. They must not be larger: no antialiasing."""
    return functional.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)


def best_region(output: DetectorOutput) -> Tensor:
    """Where each label is, if the image shows it: (B, 23, 4), the box of the anchor with the highest score.

    The box has a meaning only for labels whose `presence` is high.
    """
    best = output.scores.argmax(dim=1)
    return output.boxes.gather(1, best[..., None].expand(-1, -1, 4))


def best_objects(logits: Tensor, encodings: Tensor, anchors: Tensor) -> Tensor:
    """The network's outputs (B, N, 24) and (B, N, 4) at `anchors` (N, 4) → the best object of each label, (B, 23, 5).

    The first number is the label's `presence`. The others are the edges of `best_region`. Only these boxes are decoded.
    """
    scores, best = logits[..., 1:].max(dim=1)
    own = encodings.gather(1, best[..., None].expand(-1, -1, 4))
    return torch.cat([scores.sigmoid()[..., None], decode_boxes(own, anchors[best])], dim=2)


def load(path: str | Path) -> ObjectDetector:
    """Load the network from the safetensors file that ships with the starter space.

    Raises `SpaceError` if the file is missing, damaged or of another model.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = read_metadata(file.metadata())
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  # not a dict
        return ObjectDetector(state, tuple(about["labels"]))
    except FileNotFoundError as error:
        raise SpaceError(f"weight file '{path}' is missing: install Sensebind again") from error
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise SpaceError(f"weight file '{path}' is damaged or not an object detector's: {reason}") from error


def read_metadata(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What a weight file states: `format`, `labels`, `origin`, `licence` and `source_sha256`.

    Raises `ValueError` for other files.
    """
    about = parse_json((metadata or {}).get(METADATA_KEY, "{}"))
    if not isinstance(about, dict) or about.get("format") != DETECTOR_FORMAT:
        raise ValueError(f"its metadata do not state the format '{DETECTOR_FORMAT}'")
    labels = about.get("labels")
    if not isinstance(labels, list) or len(labels) != LABEL_COUNT or not all(isinstance(name, str) for name in labels):
        raise ValueError(f"its metadata do not hold {LABEL_COUNT} labels")
    return about
