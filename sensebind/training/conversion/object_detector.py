"""Writes the weights of the object detector that ships with the starter space:
`python -m sensebind.training.conversion.object_detector FILE`.

FILE is the tarball of the npm package `@mediapipe/objectron` 0.4.1675468480 (`npm pack @mediapipe/objectron`), or its
file `objectron_solution_packed_assets.data`. That file holds the names of the labels and a TensorFlow Lite model. The
weights of the model are in half precision, with batch normalization already folded in. They are stored unchanged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from sensebind.fusion.core.atomic import write_bytes
from sensebind.fusion.models.starter.object_detector import (
    ADDITIONAL_LAYERS,
    DETECTOR_FORMAT,
    MAP_SIZES,
    METADATA_KEY,
    STAGES,
)
from sensebind.fusion.models.starter.weight_files import OBJECT_WEIGHTS, WEIGHTS_FOLDER
from sensebind.training.conversion import ConversionError, tflite

PACKAGE = "@mediapipe/objectron 0.4.1675468480"
ASSETS_NAME = "objectron_solution_packed_assets.data"
ASSETS_SHA256 = "470986ca5df183f41698da6de74b027d838fe289d77b5ab094497d350bee664e"
LABELS_END = 184  # bytes of label names at the start of the file, one a line; the model follows
ORIGIN = (
    f"SSD MobileNetV2, trained on Open Images V4 by Google; the model "
    f"object_detection_ssd_mobilenetv2_oidv4_fp16.tflite of the npm package {PACKAGE}"
)
LICENCE = "Apache-2.0"
BACKBONE = "FeatureExtractor/MobilenetV2/"
NAME_ENDINGS = ("/Conv2D", "/BatchNorm/FusedBatchNormV3", "/BiasAdd")  # of constants, after the name of the layer


def read_assets(path: Path) -> bytes:
    """The packed assets, from the package's tarball or the file itself. Raises `ConversionError`."""
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as package:
                member = package.extractfile(f"package/{ASSETS_NAME}")
                assets = member.read() if member else b""
        else:
            assets = path.read_bytes()
    except (OSError, KeyError, EOFError, tarfile.TarError) as error:
        raise ConversionError(f"'{path}' cannot be read: {error}") from error
    found = hashlib.sha256(assets).hexdigest()
    if found != ASSETS_SHA256:
        raise ConversionError(f"'{path}' is not from the package {PACKAGE}: its assets have the SHA-256 {found}")
    return assets


def split_assets(assets: bytes) -> tuple[list[str], bytes]:
    """The names of the labels without the background, and the TensorFlow Lite model."""
    return assets[:LABELS_END].decode().split("\n")[1:-1], assets[LABELS_END:]


def layer_names() -> dict[str, str]:
    """Name of a layer in `ObjectDetector` → its name in the TensorFlow Lite model."""
    names = {"stem": BACKBONE + "Conv", "head": BACKBONE + "Conv_1"}
    for index in range(sum(count for count, *_ in STAGES)):
        block = BACKBONE + (f"expanded_conv_{index}" if index else "expanded_conv")
        for part in ("expand", "depthwise", "project") if index else ("depthwise", "project"):
            names[f"blocks.{index}.{part}"] = f"{block}/{part}"
    for index, (reduced, outputs) in enumerate(ADDITIONAL_LAYERS):
        number = index + 2
        names[f"additional.{index}.0"] = f"{BACKBONE}layer_19_1_Conv2d_{number}_1x1_{reduced}"
        names[f"additional.{index}.1"] = f"{BACKBONE}layer_19_2_Conv2d_{number}_3x3_s2_{outputs}"
    for index in range(len(MAP_SIZES)):
        names[f"class_heads.{index}"] = f"BoxPredictor_{index}/ClassPredictor"
        names[f"box_heads.{index}"] = f"BoxPredictor_{index}/BoxEncodingPredictor"
    return names


def convert_weights(model: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of a TensorFlow Lite model, as `ObjectDetector` takes them. Raises `ConversionError`."""
    constants = {}
    try:
        found = tflite.float_constants(model)
    except ValueError as error:
        raise ConversionError(f"the model cannot be read: {error}") from error
    for constant in found:
        name = constant.name.split(";")[0]  # constants that the converter merged have several names
        for ending in NAME_ENDINGS:
            name = name.removesuffix(ending)
        constants[name, constant.values.ndim] = constant.values
    state = {}
    try:
        for ours, theirs in layer_names().items():
            weight, bias = constants.pop((theirs, 4)), constants.pop((theirs, 1))
            # Output channel, row, column, input channel → output channel, input channel, row, column. Depthwise
            # weights have their channels on the last axis instead, and one input channel.
            depthwise = ours.endswith(".depthwise")
            state[f"{ours}.weight"] = weight.transpose(3, 0, 1, 2) if depthwise else weight.transpose(0, 3, 1, 2)
            state[f"{ours}.bias"] = bias
    except KeyError as error:
        raise ConversionError(f"the model has no layer {error}") from error
    if constants:
        raise ConversionError(f"the model has unknown layers: {', '.join(name for name, _ in constants)}")
    return state


def convert(source: Path, target: Path) -> None:
    """Write the weight file. It appears only when it is complete. Raises `ConversionError`."""
    labels, model = split_assets(read_assets(source))
    state = convert_weights(model)
    stored = {name: np.ascontiguousarray(values, np.float16) for name, values in state.items()}
    about = {
        "format": DETECTOR_FORMAT,
        "labels": labels,
        "licence": LICENCE,
        "origin": ORIGIN,
        "source_sha256": hashlib.sha256(model).hexdigest(),
    }
    # One key: safetensors writes several in a random order, and equal inputs must make equal files.
    data = safetensors.numpy.save(stored, {METADATA_KEY: json.dumps(about)})
    try:
        write_bytes(target, data)
    except OSError as error:
        raise ConversionError(f"'{target}' cannot be written: {error.strerror or error}") from error


def main() -> None:
    """Convert the model and write the weight file."""
    parser = argparse.ArgumentParser(description="Write the weight file of the object detector.")
    parser.add_argument("file", type=Path, metavar="FILE", help=f"tarball of {PACKAGE}, or its {ASSETS_NAME}")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=WEIGHTS_FOLDER / OBJECT_WEIGHTS,
        help="file to write (default: the shipped one)",
    )
    arguments = parser.parse_args()
    try:
        convert(arguments.file, arguments.out)
    except ConversionError as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
