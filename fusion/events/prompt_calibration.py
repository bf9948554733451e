"""Calibration of prompts: fitted numbers that turn similarities into probabilities, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
CALIBRATION_FORMAT = "sensebind calibration 1"
NO_CALIBRATION = "none"  # value of the parameter that selects no calibration
MAX_MARGIN = 6.0  # deviations; a margin is clipped to ± this value


class CalibrationError(SensebindError):
    """A calibration cannot be read or fitted. The message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class ModalityCalibration:
    """The score curve of one modality, p = 1 / (1 + exp(−(`deviation`·x + `lead`·m + `bias`))), and its `reliability`.

    Platt's sigmoid (J. Platt, "Probabilistic outputs for support vector machines", 1999) of two numbers: x, the
    deviation of a label from its baseline, and m, its margin, clipped to −`MAX_MARGIN` … `MAX_MARGIN`. `reliability` is
    the weight of the modality's evidence.
    """

    deviation: float
    lead: float
    bias: float
    reliability: float = 1.0

    def probabilities(self, deviations: FloatArray, margins: FloatArray) -> FloatArray:
        """Convert deviations (L,) and margins (L,) to probabilities (L,)."""
        return logistic(self.deviation * deviations + self.lead * np.clip(margins, -MAX_MARGIN, MAX_MARGIN) + self.bias)


@dataclass(frozen=True, slots=True)
class PromptCalibration:
    """The calibration of one space.

    `prior` is the probability of a label without evidence. `senses` are the score curves of the modalities. `words` are
    the trained prompt classifiers, and `doubt` is the maximum negative evidence of one modality for their labels, in
    nats.
    """

    space: str
    prior: float
    senses: Mapping[str, ModalityCalibration] = field(default_factory=dict)
    words: PromptClassifiers | None = None
    doubt: float = MAX_NEGATIVE_EVIDENCE

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file. `notes` (figures of the fit) are written to it, and `load` ignores them. Raises
        `CalibrationError`."""
        tensors: dict[str, np.ndarray] = {}
        metadata: dict[str, Any] = {
            "space": self.space,
            "prior": round(self.prior, 5),
            "doubt": round(self.doubt, 3),
            "senses": {m: {k: round(v, 4) for k, v in asdict(s).items()} for m, s in sorted(self.senses.items())},
            **({"notes": dict(notes)} if notes else {}),
        }
        if self.words is not None:
            metadata["words"] = {
                "names": list(self.words.names),
                "owners": [int(owner) for owner in self.words.owners],
                "near": round(self.words.near, 4),
                "reaches": {m: round(s.reach, 4) for m, s in sorted(self.words.modalities.items())},
                "prior": round(self.words.prior, 6),
                "ranks": [round(weight, 4) for weight in self.words.ranks],
            }
            tensors["phrases"] = self.words.phrases.astype(np.float16)
            for modality, classifiers in sorted(self.words.modalities.items()):
                tensors[f"{modality}.weights"] = classifiers.weights.astype(np.float16)
                tensors[f"{modality}.biases"] = classifiers.biases.astype(np.float32)
                tensors[f"{modality}.middle"] = classifiers.middle.astype(np.float16)
                tensors[f"{modality}.directions"] = classifiers.directions.astype(np.float16)
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
    try:
        modalities = {
            str(m): ModalityCalibration(**{name: float(values[name]) for name in ModalityCalibration.__slots__})
            for m, values in metadata["senses"].items()
        }
        classifiers = (
            _read_classifiers(safetensors.numpy.load_file(path), metadata["words"]) if "words" in metadata else None
        )
        found = PromptCalibration(
            str(metadata["space"]), float(metadata["prior"]), modalities, classifiers, float(metadata["doubt"])
        )
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise CalibrationError(
            f"'{path}' is not a calibration file: {error!r}; make one with sensebind calibrate"
        ) from error
    valid = all(0 <= s.reliability <= 10 and s.deviation >= 0 and np.isfinite(s.bias) for s in modalities.values())
    if not (0 < found.prior < 1 and found.doubt >= 0 and valid):
        raise CalibrationError(f"'{path}' has numbers that are out of range: make one with sensebind calibrate")
    return found


def _read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a calibration file, without its tensors. Raises `CalibrationError`."""
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != CALIBRATION_FORMAT:
            raise CalibrationError(f"'{path}' is not a calibration file: make one with sensebind calibrate")
        return dict(json.loads(metadata["calibration"]))
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CalibrationError(
            f"'{path}' is not a calibration file: {error!r}; make one with sensebind calibrate"
        ) from error


def _read_classifiers(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> PromptClassifiers:
    names, owners = tuple(str(name) for name in metadata["names"]), np.array(metadata["owners"], np.intp)
    phrases = l2_normalize(tensors["phrases"])
    modalities = {}
    for modality, reach in metadata["reaches"].items():
        weights, middle, directions = (
            tensors[f"{modality}.{name}"].astype(np.float32) for name in ("weights", "middle", "directions")
        )
        biases, width = tensors[f"{modality}.biases"].astype(np.float64), phrases.shape[1]
        if (weights.shape, biases.shape) != ((len(names), width), (len(names),)):
            raise ValueError(
                f"{modality} has weights {weights.shape} and biases {biases.shape} for {len(names)} classes"
            )
        if middle.shape != (width,) or directions.shape[1:] != (width,):
            raise ValueError(f"{modality} has principal directions {directions.shape} for vectors of {width} numbers")
        modalities[str(modality)] = prompt_classifiers.ModalityClassifiers(
            weights, biases, middle, directions, float(reach)
        )
    if len(owners) != len(phrases) or owners.min() < 0 or owners.max() >= len(names):
        raise ValueError(f"the classes of {len(phrases)} phrases must be {len(phrases)} numbers below {len(names)}")
    ranks = tuple(float(weight) for weight in metadata["ranks"])
    if not ranks or min(ranks) < 0:
        raise ValueError(f"the rank weights {ranks} must be numbers of at least 0")
    return PromptClassifiers(
        names, phrases, owners, float(metadata["near"]), modalities, ranks, float(metadata["prior"])
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
