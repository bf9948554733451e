"""`sensebind embed`: writes the vectors of files or phrases."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import add_spokes, require_apart, require_file_name, require_writable
from sensebind.fusion.core.atomic import staged_file

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.fusion.io.sensor_files import FileError


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "embed",
        help="embed files or phrases into a space",
        description="Embed files, or phrases with --modality text. OUT.npz contains vectors (N, D) float32 of unit "
        "length, names (N) and space. A file that cannot be read is skipped and named, and the exit status is 1.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="phrases, or files: JPEG, PNG, WebP, TIFF, BMP, GIF or JPEG 2000; depth PNG or TIFF in mm, or TIFF of "
        "floats in m; thermal PNG or TIFF in 0.01 K, or TIFF of floats in K; sound; IMU CSV with the columns time, ax, "
        "ay, az, gx, gy, gz in s, m/s² and rad/s",
    )
    parser.add_argument("--space", default="starter", help="space to embed into (default: %(default)s)")
    parser.add_argument("--weights", default="", help="weight file or folder of the space")
    add_spokes(parser)
    parser.add_argument("--dtype", default="auto", help="precision: auto, float32, bf16 or fp16 (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    parser.add_argument("--modality", required=True, help="vision, text, audio, depth, thermal or imu")
    parser.add_argument(
        "--channel",
        default="",
        help="channel of sounds: its number from 0, mean or loudest; without it, the first of three or more, and two "
        "as the space uses them",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT.npz", help="file to write")
    parser.add_argument(
        "--batch-size", type=int, default=16, help="number of inputs embedded at once (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Embed the inputs and write the file. Returns 1 if files were skipped. Raises `SensebindError`, also if no file
    can be read: then nothing is written."""
    import numpy as np

    from sensebind.fusion.core.space import SpaceError
    from sensebind.fusion.io.sensor_files import FileError
    from sensebind.fusion.io.sensor_options import AudioFormat
    from sensebind.fusion.models import registry
    from sensebind.replay.embed_files import embed_files

    require_file_name(args.out, "-o", "vectors.npz")
    AudioFormat(channel=args.channel)  # raises `ConfigError`
    files = [] if args.modality == "text" else args.inputs
    require_apart([args.out], [*files, *args.spoke, args.weights or None])
    require_writable(args.out.parent)
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
    errors: dict[int, FileError] = {}
    vectors = embed_files(space, args.modality, args.inputs, max(1, args.batch_size), errors.__setitem__, args.channel)
    if not len(vectors):
        raise FileError("; ".join(map(str, errors.values())))
    names = [name for number, name in enumerate(args.inputs) if number not in errors]
    for error in errors.values():
        print(f"skipped: {error}", file=sys.stderr)
    with staged_file(args.out) as part, part.open("wb") as file:  # np.savez adds .npz to a path with another suffix
        np.savez(file, vectors=vectors, names=np.array(names, dtype=np.str_), space=np.array(space.id))
    skipped = f"; {len(errors)} of {len(args.inputs)} files skipped" if errors else ""
    print(f"{len(vectors)} vectors of {vectors.shape[1]} in {space.id}: {args.out}{skipped}")
    return 1 if errors else 0
