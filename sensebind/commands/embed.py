"""`sensebind embed`: writes the vectors of files or phrases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import add_spokes

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    import numpy as np
    import numpy.typing as npt

    from sensebind.fusion.core.space import Space


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "embed",
        help="embed files or phrases into a space",
        description="Embed files, or phrases with --modality text. OUT.npz contains vectors (N, D) float32 of unit "
        "length, names (N) and space.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="phrases, or files: JPEG or PNG; depth PNG in mm; thermal PNG in 0.01 K; sound; IMU CSV with the columns "
        "time, ax, ay, az, gx, gy, gz in s, m/s² and rad/s",
    )
    parser.add_argument("--space", default="starter", help="space to embed into (default: %(default)s)")
    parser.add_argument("--weights", default="", help="weight file or folder of the space")
    add_spokes(parser)
    parser.add_argument("--dtype", default="auto", help="precision: auto, float32, bf16 or fp16 (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    parser.add_argument("--modality", required=True, help="vision, text, audio, depth, thermal or imu")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT.npz", help="file to write")
    parser.add_argument(
        "--batch-size", type=int, default=16, help="number of inputs embedded at once (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Embed the inputs and write the file. Raises `SensebindError`."""
    import numpy as np

    from sensebind.fusion.core.space import SpaceError
    from sensebind.fusion.models import registry

    space = registry.load_space(
        args.space,
        modalities=[args.modality],
        device=args.device,
        weights=args.weights,
        dtype=args.dtype,
        spokes=args.spoke,
    )
    if args.modality not in space.modalities:
        raise SpaceError(
            f"space '{args.space}' has no encoder for '{args.modality}'; it has {', '.join(space.modalities)}"
        )
    vectors = embed(space, args.modality, args.inputs, max(1, args.batch_size))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("wb") as file:  # np.savez adds .npz to a path with another suffix
        np.savez(file, vectors=vectors, names=np.array(args.inputs, dtype=np.str_), space=np.array(space.id))
    print(f"{len(vectors)} vectors of {vectors.shape[1]} in {space.id}: {args.out}")
    return 0


def embed(space: Space, modality: str, inputs: list[str], batch_size: int = 16) -> npt.NDArray[np.float32]:
    """N files, or N phrases for `text` → float32 (N, D) unit vectors; of a file, the mean over its windows.

    Raises `SensebindError` if a file cannot be read.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from sensebind.fusion.core.embeddings import l2_normalize
    from sensebind.fusion.core.encodings import EncodingError
    from sensebind.fusion.io.sensor_files import FileError, read_windows

    batches = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
    result = []
    for batch in tqdm(batches, unit="batch", disable=None):
        if modality == "text":
            result.append(space.embed_text(batch).numpy())
            continue
        tensors, owners = [], []
        for owner, name in enumerate(batch):
            try:
                parts = [
                    space.tensor(window) for window in read_windows(modality, name, space.trained_windows[modality])
                ]
            except EncodingError as error:
                raise FileError(f"'{name}': {error}") from error
            tensors += parts
            owners += [owner] * len(parts)
        vectors = space.embed(modality, torch.stack(tensors)).numpy()
        belongs = np.array(owners)
        result.append(np.stack([l2_normalize(vectors[belongs == owner].mean(axis=0)) for owner in range(len(batch))]))
    return np.concatenate(result).astype(np.float32)
