"""The starter space: images, sounds and phrases in one space, on a CPU. No weight file has to be downloaded.

`concepts.py` has the map from the outputs of the networks to vectors.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from sensebind.fusion.core.encodings import decode_rgb
from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture, SceneFuture
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Hub, Preparation, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.openvino import audio_encoder as compiled_audio
from sensebind.fusion.models.openvino import graphs
from sensebind.fusion.models.openvino import image_encoder as compiled_images
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.precision import AUTO_DTYPE, torch_dtype
from sensebind.fusion.models.starter import (
    concepts,
    efficientnet,
    minilm,
    motion_competence,
    motion_concepts,
    object_detector,
    yamnet,
)
from sensebind.fusion.models.starter.weight_files import (
    AUDIO_WEIGHTS,
    IMAGE_WEIGHTS,
    OBJECT_WEIGHTS,
    TEXT_WEIGHTS,
    TOKENIZER,
    WEIGHT_FILES,
    find_weight_file,
)
from sensebind.fusion.preprocess.audio import SAMPLE_RATE
from sensebind.fusion.preprocess.image import starter_tensor
from sensebind.fusion.preprocess.resampling import resample_audio

SPACE_NAME = "starter"
SPOKE_FOLDER = Path(__file__).with_name("spokes")  # spokes that this project trained, and their cards
ENCODER_FILES = {  # modality → the weight files of its encoder
    TEXT: (TEXT_WEIGHTS, TOKENIZER),
    VISION: (IMAGE_WEIGHTS, OBJECT_WEIGHTS),
    AUDIO: (AUDIO_WEIGHTS,),
}
COMPETENCES: Mapping[str, Callable[[Tensor], Tensor]] = {  # modality → function of the sentence vectors of phrases
    VISION: concepts.image_competence,
    AUDIO: concepts.sound_competence,
    IMU: motion_competence.competence,
}
NEAREST_COUNT = 3  # phrases that `nearest_phrases` returns
WITHOUT_WORDS = (DEPTH, THERMAL)  # their vectors find images of the same view, but hardly any phrase: docs/starter.md
LOGIT_SCALES = {TEXT: 32.0, VISION: 32.0, AUDIO: 45.0}  # minimise the cross-entropy on development data


class StarterSpace(Hub):
    """The starter space. Each encoder can be loaded alone. Safe to use from several threads."""

    dimension = concepts.DIMENSION
    id: str
    renders_images = False
    shipped_spokes = tuple(sorted(SPOKE_FOLDER.glob("*.safetensors")))
    licence = (
        "Apache-2.0 (weights of EfficientNet-Lite0, SSD MobileNetV2, YAMNet, all-MiniLM-L6-v2); see docs/starter.md"
    )
    logit_scales: Mapping[str, float] = LOGIT_SCALES
    trained_windows: Mapping[str, TrainedWindow] = {
        VISION: TrainedWindow(0.5, frames=1),
        AUDIO: TrainedWindow(1.0),
        DEPTH: TrainedWindow(0.25, frames=1),
        THERMAL: TrainedWindow(0.25, frames=1),
        IMU: TrainedWindow(2.0),
    }

    def __init__(self, weights: str, device: str, dtype: torch.dtype, compile_encoders: bool = False) -> None:
        """`compile_encoders`: whether encoders, also those of spokes, are compiled for this processor."""
        self.device = torch.device(device)
        self.dtype = dtype
        self.compiled = compile_encoders
        self._compiled: dict[str, graphs.CompiledEncoder] = {}  # modality → its compiled encoder
        self.id = f"{SPACE_NAME}@{_digest(tuple(WEIGHT_FILES))}"
        self._weights_folder = weights
        self._vision: efficientnet.EfficientNetLite0 | None = None
        self._objects: object_detector.ObjectDetector | None = None  # belongs to vision
        self._audio: yamnet.YamNet | None = None
        self._text: minilm.MiniLMTextEncoder | None = None
        self._load_lock = threading.Lock()  # guards the networks above: one is loaded at a time
        self._sentence_cache, self._text_cache = TextEmbeddingCache(), TextEmbeddingCache()

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

        `weights`: a folder with the packages' files, if the packages are not installed. `dtype`: of the networks for
        images in PyTorch. On a CPU, auto means encoders compiled by OpenVINO if it is installed, else float32. Raises
        `SpaceError` if weights are missing or are not the expected files.
        """
        precision = torch_dtype(dtype)
        use_openvino = dtype == AUTO_DTYPE and torch.device(device).type == "cpu" and graphs.openvino_available()
        space = cls(weights, device, precision, use_openvino)
        requested = {TEXT, VISION, AUDIO} if modalities is None else set(modalities)
        if VISION in requested:
            space.vision_encoder()
            space.detector()
        if AUDIO in requested:
            space.audio_encoder()
        if use_openvino:
            space.compile()
        if TEXT in requested:
            space.text_encoder()
        return space

    @property
    def modalities(self) -> tuple[str, ...]:
        loaded = {VISION: self._vision, AUDIO: self._audio}
        return (TEXT, *(m for m, encoder in loaded.items() if m in self._compiled or encoder is not None))

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """Modalities whose encoders are compiled for this processor."""
        return frozenset(self._compiled)

    def tensor(self, window: Window) -> Tensor:
        """A window → the encoder's input: the newest image as float32 (3, 224, 224), as EfficientNet-Lite0 takes it, or
        the sound as float32 (samples,) at 16 kHz.

        Raises `EncodingError`, and `ValueError` for windows of other modalities.
        """
        return encoder_input(window)

    def preparation(self, modality: str) -> Preparation:
        """See `core.space.Space`."""
        return encoder_input

    @torch.inference_mode()
    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """Stacked `tensor`s, (B, 3, 224, 224) or (B, samples) → float32 (B, 2080) unit vectors on the CPU. Raises
        `ValueError` for other modalities than vision and audio."""
        if modality in self._compiled:
            return self._compiled[modality].embed_async(batch).fetch()
        return self.encoder(modality)(batch.to(self.device)).cpu()

    def embed_async(self, modality: str, batch: Tensor) -> EmbeddingFuture:
        """Begin to `embed`. A compiled encoder computes while the next batches are started."""
        if modality in self._compiled:
            return self._compiled[modality].embed_async(batch)
        if modality == VISION:
            return SceneFuture(lambda: self._embed_scenes(batch))
        return DeferredFuture(lambda: self.embed(modality, batch))

    def _embed_scenes(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 224, 224) → vectors (B, 2080), as `embed`, and objects (B, 23, 5), on the CPU."""
        images, rows = self.vision_encoder(), batch.to(self.device, self.dtype)
        objects = self.detector().objects(detector_input(rows)).float()
        vectors = _image_vectors(images.stage5_statistics, images(rows), objects[..., 0])
        return vectors.cpu(), objects.cpu()

    def object_names(self, modality: str) -> tuple[str, ...]:
        """See `core.space.Space`. Images have the labels of the object detector."""
        return concepts.object_names() if modality == VISION else ()

    @torch.inference_mode()
    def named_objects(self, phrases: Sequence[str]) -> list[str]:
        """See `core.space.Space`."""
        return concepts.named_objects(self._embed_sentences(phrases)) if phrases else []

    def compile(self) -> None:
        """Compile the loaded encoders. `embed` uses a compiled one if its vectors match PyTorch's."""
        encoders: dict[str, tuple[graphs.CompiledEncoder, Tensor]] = {}
        if (network := self._vision) is not None:
            scenes = compiled_images.CompiledSceneEncoder(
                network, self.detector(), detector_input, partial(_image_vectors, network.stage5_statistics)
            )
            encoders[VISION] = scenes, _network_input(compiled_images.example_image(3))
        if self._audio is not None:
            sounds = compiled_audio.CompiledAudioEncoder(self._audio, _sound_vectors)
            encoders[AUDIO] = sounds, compiled_audio.example_audio()
        for modality, (encoder, example) in encoders.items():
            if graphs.matches_pytorch(encoder, self.encoder(modality), example, modality):
                self._compiled[modality] = encoder
        if VISION in self._compiled:
            self._vision = self._objects = None  # 40 MB that a robot does not need twice
        if AUDIO in self._compiled:
            self._audio = None

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`. As `tensor`, because a GPU does not shrink images as OpenCV does."""
        return self.tensor(window)

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        """See `core.space.Space`. The audio encoder is always float32. Raises `ValueError` for other modalities than
        vision and audio."""
        if modality == VISION:
            images, objects = self.vision_encoder(), self.detector()

            def embed_images(batch: Tensor) -> Tensor:
                rows = batch.to(self.dtype)
                return _image_vectors(images.stage5_statistics, images(rows), objects.presence(detector_input(rows)))

            return embed_images
        if modality == AUDIO:
            sounds = self.audio_encoder()
            return lambda batch: _sound_vectors(sounds.of_sound(batch))
        raise ValueError(f"{SPACE_NAME} has no encoder for '{modality}'; it has {TEXT}, {VISION} and {AUDIO}")

    def graph_capturable(self, modality: str) -> bool:
        """See `core.space.Space`. True: no encoder waits for the device."""
        return True

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, 2080) unit vectors on the CPU. No template is put around a phrase."""
        return (
            self._text_cache.embed(self.id, texts, self._embed_text) if len(texts) else torch.empty(0, self.dimension)
        )

    @torch.inference_mode()
    def _embed_text(self, texts: Sequence[str]) -> Tensor:
        return concepts.text_vectors(self._embed_sentences(texts))

    def encoder_id(self, modality: str) -> str:
        """See `core.space.Space`. From the weight files of the encoder and the settings of the map."""
        if modality not in ENCODER_FILES:
            return self.id
        return f"{SPACE_NAME}-{modality}@{_digest(ENCODER_FILES[modality])}"

    @torch.inference_mode()
    def competence(self, modality: str, phrases: Sequence[str]) -> Tensor:
        """See `core.space.Space`. Images and sounds recognise phrases that are similar to one of their concepts. Motion
        recognises phrases for the motion of the robot itself. Depth and thermal images recognise no phrase."""
        if modality in WITHOUT_WORDS:
            return torch.zeros(len(phrases))
        if modality not in COMPETENCES or not phrases:
            return super().competence(modality, phrases)
        return COMPETENCES[modality](self._embed_sentences(phrases))

    def limits_classifiers(self, modality: str) -> bool:
        """See `core.space.Space`. True for an IMU: it measures the motion of the robot itself and nothing else."""
        return modality == IMU

    @torch.inference_mode()
    def nearest_phrases(self, modality: str, phrase: str) -> list[str]:
        """See `core.space.Space`. Of images: classes of images and objects. Of sounds: classes of sounds. Of motion:
        the examples of phrases for a motion."""
        sentence = self._embed_sentences([phrase])
        if modality == VISION:
            return concepts.nearest_image_phrases(sentence, NEAREST_COUNT)
        if modality == AUDIO:
            return concepts.nearest_sound_phrases(sentence, NEAREST_COUNT)
        return motion_competence.nearest_phrases(sentence, NEAREST_COUNT) if modality == IMU else []

    def _embed_sentences(self, texts: Sequence[str]) -> Tensor:
        """N ≥ 1 phrases → sentence vectors (N, 384) on the CPU."""
        return self._sentence_cache.embed(self.id, texts, lambda missing: self.text_encoder()(missing).cpu())

    def image_encoder(self) -> StarterImageEncoder:
        """A trainable copy of the image encoder: see `core.space.Hub`."""
        if self._vision is None or self.dtype != torch.float32:  # a copy of rounded weights would be less accurate
            return StarterImageEncoder(efficientnet.load(self._weight_file(IMAGE_WEIGHTS)))
        return StarterImageEncoder(copy.deepcopy(self._vision).cpu())

    def target_encoder(self) -> Callable[[Tensor], Tensor]:
        """See `core.space.Hub`: with object concepts."""
        return lambda images: self.embed(VISION, _network_input(images))

    def computed_concepts(self, name: str, rate: float) -> torch.nn.Module:
        """See `core.space.Hub`. The starter has motion concepts, for acceleration and angular velocity."""
        if name != motion_concepts.concepts_id():
            return super().computed_concepts(name, rate)
        return motion_concepts.MotionConcepts(rate)

    def vision_encoder(self) -> efficientnet.EfficientNetLite0:
        """The image encoder, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._vision is None:
                network = efficientnet.load(self._weight_file(IMAGE_WEIGHTS))
                self._vision = network.to(self.device, self.dtype)
            return self._vision

    def detector(self) -> object_detector.ObjectDetector:
        """The object detector, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._objects is None:
                network = object_detector.load(self._weight_file(OBJECT_WEIGHTS))
                self._objects = network.to(self.device, self.dtype)
            return self._objects

    def audio_encoder(self) -> yamnet.YamNet:
        """The audio encoder, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._audio is None:
                self._audio = yamnet.load(self._weight_file(AUDIO_WEIGHTS)).to(self.device)
            return self._audio

    def text_encoder(self) -> minilm.MiniLMTextEncoder:
        """The sentence encoder, loaded by the first call. Raises `SpaceError`."""
        with self._load_lock:
            if self._text is None:
                files = [self._weight_file(name) for name in (TEXT_WEIGHTS, TOKENIZER)]
                self._text = minilm.load(files[0].parent, self.device)
            return self._text

    def _weight_file(self, name: str) -> Path:
        return find_weight_file(name, self._weights_folder)


class StarterImageEncoder(torch.nn.Module):
    """RGB images float32 (B, 3, 224, 224) in 0..1 → unit vectors (B, 2080): normalization and image encoder.

    The vectors have no object concepts: depth and thermal images, which spokes take, do not look like the photographs
    that the object detector was trained on.
    """

    def __init__(self, network: efficientnet.EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return _image_vectors(self.network.stage5_statistics, self.network(_network_input(images)))

    def compile_for_cpu(self, channels: int, head: Callable[[Tensor], Tensor]) -> graphs.CompiledEncoder:
        """This encoder with its present weights, followed by `head`, compiled for this processor. `channels`: 3 for
        RGB images, 1 for grey images."""
        statistics = self.network.stage5_statistics
        return compiled_images.CompiledImageEncoder(
            self.network, channels, True, lambda output: head(_image_vectors(statistics, output))
        )


def _network_input(images: Tensor) -> Tensor:
    """Images in 0..1 → images as EfficientNet-Lite0 takes them."""
    return (images * 255 - 127) / 128


def detector_input(images: Tensor) -> Tensor:
    """Images as EfficientNet-Lite0 takes them → images as the object detector takes them."""
    return object_detector.resize(images) * (128 / 127.5) - 0.5 / 127.5


def _image_vectors(
    statistics: efficientnet.Stage5Statistics,
    output: efficientnet.EfficientNetOutput,
    presence: Tensor | None = None,
) -> Tensor:
    return concepts.image_vectors(output.logits, output.stage5, statistics, presence)


def _sound_vectors(output: yamnet.YamNetOutput) -> Tensor:
    return concepts.sound_vectors(output.logits)


@lru_cache(maxsize=8)
def _digest(files: tuple[str, ...]) -> str:
    """12 hexadecimal digits that identify weight files, the classes' phrases and the settings of the map."""
    total = hashlib.sha256()
    for name in files:
        total.update(WEIGHT_FILES[name].sha256.encode())
    total.update(concepts.map_digest())
    return total.hexdigest()[:12]


def encoder_input(window: Window) -> Tensor:
    """As `StarterSpace.tensor`."""
    if window.modality == AUDIO:
        return torch.from_numpy(resample_audio(window, SAMPLE_RATE))
    if window.modality != VISION:
        raise ValueError(f"{SPACE_NAME} cannot take windows of modality '{window.modality}'")
    frame = window.samples[-1].data
    if not isinstance(frame, Frame):
        raise TypeError(f"a vision window holds frames, not {type(frame).__name__}")
    return starter_tensor(decode_rgb(frame))
