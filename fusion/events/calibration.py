"""From how far a sense's vector stands out to how probable it is that the thing is there: numbers fitted on labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sensebind.fusion.errors import SensebindError
from sensebind.fusion.events.event import Array, logistic

SHIPPED = Path(__file__).parent / "calibrations"
NONE = "none"  # the parameter's value for no calibration
LEAD = 6.0  # deviations beyond which a lead over the other labels, or a lag, counts no further


class CalibrationError(SensebindError):
    """A calibration that cannot be read or fitted; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class SenseCalibration:
    """One sense: p = 1 / (1 + exp(−(deviation·x + lead·m + bias))), and the weight of its evidence beside others.

    Platt's sigmoid (J. Platt, "Probabilistic outputs for support vector machines", 1999) over two numbers: x, the
    deviations by which a label stands out of the background and of its own past; m, those by which it leads all
    other labels, −`LEAD` to `LEAD`.
    """

    deviation: float
    lead: float
    bias: float
    reliability: float = 1.0

    def scores(self, x: Array, lead: Array) -> Array:
        """(L,) and (L,) → probabilities (L,)."""
        return logistic(self.deviation * x + self.lead * np.clip(lead, -LEAD, LEAD) + self.bias)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The senses of one space, and the prior: how probable a label is where no sense tells anything."""

    space: str
    prior: float
    senses: Mapping[str, SenseCalibration]

    def save(self, path: str | Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write it as JSON; `notes` (figures of the fit) are kept beside and not read. Raises `CalibrationError`."""
        document = {
            "space": self.space,
            "prior": round(self.prior, 5),
            "senses": {
                m: {name: round(getattr(s, name), 4) for name in SenseCalibration.__slots__}
                for m, s in sorted(self.senses.items())
            },
            **({"notes": dict(notes)} if notes else {}),
        }
        try:
            Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CalibrationError(f"'{path}' cannot be written: {error.strerror or error}") from error


def load(path: str | Path) -> Calibration:
    """The calibration in a file. Raises `CalibrationError`."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        senses = {
            str(m): SenseCalibration(**{name: float(values[name]) for name in SenseCalibration.__slots__})
            for m, values in document["senses"].items()
        }
        found = Calibration(str(document["space"]), float(document["prior"]), senses)
    except OSError as error:
        raise CalibrationError(f"calibration '{path}' cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"'{path}' is no calibration: {error!r}; make one with sensebind calibrate") from error
    sane = all(0 <= s.reliability <= 10 and s.deviation >= 0 and np.isfinite(s.bias) for s in senses.values())
    if not (0 < found.prior < 1 and sane):
        raise CalibrationError(f"'{path}' holds numbers that make no calibration: make one with sensebind calibrate")
    return found


def uncalibrated(space: str) -> None:
    """No calibration, whatever the space (its id)."""


def calibration_for(choice: str, space: str) -> Calibration | None:
    """What the parameter `prompt.calibration` asks for, in this space (its id).

    Empty: the one that ships with the space, None where none does; ``none``: None; else a file, which must be of the
    space. An empty `space` is one that is not known yet. Raises `CalibrationError`.
    """
    if choice == NONE:
        return None
    if choice:
        found = load(choice)
        if space and found.space != space:
            raise CalibrationError(
                f"calibration '{choice}' is of space '{found.space}' and the space is '{space}': make one for it with "
                "sensebind calibrate, or set prompt.calibration to none"
            )
        return found
    for path in sorted(SHIPPED.glob("*.json")) if space else []:
        if f'"{space}"' in path.read_text(encoding="utf-8"):
            found = load(path)
            if found.space == space:
                return found
    return None
