"""Measures mappings of images and phrases to one space: the figures of docs/starter.md, for the shipped mapping and
for the other candidates. Also measures the IMU spoke. The map of sounds is measured by `evaluation.spaces.sounds`.

The mappings are not trained. The mapping of phrases was chosen on `STAMPS_DEVELOPMENT` and scikit-image's photographs;
its result is reported on `STAMPS_TEST`. The appearance part was chosen on the image pairs that it is reported on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.space import Space
from sensebind.fusion.models.starter import concepts as starter_map
from sensebind.fusion.models.starter.efficientnet import FEATURE_COUNT
from sensebind.fusion.models.starter.space import StarterSpace, detector_input
from sensebind.fusion.preprocess.image import starter_tensor
from sensebind.training.data.activities import activity_windows, read_activities

Image = npt.NDArray[np.uint8]
ImageEncoding = Callable[["ImageOutput"], Tensor]
TextTransform = Callable[[Tensor], Tensor]

BATCH_SIZE = 16
STAMPS = Path("/usr/share/tuxpaint/stamps")  # of Debian's tuxpaint-stamps-default; GPL-2: used for measuring only
STAMPS_TEST = ("animals",)
STAMPS_DEVELOPMENT = (
    "clothes", "food", "hobbies", "household", "medical", "military", "naturalforces", "people", "plants", "space",
    "sports", "town", "vehicles",
)  # fmt: skip
DRAWING_NAMES = ("cartoon", "roadsigns", "flags", "toons")  # in the path of a stamp that is not a photograph

PHOTO_PROMPTS = {  # photographs of one object in scikit-image's wheel → their prompts
    "chelsea.png": "a cat",
    "coffee.png": "a cup of coffee",
    "rocket.jpg": "a rocket launch",
    "motorcycle_left.png": "a motorcycle",
    "astronaut.png": "an astronaut",
    "camera.png": "a man with a camera",
}
OTHER_PROMPTS = ("a dog", "a beach", "a bicycle", "a laptop", "a building", "a plate of food", "a car",
                 "a street at night")  # fmt: skip


class ComparisonDataError(SensebindError):
    """Missing data to measure on."""


class ImageOutput(NamedTuple):
    """The outputs of the networks for B images: see `EfficientNetOutput`, and `presence` (B, 23), the scores of the
    object detector."""

    stage5: Tensor
    features: Tensor
    logits: Tensor
    presence: Tensor


@dataclass(frozen=True, slots=True)
class SpaceMapping:
    """A mapping to one space, of the image network's output and of sentence vectors (None: no phrases)."""

    name: str
    image: ImageEncoding
    text: TextTransform | None


@dataclass
class Row:
    """The figures of one mapping: name → (figure, number of items, chance)."""

    name: str
    figures: dict[str, tuple[float, int, float]] = field(default_factory=dict)


def candidate_mappings(space: StarterSpace) -> list[SpaceMapping]:
    """The mappings of images that were compared; the last one is shipped. Sound concepts, which images do not have, are
    left out of the other mappings: they do not change a ranking."""
    raw = starter_map.read_vectors(starter_map.IMAGE_FILES)["class_vectors"]
    mean = raw.mean(dim=0)
    classes = normalize(raw - mean, dim=1)
    network = space.vision_encoder()
    weights = network.classifier.weight.float().cpu()
    centred = weights - weights.mean(dim=0)

    def conse(out: ImageOutput) -> Tensor:
        return normalize(out.logits.softmax(dim=1) @ (raw - mean), dim=1)

    def conse_text(text: Tensor) -> Tensor:
        return normalize(text - mean, dim=1)

    def ridge(strength: float) -> ImageEncoding:
        gram = centred @ centred.T + strength * torch.eye(len(centred))
        matrix = centred.T @ torch.linalg.solve(gram, raw - mean)
        return lambda out: normalize(out.features @ matrix, dim=1)

    def distribution(text: Tensor) -> Tensor:
        return (8 * normalize(text - mean, dim=1) @ classes.T).softmax(dim=1).sqrt()

    def appearance(out: ImageOutput) -> Tensor:
        return starter_map.appearance_vectors(out.stage5, network.stage5_statistics)

    def features(out: ImageOutput) -> Tensor:
        return normalize(out.features, dim=1)

    def concepts(out: ImageOutput) -> Tensor:
        return starter_map.concepts_from_logits(out.logits)

    def shipped(out: ImageOutput) -> Tensor:
        return starter_map.image_vectors(out.logits, out.stage5, network.stage5_statistics, out.presence)

    def side_by_side(first: ImageEncoding, second: ImageEncoding, share: float) -> ImageEncoding:
        return lambda out: torch.cat([first(out) * share**0.5, second(out) * (1 - share) ** 0.5], dim=1)

    def padded(text: TextTransform, width: int) -> TextTransform:
        return lambda vectors: pad(text(vectors), (0, width))

    share = starter_map.CONCEPT_SHARE
    width = starter_map.APPEARANCE.stop - starter_map.APPEARANCE.start
    image_concepts_of_text = starter_map.image_concepts().of_text
    conse_padded, phrases = padded(conse_text, width), padded(image_concepts_of_text, width)
    return [
        SpaceMapping("features alone", features, None),
        SpaceMapping("ConSE", lambda out: normalize(out.logits.softmax(dim=1) @ raw, dim=1), lambda text: text),
        SpaceMapping("ConSE, centred", conse, conse_text),
        *(SpaceMapping(f"ridge {s:g}", ridge(s), conse_text) for s in (1.0, 10.0, 100.0)),
        SpaceMapping("ConSE and features, ½", side_by_side(conse, features, 0.5), padded(conse_text, FEATURE_COUNT)),
        SpaceMapping("class distributions", lambda out: out.logits.softmax(dim=1).sqrt(), distribution),
        SpaceMapping("concepts alone", concepts, image_concepts_of_text),
        SpaceMapping("appearance alone", appearance, None),
        SpaceMapping(f"ConSE and appearance, {share:g}", side_by_side(conse, appearance, share), conse_padded),
        SpaceMapping("concepts and appearance, ½", side_by_side(concepts, appearance, 0.5), phrases),
        SpaceMapping(f"concepts and appearance, {share:g}", side_by_side(concepts, appearance, share), phrases),
        SpaceMapping("starter (shipped): and object concepts", shipped, starter_map.text_vectors),
    ]


def compare_mappings(space: StarterSpace, shared: Path | None, stamps: Path | None) -> list[Row]:
    """One row for each mapping, with the figures for which there are data. `shared` and `stamps` are folders of data.
    Raises `ComparisonDataError` if there are none."""
    captioned = {}
    if stamps is not None and stamps.is_dir():
        captioned = {
            "other stamps R@1": read_stamps(stamps, STAMPS_DEVELOPMENT),
            "animals R@1": read_stamps(stamps, STAMPS_TEST),
        }
    pairs = {} if shared is None else read_pairs(shared / "evaluation")
    photos = read_photos()
    if not captioned and not pairs and not photos:
        raise ComparisonDataError(
            "there are no data to measure on: give folders with --shared and --stamps, or install scikit-image"
        )
    outputs = {name: (run_image_network(space, [image for image, _ in items]), [caption for _, caption in items])
            for name, items in captioned.items()}  # fmt: skip
    pair_outputs = {
        name: (run_image_network(space, left), run_image_network(space, right)) for name, (left, right) in pairs.items()
    }
    prompts = [*dict.fromkeys(PHOTO_PROMPTS[name] for name in photos), *OTHER_PROMPTS]
    photo_output = run_image_network(space, list(photos.values())) if photos else None
    encoder = space.text_encoder()
    rows = []
    with torch.inference_mode():
        texts = {name: encoder(captions).cpu() for name, (_, captions) in outputs.items()}
        templated = {n: encoder([f"a photo of {c}" for c in captions]).cpu() for n, (_, captions) in outputs.items()}
        prompt_vectors = encoder(prompts).cpu()
        for mapping in candidate_mappings(space):
            row = Row(mapping.name)
            if photo_output is not None and mapping.text is not None:
                scores = mapping.image(photo_output) @ normalize(mapping.text(prompt_vectors), dim=1).T
                correct = [
                    prompts[int(i)] == PHOTO_PROMPTS[name] for i, name in zip(scores.argmax(1), photos, strict=True)
                ]
                row.figures["photos"] = float(np.mean(correct)), len(correct), 1 / len(prompts)
            for name, (output, captions) in outputs.items():
                if mapping.text is None:
                    continue
                for suffix, source in (("", texts), (', "a photo of"', templated)):
                    scores = normalize(mapping.image(output), dim=1) @ normalize(mapping.text(source[name]), dim=1).T
                    correct = [captions[int(i)] == own for i, own in zip(scores.argmax(1), captions, strict=True)]
                    row.figures[name + suffix] = float(np.mean(correct)), len(correct), 1 / len(correct)
            for name, (left, right) in pair_outputs.items():
                a, b = mapping.image(left), mapping.image(right)
                for suffix, x, y in (("", a, b), (", means removed", a - a.mean(dim=0), b - b.mean(dim=0))):
                    for k in (1, 5):
                        figure = recall_at_k(normalize(x, dim=1) @ normalize(y, dim=1).T, k)
                        row.figures[f"{name} R@{k}{suffix}"] = figure, len(x), k / len(x)
            rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: one row for each mapping, then rows for chance and for the number of items."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    about = {name: figure for row in rows for name, figure in row.figures.items()}
    lines = ["| mapping | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for row in rows:
        cells = [f"{row.figures[name][0]:.3f}" if name in row.figures else "–" for name in names]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    lines.append("| chance | " + " | ".join(f"{about[name][2]:.3f}" for name in names) + " |")
    lines.append("| items | " + " | ".join(str(about[name][1]) for name in names) + " |")
    return "\n".join(lines)


def recall_at_k(scores: Tensor, k: int) -> float:
    """Scores (N, N), correct ones on the diagonal → the fraction of rows whose correct one is among the k highest."""
    own = scores.diagonal()[:, None]
    return float(((scores >= own).sum(dim=1) <= k).float().mean())


@torch.inference_mode()
def run_image_network(space: StarterSpace, images: Sequence[Image]) -> ImageOutput:
    """The image network's output for RGB images uint8 (H, W, 3)."""
    network, outputs = space.vision_encoder(), []
    for first in range(0, len(images), BATCH_SIZE):
        batch = torch.stack([starter_tensor(image) for image in images[first : first + BATCH_SIZE]])
        rows = batch.to(space.device, space.dtype)
        outputs.append([*network(rows), space.detector().presence(detector_input(rows))])
    return ImageOutput(*(torch.cat([part.float().cpu() for part in parts]) for parts in zip(*outputs, strict=True)))


def read_photos() -> dict[str, Image]:
    """scikit-image's photographs that are in `PHOTO_PROMPTS`; empty if it is not installed."""
    try:
        import skimage
    except ImportError:
        return {}
    folder = Path(skimage.__file__).parent / "data"
    return {name: read_image(folder / name) for name in PHOTO_PROMPTS if (folder / name).is_file()}


def read_stamps(folder: Path, kinds: Iterable[str]) -> list[tuple[Image, str]]:
    """Photographs and their captions from the package `tuxpaint-stamps-default` of Debian 12.

    `kinds` are folder names. Raises `ComparisonDataError`.
    """
    result = []
    for path in sorted(path for kind in kinds for path in (folder / kind).rglob("*.png")):
        caption = path.with_suffix(".txt")
        if caption.is_file() and not any(word in str(path.relative_to(folder)) for word in DRAWING_NAMES):
            result.append((read_image(path), caption.read_text(encoding="utf-8").splitlines()[0].strip()))
    if not result:
        raise ComparisonDataError(f"'{folder}' has no stamps: --stamps is the folder that contains 'animals'")
    return result


def read_pairs(folder: Path) -> dict[str, tuple[list[Image], list[Image]]]:
    """Aligned images of two modalities, visible and thermal, colour and depth; without data sets that are missing."""
    result = {}
    visible = sorted((folder / "roadscene" / "visible").glob("*"))
    if visible:
        thermal = [folder / "roadscene" / "thermal" / path.name for path in visible]
        result["visible → thermal"] = [read_image(p) for p in visible], [read_image(p) for p in thermal]
    colour = sorted((folder / "seven_scenes").glob("*.color.jpg"))
    if colour:
        depth = [path.with_name(path.name.replace("color.jpg", "depth.png")) for path in colour]
        result["colour → depth"] = [read_image(p) for p in colour], [disparity(p) for p in depth]
    return result


def read_image(path: Path) -> Image:
    """RGB uint8 (H, W, 3); transparent pixels are white. Raises `ComparisonDataError`."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ComparisonDataError(f"'{path}' is no image that can be read")
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] in (2, 4):
        opaque = image[:, :, -1:].astype(np.float32) / 255
        image = np.rint(image[:, :, :-1] * opaque + 255 * (1 - opaque)).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, ::-1])


def disparity(path: Path) -> Image:
    """A file of depth, uint16 (H, W) in mm, 0 and 65535: no reading → inverse depth as a grey image uint8 (H, W, 3).

    Grey levels range from the 1st to the 99th percentile. Raises `ComparisonDataError`.
    """
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise ComparisonDataError(f"'{path}' is no image that can be read")
    valid = (depth > 0) & (depth < 65535)
    inverse = np.divide(1000, depth, out=np.zeros(depth.shape, np.float32), where=valid)
    low, high = np.percentile(inverse[valid], (1, 99))
    grey = np.where(valid, np.clip((inverse - low) / (high - low), 0, 1) * 255, 0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def best_scale(space: StarterSpace, stamps: Path) -> float:
    """The factor of the cosines with the smallest cross-entropy on the development photographs."""
    items = read_stamps(stamps, STAMPS_DEVELOPMENT)
    captions = list(dict.fromkeys(caption for _, caption in items))
    images = torch.cat([space.embed("vision", starter_tensor(image)[None]) for image, _ in items])
    cosines = images @ space.embed_text(captions).T
    own = torch.tensor([captions.index(caption) for _, caption in items])
    scales = np.arange(1.0, 101.0)
    return float(min(scales, key=lambda scale: float(cross_entropy(cosines * scale, own))))


def _linear_probe(inputs: Tensor, targets: Tensor, test_inputs: Tensor, test_targets: Tensor) -> int:
    """How many test inputs a logistic regression on the standardised `inputs` (N, D), `targets` (N,) classifies
    correctly."""
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0) + 1e-6
    inputs, test_inputs = (inputs - mean) / deviation, (test_inputs - mean) / deviation
    layer = torch.nn.Linear(inputs.shape[1], int(targets.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=200)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(layer(inputs), targets, reduction="sum") + 5 * layer.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return int((layer(test_inputs).argmax(dim=1) == test_targets).sum())


def imu_report_lines(space: Space) -> list[str]:
    """Lines with the accuracy on held-out activities, by text and by a linear probe on the vectors.

    Raises `ComparisonDataError` if the space has no encoder for `imu`.
    """
    if "imu" not in space.modalities:
        raise ComparisonDataError(f"space {space.id} has no encoder for 'imu'")
    lines = []
    recordings = read_activities()
    for name, known_people in (("seglearn", True), ("BasicMotions", False)):
        halves = []
        for held in (False, True):
            chosen = [a for a in recordings if a.held_out == held and (a.subject >= 0) == known_people]
            inputs, owners = activity_windows(chosen)
            vectors = torch.cat([space.embed("imu", batch) for batch in inputs.split(64)])
            halves.append((vectors, [chosen[owner].phrase for owner in owners]))
        phrases = list(dict.fromkeys(halves[0][1]))
        targets = [torch.tensor([phrases.index(phrase) for phrase in labels]) for _, labels in halves]
        text = float(((halves[1][0] @ space.embed_text(phrases).T).argmax(1) == targets[1]).float().mean())
        probe = _linear_probe(halves[0][0], targets[0], halves[1][0], targets[1]) / len(targets[1])
        who = "three held-out people" if known_people else "its test half, which does not identify people"
        lines.append(
            f"{name}, {len(targets[1])} windows of {who}, {len(phrases)} activities: by text {text:.2f}, "
            f"linear probe {probe:.2f}, chance {1 / len(phrases):.2f}"
        )
    return lines
