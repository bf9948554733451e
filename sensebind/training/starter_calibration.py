"""Writes the default calibration of the starter space: `python -m sensebind.training.starter_calibration`.

It holds score curves and no classifiers. A modality without licensed real data of known labels has the analytic curve:
that of the parameters `prompt.threshold` and `prompt.slope`. `FITTED` holds the curves that were fitted on real data.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from sensebind.fusion.core.samples import AUDIO
from sensebind.fusion.core.space import Space, encoder_ids
from sensebind.fusion.events.prompt import PromptOptions
from sensebind.fusion.events.prompt_calibration import SHIPPED_FOLDER, ModalityCalibration, PromptCalibration
from sensebind.fusion.events.proposals.naming import NamingCurve
from sensebind.fusion.models import registry
from sensebind.training.naming_curve import DIMENSIONS, SOURCE

FITTED: Mapping[str, ModalityCalibration] = {}  # modality → its curve, with the data that it was fitted on as `source`
NAMING = {AUDIO: NamingCurve(24.3, 23.43, -2.77, SOURCE, DIMENSIONS)}  # from `naming_curve`


def default_calibration(space: Space) -> PromptCalibration:
    """The default calibration of a space: `FITTED`, and analytic curves of its other modalities."""
    return PromptCalibration(space.id, PromptOptions().prior, FITTED, encoders=encoder_ids(space), naming=NAMING)


def main() -> None:
    """Write the calibration file that ships with the starter space, and print the source of each curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=SHIPPED_FOLDER / "starter.safetensors",
        help="file to write (default: the shipped one)",
    )
    args = parser.parse_args()
    calibration = default_calibration(registry.load_space("starter"))
    calibration.save(args.out)
    for modality, source in calibration.sources.items():
        print(f"{modality}: {source}")


if __name__ == "__main__":
    main()
