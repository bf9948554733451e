"""The map of the starter space: what images, sounds and phrases have in common are concepts with names.

A vector has 2080 values. 1000 are image concepts, the classes of ImageNet. 23 are object concepts, the labels of the
object detector. 521 are sound concepts, the classes of AudioSet. 536 are the appearance of an image: features of the
cells of a grid, without names. An image has no sound concepts. A sound has no appearance and no object concepts. A
phrase has all concepts, but no appearance. A sound has a small part of image concepts, those whose names are similar to
its own, so that it finds images of its source. The first value of its appearance is what is missing to unit length.
docs/starter.md has the figures by which this map was chosen.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.starter.efficientnet import CLASS_COUNT, STAGE5_CHANNELS, Stage5Statistics
from sensebind.fusion.models.starter.object_detector import LABEL_COUNT
from sensebind.fusion.models.starter.yamnet import CLASS_COUNT as SOUND_CLASS_COUNT

IMAGE_CONCEPTS = slice(0, CLASS_COUNT)
OBJECT_CONCEPTS = slice(IMAGE_CONCEPTS.stop, IMAGE_CONCEPTS.stop + LABEL_COUNT)
SOUND_CONCEPTS = slice(OBJECT_CONCEPTS.stop, OBJECT_CONCEPTS.stop + SOUND_CLASS_COUNT)
APPEARANCE = slice(SOUND_CONCEPTS.stop, SOUND_CONCEPTS.stop + 536)
DIMENSION = APPEARANCE.stop

APPEARANCE_GRID = 4  # rows and columns of the grid of cells
# Fractions of a vector's squared length. The object concepts of an image and of a phrase are added to them.
CONCEPT_SHARE = 0.25  # of an image: image concepts; the rest is appearance
TEXT_IMAGE_SHARE = 0.5  # of a phrase: image concepts; the rest are sound concepts
SOUND_IMAGE_SHARE = 0.02  # of a sound: image concepts. A larger share mixes up sounds whose names are similar
# Lengths of the object concepts of an image that surely shows one object, and of a phrase that is the object's name.
# Their product is that of the image concepts, so for an object of both kinds both count the same.
IMAGE_OBJECT_LENGTH = 1.0
TEXT_OBJECT_LENGTH = (CONCEPT_SHARE * TEXT_IMAGE_SHARE) ** 0.5 / IMAGE_OBJECT_LENGTH
IMAGE_POWER, SOUND_POWER = 2, 12  # of a phrase's similarities to the classes
OBJECT_POWER = 3  # of a phrase's similarities to the objects, and of the scores of the object detector
# Log-likelihood ratios of sounds, nats: the part that is left out, and the length of all concepts at which they are
# half of a vector's squared length.
MIN_SOUND_RATIO, SOUND_HALF_LENGTH = 1.0, 20.0
PROBABILITY_FLOOR = 1e-6  # added to the probabilities of sounds
# Similarity to the nearest sound concept at which a phrase begins to name a sound, and at which it surely does.
NAMES_A_SOUND = (0.25, 0.45)
NAMES_AN_OBJECT = 0.5  # similarity to the nearest object at which a phrase means it: "a woman" does, "a sheep" does not


# Similarity to the nearest image or object concept at which a phrase begins to name something that can be seen, and at
# which it surely does. Not part of the map.
NAMES_A_SIGHT = (0.25, 0.35)


class ConceptFiles(NamedTuple):
    """The names of a kind of concepts, one in a line, and the sentence vectors made of them
    (`sensebind.training.conversion.concepts`)."""

    names: Path
    vectors: Path


IMAGE_FILES = ConceptFiles(*(Path(__file__).with_name(f"imagenet_classes.{end}") for end in ("txt", "safetensors")))
OBJECT_FILES = ConceptFiles(*(Path(__file__).with_name(f"object_classes.{end}") for end in ("txt", "safetensors")))
SOUND_FILES = ConceptFiles(*(Path(__file__).with_name(f"audioset_classes.{end}") for end in ("txt", "safetensors")))


class Concepts:
    """N concepts, and the map of sentence vectors to them.

    The similarity of a phrase and a concept is their cosine, at least 0, after the directions of the usual wordings of
    prompts are projected out of their sentence vectors and the mean of the concepts is subtracted.
    """

    def __init__(self, class_vectors: Tensor, template_shifts: Tensor, power: int) -> None:
        """`class_vectors` (N, 384): sentence vectors of the concepts' phrases. `template_shifts` (T, 384): their mean
        shifts by T wordings. `power`: of the similarities."""
        self._wordings = torch.linalg.qr(template_shifts.T).Q
        classes = project_out(class_vectors, self._wordings)
        self._mean = classes.mean(dim=0)
        self._classes = functional.normalize(classes - self._mean, dim=1)
        self._power = power

    def centred(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (B, 384) → (B, 384) of unit length, whose cosines are the similarities."""
        return functional.normalize(project_out(vectors, self._wordings) - self._mean, dim=1)

    def of_text(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (B, 384) → (B, N) of unit length: powers of the similarities, minus their mean."""
        return self.of_similarities(self.similarities(vectors))

    def of_similarities(self, similarities: Tensor) -> Tensor:
        """As `of_text`, from the phrases' `similarities` (B, N)."""
        closeness = similarities.clamp(min=0) ** self._power
        return functional.normalize(closeness - closeness.mean(dim=1, keepdim=True), dim=1)

    def similarities(self, vectors: Tensor) -> Tensor:
        """Sentence vectors (B, 384) → cosines with the concepts, (B, N)."""
        return self.centred(vectors) @ self._classes.T


class SoundMap(NamedTuple):
    """`typical` (521,): mean log probabilities of everyday sounds. `image_concepts` (521, 1000): those of each class's
    name."""

    typical: Tensor
    image_concepts: Tensor


def project_out(vectors: Tensor, directions: Tensor) -> Tensor:
    """Vectors (N, D) minus their components along the orthonormal columns of `directions` (D, K)."""
    return vectors - (vectors @ directions) @ directions.T


def text_vectors(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → unit vectors (N, 2080)."""
    images, sounds = image_concepts().of_text(sentences), sounds_from_text(sentences)
    return _joined(images, objects_from_text(sentences) * TEXT_OBJECT_LENGTH, sounds, TEXT_IMAGE_SHARE)


def image_vectors(
    logits: Tensor, stage5: Tensor, statistics: Stage5Statistics, presence: Tensor | None = None
) -> Tensor:
    """The network's logits (B, 1000) and stage 5 for B images → unit vectors (B, 2080).

    `presence` (B, 23): scores of the object detector. None: the vectors have no object concepts.
    """
    images = concepts_from_logits(logits.float())
    objects = images.new_zeros(len(images), LABEL_COUNT) if presence is None else presence.float() ** OBJECT_POWER
    sounds = images.new_zeros(len(images), SOUND_CLASS_COUNT)
    appearance = appearance_vectors(stage5.float(), statistics)
    parts = [
        images * CONCEPT_SHARE**0.5,
        objects * IMAGE_OBJECT_LENGTH,
        sounds,
        appearance * (1 - CONCEPT_SHARE) ** 0.5,
    ]
    return functional.normalize(torch.cat(parts, dim=1), dim=1)


def sound_vectors(logits: Tensor) -> Tensor:
    """The network's logits (B, P, 521) for P patches of B sounds → unit vectors (B, 2080)."""
    sound_map = _sound_map(logits.device)
    sounds = concepts_from_sound(logits.float(), sound_map.typical)
    length = sounds.norm(dim=1, keepdim=True)
    images = functional.normalize(sounds @ sound_map.image_concepts, dim=1) * length
    joined = [
        images * SOUND_IMAGE_SHARE**0.5,
        sounds.new_zeros(len(sounds), LABEL_COUNT),
        sounds * (1 - SOUND_IMAGE_SHARE) ** 0.5,
        (1 - length**2).clamp(min=0).sqrt(),
    ]
    vectors = functional.normalize(torch.cat(joined, dim=1), dim=1)
    return functional.pad(vectors, (0, DIMENSION - vectors.shape[1]))


def sounds_from_text(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → sound concepts (N, 521) of unit length.

    A phrase that is not similar to any class names no sound. Its sound concepts are all equal: they are orthogonal to
    the concepts of every sound, whose mean is 0. Between the two limits of `NAMES_A_SOUND` it has a part of both.
    """
    similarities = sound_concepts().similarities(sentences)
    named = _ramp(similarities.amax(dim=1, keepdim=True), NAMES_A_SOUND)
    equal = SOUND_CLASS_COUNT**-0.5
    return sound_concepts().of_similarities(similarities) * named + (1 - named**2).sqrt() * equal


def sound_competence(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → how far each phrase names a sound, (N,), 0 to 1: see `sounds_from_text`."""
    return _ramp(sound_concepts().similarities(sentences).amax(dim=1), NAMES_A_SOUND)


def image_competence(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → how far each phrase names something that can be seen, (N,), 0 to 1."""
    classes = image_concepts().similarities(sentences).amax(dim=1)
    return _ramp(torch.maximum(classes, _object_similarities(sentences).amax(dim=1)), NAMES_A_SIGHT)


def objects_from_text(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → (N, 23): third powers of the similarities to the nearest phrase of each object, at
    least 0. Near 0 for a phrase that names no object."""
    return _object_similarities(sentences).clamp(min=0) ** OBJECT_POWER


def named_objects(sentences: Tensor) -> list[str]:
    """Sentence vectors (N, 384) → for each the name of the object that the phrase means: the nearest one, if the
    similarity is at least `NAMES_AN_OBJECT`; else empty."""
    nearest = _object_similarities(sentences).max(dim=1)
    found = zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
    return [object_names()[index] if similarity >= NAMES_AN_OBJECT else "" for similarity, index in found]


def nearest_image_phrases(sentence: Tensor, count: int) -> list[str]:
    """Sentence vector (1, 384) → the `count` nearest concepts of images, as phrases: classes and objects."""
    phrases = [*map(with_article, image_class_names()), *(own[0] for _, own in object_classes())]
    similarities = torch.cat([image_concepts().similarities(sentence), _object_similarities(sentence)], dim=1)[0]
    ordered = (phrases[index] for index in similarities.argsort(descending=True).tolist())
    return list(islice(dict.fromkeys(ordered), count))


def nearest_sound_phrases(sentence: Tensor, count: int) -> list[str]:
    """Sentence vector (1, 384) → the `count` nearest concepts of sounds, as phrases."""
    nearest = sound_concepts().similarities(sentence)[0].topk(count).indices.tolist()
    phrases = sound_class_phrases()
    return [phrases[index] for index in nearest]


def concepts_from_logits(scores: Tensor) -> Tensor:
    """Logits (B, 1000) → (B, 1000) of unit length: square roots of the class probabilities minus their mean.

    The dot product of two vectors of such roots is the Bhattacharyya coefficient of two distributions: all classes that
    are likely in both count, and one of high probability does not dominate the others.
    """
    roots = scores.softmax(dim=1).sqrt()
    return functional.normalize(roots - roots.mean(dim=1, keepdim=True), dim=1)


def concepts_from_sound(logits: Tensor, typical: Tensor) -> Tensor:
    """Logits (B, P, 521) → (B, 521) of length 0 to 1: log-likelihood ratios of the sound against a typical one, minus
    their mean.

    The probabilities are a mean over patches. `typical` (521,) are the mean log probabilities of everyday sounds: some
    classes are likely in every sound. Ratios below `MIN_SOUND_RATIO` count as none. The length grows with the
    ratios: a sound that is like no class in particular is dissimilar to every phrase.
    """
    log_probabilities = (logits.sigmoid().mean(dim=1) + PROBABILITY_FLOOR).log()
    ratios = (log_probabilities - typical - MIN_SOUND_RATIO).clamp(min=0)
    centred = ratios - ratios.mean(dim=1, keepdim=True)
    return centred / (centred.square().sum(dim=1, keepdim=True) + SOUND_HALF_LENGTH**2).sqrt()


def appearance_vectors(stage5: Tensor, statistics: Stage5Statistics) -> Tensor:
    """(B, 112, 14, 14) → (B, 536) of unit length: each cell's features, standardised by mean and deviation over the
    training images, in a random projection."""
    mean, deviation = (x.to(stage5.device, stage5.dtype) for x in statistics)
    cells = functional.adaptive_avg_pool2d(stage5, APPEARANCE_GRID)
    cells = (cells - mean[:, None, None]) / deviation[:, None, None]
    return functional.normalize(cells.flatten(1) @ _random_projection(stage5.device), dim=1)


def image_class_names() -> list[str]:
    """The 1000 classes of images in the classifier's order: names of the image concepts."""
    return [line.split(" | ")[0] for line in _lines(IMAGE_FILES)]


def image_class_phrases() -> list[str]:
    """For each class of images a phrase that describes them; queries are compared with these phrases."""
    return [parts[1] if len(parts := line.split(" | ")) > 1 else with_article(line) for line in _lines(IMAGE_FILES)]


def sound_class_names() -> list[str]:
    """The 521 classes of sounds in the classifier's order: names of the sound concepts."""
    return _lines(SOUND_FILES)


def sound_class_phrases() -> list[str]:
    """For each class of sounds the phrase that queries are compared with."""
    return [f"the sound of {name}" for name in sound_class_names()]


def object_classes() -> list[tuple[str, list[str]]]:
    """The 23 labels of the object detector in its order, and phrases for each: names of the object concepts."""
    return [(name, phrases.split("; ")) for name, phrases in (line.split(" | ") for line in _lines(OBJECT_FILES))]


@lru_cache(maxsize=1)
def object_names() -> tuple[str, ...]:
    """The 23 labels of the object detector in its order."""
    return tuple(name for name, _ in object_classes())


def with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


@lru_cache(maxsize=1)
def image_concepts() -> Concepts:
    """The image concepts."""
    entries = read_vectors(IMAGE_FILES)
    return Concepts(entries["class_vectors"], entries["template_shifts"], IMAGE_POWER)


@lru_cache(maxsize=1)
def sound_concepts() -> Concepts:
    """The sound concepts."""
    entries = read_vectors(SOUND_FILES)
    return Concepts(entries["class_vectors"], entries["template_shifts"], SOUND_POWER)


def read_vectors(files: ConceptFiles) -> dict[str, Tensor]:
    """The entries of a file of sentence vectors, float32. Raises `SpaceError` if it is missing or damaged."""
    try:
        with torch.inference_mode(False):  # they are cached, and also used outside of inference mode
            return {name: tensor.float() for name, tensor in safetensors.torch.load_file(files.vectors).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise SpaceError(f"'{files.vectors}' cannot be read: install Sensebind again ({error})") from error


def map_digest() -> bytes:
    """SHA-256 of the files and settings of the map. Raises `SpaceError` if a file is missing."""
    total = hashlib.sha256()
    for files in (IMAGE_FILES, OBJECT_FILES, SOUND_FILES):
        try:
            total.update(files.vectors.read_bytes())
        except OSError as error:
            raise SpaceError(f"'{files.vectors}' cannot be read: install Sensebind again ({error})") from error
    shares = CONCEPT_SHARE, TEXT_IMAGE_SHARE, SOUND_IMAGE_SHARE, IMAGE_OBJECT_LENGTH, TEXT_OBJECT_LENGTH
    sounds = SOUND_POWER, MIN_SOUND_RATIO, SOUND_HALF_LENGTH, PROBABILITY_FLOOR, NAMES_A_SOUND
    powers = IMAGE_POWER, OBJECT_POWER, *sounds
    total.update(repr((DIMENSION, APPEARANCE_GRID, shares, powers, _object_phrase_counts())).encode())
    return total.digest()


def _ramp(values: Tensor, limits: tuple[float, float]) -> Tensor:
    """0 up to the first limit, 1 from the second on."""
    low, high = limits
    return ((values - low) / (high - low)).clamp(0, 1)


def _joined(images: Tensor, objects: Tensor, sounds: Tensor, image_share: float) -> Tensor:
    """Image (B, 1000), object (B, 23) and sound concepts (B, 521) → unit vectors (B, 2080) without appearance."""
    parts = [images * image_share**0.5, objects, sounds * (1 - image_share) ** 0.5]
    without_appearance = functional.normalize(torch.cat(parts, dim=1), dim=1)
    return functional.pad(without_appearance, (0, APPEARANCE.stop - APPEARANCE.start))


def _object_similarities(sentences: Tensor) -> Tensor:
    """Sentence vectors (N, 384) → similarity to the nearest phrase of each object, (N, 23)."""
    similar = image_concepts().centred(sentences) @ _centred_object_phrases().T
    of_objects = similar.split(list(_object_phrase_counts()), dim=1)
    return torch.stack([own.amax(dim=1) for own in of_objects], dim=1)


@lru_cache(maxsize=1)
def _object_phrase_counts() -> tuple[int, ...]:
    return tuple(len(phrases) for _, phrases in object_classes())


@lru_cache(maxsize=1)
def _centred_object_phrases() -> Tensor:
    vectors = read_vectors(OBJECT_FILES)["class_vectors"]
    if len(vectors) != sum(_object_phrase_counts()):
        raise SpaceError(
            f"'{OBJECT_FILES.vectors}' does not fit '{OBJECT_FILES.names}': "
            "python -m sensebind.training.conversion.concepts"
        )
    with torch.inference_mode(False):
        return image_concepts().centred(vectors)


@cache  # CUDA graphs keep pointers to the tensors
def _sound_map(device: torch.device) -> SoundMap:
    entries = read_vectors(SOUND_FILES)
    with torch.inference_mode(False):
        names = image_concepts().of_text(entries["name_vectors"])
        return SoundMap(entries["typical_log_probabilities"].to(device), names.to(device))


@cache  # CUDA graphs keep pointers to the tensors
def _random_projection(device: torch.device) -> Tensor:
    """(112 · 4 · 4, 536) of one value with random signs: a projection that preserves distances (Achlioptas, 2003).
    It is the same on every machine."""
    rows, columns = STAGE5_CHANNELS * APPEARANCE_GRID * APPEARANCE_GRID, APPEARANCE.stop - APPEARANCE.start
    data = hashlib.shake_256(b"starter appearance").digest(rows * columns // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(rows, columns)
    with torch.inference_mode(False):
        # Training of spokes backpropagates through it.
        return torch.from_numpy((bits.astype(np.float32) * 2 - 1) / np.float32(math.sqrt(rows))).to(device)


def _lines(files: ConceptFiles) -> list[str]:
    return files.names.read_text(encoding="utf-8").splitlines()
