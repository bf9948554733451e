"""Calibration of prompts: fitted numbers that turn similarities into probabilities, and their file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from sensebind.fusion.core.embeddings import l2_normalize
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.events import prompt_classifiers
from sensebind.fusion.events.evidence import MAX_NEGATIVE_EVIDENCE, FloatArray, logistic
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers

SHIPPED_FOLDER = Path(__file__).parent / "calibrations"
CALIBRATION_FORMAT = "sensebind calibration 2"
FORMAT_OF_0_1_0 = "sensebind calibration 1"  # the same numbers under other names
NAMES_OF_0_1_0 = {  # part of the file → old name → name
    "calibration": {"doubt": "max_negative_evidence", "senses": "modalities", "words": "classifiers"},
    "modality": {"deviation": "deviation_weight", "lead": "margin_weight"},
    "classifiers": {
        "names": "class_names",
        "owners": "phrase_classes",
        "near": "min_similarity",
        "reaches": "residual_thresholds",
        "ranks": "rank_weights",
    },
    "tensor": {"phrases": "phrase_vectors", "middle": "mean", "directions": "principal_directions"},
}
NO_CALIBRATION = "none"  # value of the parameter that selects no calibration
MAX_MARGIN = 6.0  # deviations; a margin is clipped to ± this value


class CalibrationError(SensebindError):
    """A calibration cannot be read or fitted. The message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class ModalityCalibration:
    """The score curve of one modality, p = 1 / (1 + exp(−(`deviation_weight`·x + `margin_weight`·m + `bias`))), and
    its `reliability`.

    Platt's sigmoid (J. Platt, "Probabilistic outputs for support vector machines", 1999) of two numbers: x, the
    deviation of a label from its baseline, and m, its margin, clipped to −`MAX_MARGIN` … `MAX_MARGIN`. `reliability` is
    the weight of the modality's evidence.
    """

    deviation_weight: float
    margin_weight: float
    bias: float
    reliability: float = 1.0

    def probabilities(self, deviations: FloatArray, margins: FloatArray) -> FloatArray:
        """Convert deviations (L,) and margins (L,) to probabilities (L,)."""
        return logistic(
            self.deviation_weight * deviations
            + self.margin_weight * np.clip(margins, -MAX_MARGIN, MAX_MARGIN)
            + self.bias
        )


@dataclass(frozen=True, slots=True)
class PromptCalibration:
    """The calibration of one space.

    `prior` is the probability of a label without evidence. `modalities` has the score curve of each modality.
    `classifiers` are the trained prompt classifiers. `max_negative_evidence` (nats) is the most that one modality can
    subtract, before weighting, from the log-odds of a label with a classifier.
    """

    space: str
    prior: float
    modalities: Mapping[str, ModalityCalibration] = field(default_factory=dict)
    classifiers: PromptClassifiers | None = None
    max_negative_evidence: float = MAX_NEGATIVE_EVIDENCE

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file. `notes` (figures of the fit) are written to it, and `load` ignores them. Raises
        `CalibrationError`."""
        tensors: dict[str, np.ndarray] = {}
        metadata: dict[str, Any] = {
            "space": self.space,
            "prior": round(self.prior, 5),
            "max_negative_evidence": round(self.max_negative_evidence, 3),
            "modalities": {
                m: {k: round(v, 4) for k, v in asdict(curve).items()} for m, curve in sorted(self.modalities.items())
            },
            **({"notes": dict(notes)} if notes else {}),
        }
        if self.classifiers is not None:
            classifiers = self.classifiers
            metadata["classifiers"] = {
                "class_names": list(classifiers.class_names),
                "phrase_classes": [int(number) for number in classifiers.phrase_classes],
                "min_similarity": round(classifiers.min_similarity, 4),
                "residual_thresholds": {
                    m: round(own.residual_threshold, 4) for m, own in sorted(classifiers.modalities.items())
                },
                "prior": round(classifiers.prior, 6),
                "rank_weights": [round(weight, 4) for weight in classifiers.rank_weights],
            }
            tensors["phrase_vectors"] = classifiers.phrase_vectors.astype(np.float16)
            for modality, own in sorted(classifiers.modalities.items()):
                tensors[f"{modality}.weights"] = own.weights.astype(np.float16)
                tensors[f"{modality}.biases"] = own.biases.astype(np.float32)
                tensors[f"{modality}.mean"] = own.mean.astype(np.float16)
                tensors[f"{modality}.principal_directions"] = own.principal_directions.astype(np.float16)
        data = safetensors.numpy.save(
            tensors, {"format": CALIBRATION_FORMAT, "calibration": json.dumps(metadata, sort_keys=True)}
        )
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise CalibrationError(f"'{path}' cannot be written: {error.strerror or error}") from error


def load(path: str | Path) -> PromptCalibration:
    """Read a calibration file. Raises `CalibrationError`."""
    metadata = _read_metadata(path)
    with _calibration_errors(path):
        modalities = {
            str(m): ModalityCalibration(**{name: float(values[name]) for name in ModalityCalibration.__slots__})
            for m, values in metadata["modalities"].items()
        }
        classifiers = (
            _read_classifiers(_read_tensors(path), metadata["classifiers"]) if "classifiers" in metadata else None
        )
        found = PromptCalibration(
            str(metadata["space"]),
            float(metadata["prior"]),
            modalities,
            classifiers,
            float(metadata["max_negative_evidence"]),
        )
    valid = all(
        0 <= s.reliability <= 10 and s.deviation_weight >= 0 and np.isfinite(s.bias) for s in modalities.values()
    )
    if not (0 < found.prior < 1 and found.max_negative_evidence >= 0 and valid):
        raise CalibrationError(f"'{path}' has numbers that are out of range: make one with sensebind calibrate")
    return found


def _read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a calibration file, without its tensors. Raises `CalibrationError`."""
    with _calibration_errors(path):
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") not in (CALIBRATION_FORMAT, FORMAT_OF_0_1_0):
            raise CalibrationError(f"'{path}' is not a calibration file: make one with sensebind calibrate")
        found = dict(json.loads(metadata["calibration"]))
        return found if metadata["format"] == CALIBRATION_FORMAT else _with_new_names(found)


@contextmanager
def _calibration_errors(path: str | Path) -> Iterator[None]:
    """Convert what reading a file that may hold anything raises to `CalibrationError`."""
    try:
        yield
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise CalibrationError(
            f"'{path}' is not a calibration file: {error!r}; make one with sensebind calibrate"
        ) from error


def _with_new_names(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the metadata of a file of version 0.1.0."""
    found = _renamed(metadata, "calibration")
    found["modalities"] = {m: _renamed(values, "modality") for m, values in found["modalities"].items()}
    if "classifiers" in found:
        found["classifiers"] = _renamed(found["classifiers"], "classifiers")
    return found


def _renamed(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {NAMES_OF_0_1_0[part].get(name, name): value for name, value in values.items()}


def _read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a calibration file of any version."""
    new_names = NAMES_OF_0_1_0["tensor"]
    found = {}
    for name, tensor in safetensors.numpy.load_file(path).items():
        modality, dot, last = name.rpartition(".")
        found[f"{modality}{dot}{new_names.get(last, last)}"] = tensor
    return found


def _read_classifiers(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> PromptClassifiers:
    names = tuple(str(name) for name in metadata["class_names"])
    phrase_classes = np.array(metadata["phrase_classes"], np.intp)
    phrases = l2_normalize(tensors["phrase_vectors"])
    modalities = {}
    for modality, residual_threshold in metadata["residual_thresholds"].items():
        weights, mean, directions = (
            tensors[f"{modality}.{name}"].astype(np.float32) for name in ("weights", "mean", "principal_directions")
        )
        biases, width = tensors[f"{modality}.biases"].astype(np.float64), phrases.shape[1]
        if (weights.shape, biases.shape) != ((len(names), width), (len(names),)):
            raise ValueError(
                f"{modality} has weights {weights.shape} and biases {biases.shape} for {len(names)} classes"
            )
        if mean.shape != (width,) or directions.shape[1:] != (width,):
            raise ValueError(f"{modality} has principal directions {directions.shape} for vectors of {width} numbers")
        modalities[str(modality)] = prompt_classifiers.ModalityClassifiers(
            weights, biases, mean, directions, float(residual_threshold)
        )
    if len(phrase_classes) != len(phrases) or phrase_classes.min() < 0 or phrase_classes.max() >= len(names):
        raise ValueError(f"the classes of {len(phrases)} phrases must be {len(phrases)} numbers below {len(names)}")
    rank_weights = tuple(float(weight) for weight in metadata["rank_weights"])
    if not rank_weights or min(rank_weights) < 0:
        raise ValueError(f"the rank weights {rank_weights} must be numbers of at least 0")
    return PromptClassifiers(
        names,
        phrases,
        phrase_classes,
        float(metadata["min_similarity"]),
        modalities,
        rank_weights,
        float(metadata["prior"]),
    )


def find_calibration(choice: str, space: str) -> PromptCalibration | None:
    """Return the calibration that the parameter `prompt.calibration` selects for a space (its id).

    Empty: the one that ships with the space, or None. ``none``: None. Otherwise a file, which must be of this space. An
    empty `space` means that the space is not known yet. Raises `CalibrationError`.
    """
    if choice == NO_CALIBRATION:
        return None
    if choice:
        found = load(choice)
        if space and found.space != space:
            raise CalibrationError(
                f"calibration '{choice}' is of space '{found.space}', but the space is '{space}': make one for it with "
                "sensebind calibrate, or set prompt.calibration to none"
            )
        return found
    for path in sorted(SHIPPED_FOLDER.glob("*.safetensors")) if space else []:
        if _read_metadata(path)["space"] == space:
            return load(path)
    return None
