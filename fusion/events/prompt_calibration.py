"""Calibration of prompts: fitted numbers that turn similarities into probabilities, and their file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from sensebind.fusion.core.atomic import write_bytes
from sensebind.fusion.core.documents import parse_json
from sensebind.fusion.core.embeddings import l2_normalize
from sensebind.fusion.core.errors import SensebindError, printable, require_finite_file
from sensebind.fusion.core.samples import IMU, TEXT
from sensebind.fusion.events import prompt_classifiers
from sensebind.fusion.events.evidence import MAX_NEGATIVE_EVIDENCE, FloatArray, logistic
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers
from sensebind.fusion.events.proposals.naming import NamingCurve

MAX_FILE_BYTES = 512 * 2**20  # a shipped file has up to 3 MB
SHIPPED_FOLDER = Path(__file__).parent / "calibrations"
CALIBRATION_FORMAT = "sensebind calibration 3"
FORMAT_WITHOUT_ENCODERS = "sensebind calibration 2"  # belongs to a whole space
FORMAT_OF_0_1_0 = "sensebind calibration 1"  # the numbers of format 2 under other names
LIMITED_IN_OLDER_FORMATS = (IMU,)  # modalities: see `PromptClassifiers.limited_modalities`
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
ANALYTIC = "analytic"  # source of a score curve that was not fitted: that of `prompt.threshold` and `prompt.slope`
UNKNOWN_SOURCE = "not stated"  # source of a score curve in a file of an older format
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
    the weight of the modality's evidence. `source` names the data that the curve was fitted on.
    """

    deviation_weight: float
    margin_weight: float
    bias: float
    reliability: float = 1.0
    source: str = UNKNOWN_SOURCE

    def probabilities(self, deviations: FloatArray, margins: FloatArray) -> FloatArray:
        """Convert deviations (L,) and margins (L,) to probabilities (L,)."""
        return logistic(
            self.deviation_weight * deviations
            + self.margin_weight * np.clip(margins, -MAX_MARGIN, MAX_MARGIN)
            + self.bias
        )


@dataclass(frozen=True, slots=True)
class PromptCalibration:
    """The calibration of the encoders of a space.

    `prior` is the probability of a label without evidence. `modalities` has the fitted score curve of each modality;
    the curve of the others is analytic. `naming` has the curves of the modalities that name the intervals in which
    their data stand out; these replace score curves. `classifiers` are the trained prompt classifiers.
    `max_negative_evidence` (nats) is the most that one modality can subtract, before weighting, from the log-odds of a
    label with a classifier.

    `encoders` is modality → id of the encoder that its curve and classifiers belong to, also of text: phrases are
    compared as vectors of the text encoder. Empty: all belong to the whole space `space`, as in files of older formats.
    `file` is the file that it was read from. `lost_modalities` are left out by `for_encoders`.
    """

    space: str
    prior: float
    modalities: Mapping[str, ModalityCalibration] = field(default_factory=dict)
    classifiers: PromptClassifiers | None = None
    max_negative_evidence: float = MAX_NEGATIVE_EVIDENCE
    encoders: Mapping[str, str] = field(default_factory=dict)
    file: str = field(default="", compare=False)
    lost_modalities: tuple[str, ...] = ()
    naming: Mapping[str, NamingCurve] = field(default_factory=dict)

    @property
    def fitted_modalities(self) -> tuple[str, ...]:
        """The modalities with a fitted score curve or trained classifiers, in alphabetical order."""
        trained = self.classifiers.modalities if self.classifiers else {}
        return tuple(sorted({*self.modalities, *self.naming, *trained}))

    @property
    def sources(self) -> dict[str, str]:
        """Modality → what its score curve was fitted on, or `ANALYTIC`. In alphabetical order."""
        known = {*self.encoders, *self.fitted_modalities} - {TEXT}
        sources = {m: curve.source for curves in (self.modalities, self.naming) for m, curve in curves.items()}
        return {m: sources.get(m, ANALYTIC) for m in sorted(known)}

    def for_encoders(self, space: str, encoders: Mapping[str, str]) -> PromptCalibration | None:
        """Return the part for a space and its encoders (modality → id; the id of the space for those that are missing).

        A modality whose encoder has another id loses its curve and its classifiers, and is in `lost_modalities`. Those
        that `encoders` does not name, if it names any, are not in the space: they are left out without a report.
        None if nothing fits: another text encoder, or another encoder for each modality.
        """
        if not self.encoders:
            return self if self.space == space else None
        if self.encoders.get(TEXT) != encoders.get(TEXT, space):
            return None
        present = [m for m in self.encoders if m in encoders or not encoders]
        kept = {m for m in present if m != TEXT and self.encoders[m] == encoders.get(m, space)}
        if not kept:
            return None
        classifiers = self.classifiers
        if classifiers is not None:
            own = {m: c for m, c in classifiers.modalities.items() if m in kept}
            classifiers = replace(classifiers, modalities=own) if own else None
        return replace(
            self,
            modalities={m: curve for m, curve in self.modalities.items() if m in kept},
            naming={m: curve for m, curve in self.naming.items() if m in kept},
            classifiers=classifiers,
            lost_modalities=tuple(m for m in self.fitted_modalities if m in present and m not in kept),
        )

    def warnings(self, modalities: Collection[str]) -> list[str]:
        """Return a warning for each of `modalities` that is lost: it names the modality, the file and the remedy."""
        return [
            f"what calibration '{self.file}' has for {modality} is not used: it was fitted for the encoder "
            f"{self.encoders[modality]}, which a spoke or another model replaced. Fit a calibration for the present "
            "encoder with sensebind calibrate"
            for modality in self.lost_modalities
            if modality in modalities
        ]

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file. `notes` (figures of the fit) are written to it, and `load` ignores them. Raises
        `CalibrationError`."""
        tensors: dict[str, np.ndarray] = {}
        metadata: dict[str, Any] = {
            "space": self.space,
            "encoders": dict(sorted(self.encoders.items())),
            "prior": round(self.prior, 5),
            "max_negative_evidence": round(self.max_negative_evidence, 3),
            "modalities": {
                m: _curve_fields(self.modalities[m]) if m in self.modalities else {"source": ANALYTIC}
                for m in self.sources
            },
            **({"naming": {m: asdict(curve) for m, curve in sorted(self.naming.items())}} if self.naming else {}),
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
                "limited_modalities": sorted(classifiers.limited_modalities),
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
            write_bytes(path, data)
        except OSError as error:
            raise CalibrationError(f"'{path}' cannot be written: {error.strerror or error}") from error


def _curve_fields(curve: ModalityCalibration) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(curve).items()}


def _curve_of_fields(values: Mapping[str, Any]) -> ModalityCalibration:
    return ModalityCalibration(
        float(values["deviation_weight"]),
        float(values["margin_weight"]),
        float(values["bias"]),
        float(values["reliability"]),
        str(values.get("source", UNKNOWN_SOURCE)),
    )


def _naming_of_fields(values: Mapping[str, Any]) -> NamingCurve:
    similarity, margin, bias = (float(values[name]) for name in ("similarity_weight", "margin_weight", "bias"))
    if not np.isfinite((similarity, margin, bias)).all() or min(similarity, margin) < 0:
        raise ValueError(f"the numbers {similarity, margin, bias} of a naming curve are out of range")
    dimensions = tuple(int(number) for number in values.get("dimensions") or ())
    if not dimensions:
        return NamingCurve(similarity, margin, bias, str(values["source"]))
    first, end = dimensions
    if not 0 <= first < end:
        raise ValueError(f"the dimensions {first} to {end} of a naming curve are out of range")
    return NamingCurve(similarity, margin, bias, str(values["source"]), (first, end))


def load(path: str | Path) -> PromptCalibration:
    """Read a calibration file. Raises `CalibrationError`."""
    metadata = _read_metadata(path)
    with _calibration_errors(path):
        modalities = {
            str(m): _curve_of_fields(values)
            for m, values in metadata["modalities"].items()
            if values.get("source") != ANALYTIC
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
            {str(m): str(encoder) for m, encoder in metadata.get("encoders", {}).items()},
            str(path),
            naming={str(m): _naming_of_fields(values) for m, values in metadata.get("naming", {}).items()},
        )
    valid = all(
        0 <= s.reliability <= 10 and 0 <= s.deviation_weight < np.inf and np.isfinite((s.margin_weight, s.bias)).all()
        for s in modalities.values()
    )
    if not (0 < found.prior < 1 and 0 <= found.max_negative_evidence < np.inf and valid):
        raise CalibrationError(f"'{path}' has numbers that are out of range: make one with sensebind calibrate")
    return found


def _read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a calibration file, without its tensors. Raises `CalibrationError`."""
    with _calibration_errors(path):
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise CalibrationError(f"'{path}' is larger than {MAX_FILE_BYTES / 2**20:g} MB: it is no calibration file")
        require_finite_file(path)
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") not in (CALIBRATION_FORMAT, FORMAT_WITHOUT_ENCODERS, FORMAT_OF_0_1_0):
            raise CalibrationError(f"'{path}' is not a calibration file: make one with sensebind calibrate")
        found = dict(parse_json(metadata["calibration"], "its description"))
        return _with_new_names(found) if metadata["format"] == FORMAT_OF_0_1_0 else found


@contextmanager
def _calibration_errors(path: str | Path) -> Iterator[None]:
    """Convert what reading a file that may hold anything raises to `CalibrationError`."""
    try:
        yield
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, safetensors.SafetensorError) as error:
        problem = str(error) if isinstance(error, ValueError) else repr(error)
        raise CalibrationError(
            f"'{path}' is not a calibration file: {printable(problem, 500)}; make one with sensebind calibrate"
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
    for name, tensor in tensors.items():  # NaN is a class without a classifier
        if not np.issubdtype(tensor.dtype, np.floating) or tensor.ndim > 2:
            raise ValueError(f"'{name}' holds {tensor.dtype} in {tensor.ndim} dimensions, not numbers in one or two")
        if not np.isfinite(tensor).all() and not (name.endswith(".biases") and not np.isinf(tensor).any()):
            raise ValueError(f"'{name}' holds numbers that are not finite")
    if tensors["phrase_vectors"].ndim != 2 or not tensors["phrase_vectors"].size:
        raise ValueError("it has no phrases")
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
        if not 0 <= float(residual_threshold) < np.inf:
            raise ValueError(f"the residual threshold {residual_threshold} of {modality} is out of range")
        if mean.shape != (width,) or directions.shape[1:] != (width,):
            raise ValueError(f"{modality} has principal directions {directions.shape} for vectors of {width} numbers")
        modalities[str(modality)] = prompt_classifiers.ModalityClassifiers(
            weights, biases, mean, directions, float(residual_threshold)
        )
    if len(phrase_classes) != len(phrases) or phrase_classes.min() < 0 or phrase_classes.max() >= len(names):
        raise ValueError(f"the classes of {len(phrases)} phrases must be {len(phrases)} numbers below {len(names)}")
    rank_weights = tuple(float(weight) for weight in metadata["rank_weights"])
    if not rank_weights or not all(0 <= weight < np.inf for weight in rank_weights):
        raise ValueError(f"the rank weights {rank_weights} must be numbers of at least 0")
    prior, min_similarity = float(metadata["prior"]), float(metadata["min_similarity"])
    if not (0 < prior < 1 and -1 <= min_similarity <= 1.01):
        raise ValueError(f"the prior {prior} or the smallest cosine {min_similarity} of a match is out of range")
    return PromptClassifiers(
        names,
        phrases,
        phrase_classes,
        min_similarity,
        modalities,
        rank_weights,
        prior,
        frozenset(metadata.get("limited_modalities", LIMITED_IN_OLDER_FORMATS)),
    )


def shipped_names() -> list[str]:
    """The names of the shipped calibration files, without the suffix."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.safetensors"))


def calibration_file(choice: str) -> Path:
    """Return the file that a value of `prompt.calibration` names: a shipped file by its name, or a path."""
    return SHIPPED_FOLDER / f"{choice}.safetensors" if choice in shipped_names() else Path(choice)


def find_calibration(choice: str, space: str, encoders: Mapping[str, str] | None = None) -> PromptCalibration | None:
    """Return the calibration that the parameter `prompt.calibration` selects for a space and its encoders.

    Empty: the shipped one for these encoders, or None; those with trained classifiers must be named. ``none``: None.
    Otherwise the name of a shipped file, or a path: its part for the encoders. `space` is the id of the space; if it is
    empty, the space is not known yet, and all of the file is returned. `encoders` is modality → id of its encoder; the
    id of the space for those that are missing. Raises `CalibrationError`, also for a file that fits no modality.
    """
    if choice == NO_CALIBRATION:
        return None
    if choice:
        found = load(calibration_file(choice))
        part = found.for_encoders(space, encoders or {}) if space else found
        if part is None or (part.lost_modalities and not part.fitted_modalities):
            raise CalibrationError(
                f"calibration '{choice}' is of space '{found.space}' and fits no modality of the space '{space}': make "
                "one for it with sensebind calibrate, or set prompt.calibration to none"
            )
        return part
    for path in sorted(SHIPPED_FOLDER.glob("*.safetensors")) if space else []:
        if "classifiers" not in _read_metadata(path) and (part := load(path).for_encoders(space, encoders or {})):
            return part
    return None
