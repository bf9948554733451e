"""From how far a sense's vector stands out to how probable it is that the thing is there: numbers fitted on labels."""

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
NO_CALIBRATION = "none"  # the parameter's value for no calibration
MAX_MARGIN = 6.0  # deviations beyond which a lead over the other labels, or a lag, counts no further


class CalibrationError(SensebindError):
    """A calibration that cannot be read or fitted; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class ModalityCalibration:
    """One sense: p = 1 / (1 + exp(−(deviation·x + lead·m + bias))), and the weight of its evidence beside others.

    Platt's sigmoid (J. Platt, "Probabilistic outputs for support vector machines", 1999) over two numbers: x, the
    deviations by which a label stands out of the background and of its own past; m, those by which it leads all
    other labels, −`MAX_MARGIN` to `MAX_MARGIN`.
    """

    deviation: float
    lead: float
    bias: float
    reliability: float = 1.0

    def probabilities(self, deviations: FloatArray, margins: FloatArray) -> FloatArray:
        """(L,) and (L,) → probabilities (L,)."""
        return logistic(self.deviation * deviations + self.lead * np.clip(margins, -MAX_MARGIN, MAX_MARGIN) + self.bias)


@dataclass(frozen=True, slots=True)
class PromptCalibration:
    """The senses of one space, the prior (how probable a label is where no sense tells anything), and the words that
    were taught, with the nats that one sense may speak against them."""

    space: str
    prior: float
    senses: Mapping[str, ModalityCalibration] = field(default_factory=dict)
    words: PromptClassifiers | None = None
    doubt: float = MAX_NEGATIVE_EVIDENCE

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write it as safetensors; `notes` (figures of the fit) are kept beside and not read. Raises
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
            for modality, sense in sorted(self.words.modalities.items()):
                tensors[f"{modality}.weights"] = sense.weights.astype(np.float16)
                tensors[f"{modality}.biases"] = sense.biases.astype(np.float32)
                tensors[f"{modality}.middle"] = sense.middle.astype(np.float16)
                tensors[f"{modality}.directions"] = sense.directions.astype(np.float16)
        data = safetensors.numpy.save(
            tensors, {"format": CALIBRATION_FORMAT, "calibration": json.dumps(metadata, sort_keys=True)}
        )
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise CalibrationError(f"'{path}' cannot be written: {error.strerror or error}") from error


def load(path: str | Path) -> PromptCalibration:
    """The calibration in a file. Raises `CalibrationError`."""
    metadata = _read_metadata(path)
    try:
        senses = {
            str(m): ModalityCalibration(**{name: float(values[name]) for name in ModalityCalibration.__slots__})
            for m, values in metadata["senses"].items()
        }
        classifiers = (
            _read_classifiers(safetensors.numpy.load_file(path), metadata["words"]) if "words" in metadata else None
        )
        found = PromptCalibration(
            str(metadata["space"]), float(metadata["prior"]), senses, classifiers, float(metadata["doubt"])
        )
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise CalibrationError(f"'{path}' is no calibration: {error!r}; make one with sensebind calibrate") from error
    sane = all(0 <= s.reliability <= 10 and s.deviation >= 0 and np.isfinite(s.bias) for s in senses.values())
    if not (0 < found.prior < 1 and found.doubt >= 0 and sane):
        raise CalibrationError(f"'{path}' holds numbers that make no calibration: make one with sensebind calibrate")
    return found


def _read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file says of itself, without its tensors. Raises `CalibrationError`."""
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != CALIBRATION_FORMAT:
            raise CalibrationError(f"'{path}' is no calibration: make one with sensebind calibrate")
        return dict(json.loads(metadata["calibration"]))
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CalibrationError(f"'{path}' is no calibration: {error!r}; make one with sensebind calibrate") from error


def _read_classifiers(tensors: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> PromptClassifiers:
    names, owners = tuple(str(name) for name in told["names"]), np.array(told["owners"], np.intp)
    phrases = l2_normalize(tensors["phrases"])
    senses = {}
    for modality, reach in told["reaches"].items():
        weights, middle, directions = (
            tensors[f"{modality}.{name}"].astype(np.float32) for name in ("weights", "middle", "directions")
        )
        biases, width = tensors[f"{modality}.biases"].astype(np.float64), phrases.shape[1]
        if (weights.shape, biases.shape) != ((len(names), width), (len(names),)):
            raise ValueError(f"{modality} holds {weights.shape} weights for {len(names)} words")
        if middle.shape != (width,) or directions.shape[1:] != (width,):
            raise ValueError(f"{modality} holds directions {directions.shape} for vectors of {width} numbers")
        senses[str(modality)] = prompt_classifiers.ModalityClassifiers(
            weights, biases, middle, directions, float(reach)
        )
    if len(owners) != len(phrases) or owners.min() < 0 or owners.max() >= len(names):
        raise ValueError(f"{len(owners)} owners for {len(phrases)} phrases of {len(names)} words")
    ranks = tuple(float(weight) for weight in told["ranks"])
    if not ranks or min(ranks) < 0:
        raise ValueError(f"the ranks {ranks} are no weights")
    return PromptClassifiers(names, phrases, owners, float(told["near"]), senses, ranks, float(told["prior"]))


def find_calibration(choice: str, space: str) -> PromptCalibration | None:
    """What the parameter `prompt.calibration` asks for, in this space (its id).

    Empty: the one that ships with the space, None where none does; ``none``: None; else a file, which must be of the
    space. An empty `space` is one that is not known yet. Raises `CalibrationError`.
    """
    if choice == NO_CALIBRATION:
        return None
    if choice:
        found = load(choice)
        if space and found.space != space:
            raise CalibrationError(
                f"calibration '{choice}' is of space '{found.space}' and the space is '{space}': make one for it with "
                "sensebind calibrate, or set prompt.calibration to none"
            )
        return found
    for path in sorted(SHIPPED_FOLDER.glob("*.safetensors")) if space else []:
        if _read_metadata(path)["space"] == space:
            return load(path)
    return None
