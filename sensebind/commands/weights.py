"""`sensebind weights`: downloads models of Hugging Face; inspects and converts checkpoints of ImageBind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import require_apart

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.fusion.models.imagebind.weights import TensorEntry


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "weights",
        help="download models of Hugging Face; inspect and convert checkpoints of ImageBind",
        description="Code in a weight file is never executed: files are read by safetensors, or by PyTorch with "
        "weights_only.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser(
        "inspect", help="list the contents of a weight file; check that imagebind_huge can use it"
    )
    inspect.add_argument("file", type=Path, help="weight file (.pth, .safetensors), or folder of .safetensors files")
    convert = actions.add_parser(
        "convert",
        help="write a checkpoint in another precision, as safetensors",
        description="The result has the same space id as its source. At run time, only the modalities in use are read.",
    )
    convert.add_argument("file", type=Path, help="weight file (.pth, .safetensors), or folder of .safetensors files")
    convert.add_argument("--dtype", default="bf16", help="precision: float32, bf16 or fp16 (default: %(default)s)")
    convert.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="OUT.safetensors: one file. Any other name: a folder, with one file per modality",
    )  # fmt: skip
    convert.add_argument("--modalities", metavar="A,B", help="write only these; prompts need text (default: all)")
    fetch = actions.add_parser(
        "fetch",
        help="download a model of Hugging Face, for the space transformers:NAME",
        description="The only command of sensebind that downloads. It uses the package huggingface_hub, and the "
        "revision that the model's card names; without one, the newest. HF_HOME sets the folder.",
    )
    fetch.add_argument(
        "name", nargs="?", help="model, as in google/siglip2-base-patch16-224. Without: list known models"
    )
    fetch.add_argument("--revision", default="", help="commit or branch (default: that of the card, else the newest)")


def run(args: argparse.Namespace) -> int:
    """Run the action. Exit status 1 if imagebind_huge cannot use the inspected file. Raises `WeightsError`,
    `SpaceError`."""
    if args.action == "fetch":
        return _fetch(args.name, args.revision)
    return _inspect(args.file) if args.action == "inspect" else _convert(args)


def _fetch(name: str | None, revision: str) -> int:
    from sensebind.fusion.models.transformers import cards, download
    from sensebind.replay.progress import line_bar_class

    if name is None:
        print("model, its weights in float32, and its licence if it is not that of the family\n")
        for card in cards.all_cards():
            print(f"{card.title}: {card.licence}")
            for model in card.models:
                size = model.memory_mb.get("float32")
                print(f"  {model.id:<48}{f'{size / 1000:.1f} GB' if size else '':>8}  {model.licence or ''}".rstrip())
        return 0
    found = cards.find_known_model(name)
    if found is None:
        print(f"{name}: no card names it, so its licence is not known here: read it before use")
    else:
        print(f"{name} ({found[0].title}): licence {found[1].licence or found[0].licence}\n{found[0].notes}")
    sys.stdout.flush()
    folder = download.fetch(name, revision or (found[1].revision if found else ""), line_bar_class())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}  {size / 1e9:.2f} GB")
    print(f"To use it, set the parameter space: transformers:{folder if revision else name}")
    return 0


def weight_files(path: Path) -> list[Path]:
    """The file, or the files of the folder, that hold weights."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def _inspect(path: Path) -> int:
    from sensebind.fusion.models.imagebind import weights
    from sensebind.fusion.models.imagebind.network import MODALITIES, SPACE_NAME, state_dict_shapes
    from sensebind.replay.progress import progress

    entries = weights.read_entries(path)
    groups = _by_modality(entries)
    print(f"{'modality':<10}{'entries':>8}{'parameters':>14}{'MB':>9}  precision")
    for modality, group in groups.items():
        print(_row(modality or "(other)", list(group.values())))
    print(_row("all", list(entries.values())))
    with progress("digest", sum(file.stat().st_size for file in weight_files(path)), "B") as shown:
        digest = weights.published_digest(path, shown.advance)
    print(f"digest    {digest}")
    try:
        weights.check_entries(
            entries, state_dict_shapes([m for m in MODALITIES if m in groups] or MODALITIES), f"'{path}'"
        )
    except weights.WeightsError as error:
        print(f"cannot be used as {SPACE_NAME}: {error}")
        return 1
    print(f"space     {SPACE_NAME}@{digest[:12]}")
    return 0


def _row(label: str, entries: list[TensorEntry]) -> str:
    precisions = sorted({str(e.dtype).removeprefix("torch.") for e in entries if e.shape})
    size = sum(e.nbytes for e in entries) / 1e6
    return f"{label:<10}{len(entries):>8}{sum(e.numel for e in entries):>14,}{size:>9.1f}  {', '.join(precisions)}"


def _convert(args: argparse.Namespace) -> int:
    from sensebind.fusion.models.imagebind import weights
    from sensebind.fusion.models.imagebind.network import MODALITIES, state_dict_shapes
    from sensebind.fusion.models.precision import torch_dtype
    from sensebind.replay.progress import progress

    entries = weights.read_entries(args.file)
    groups = _by_modality(entries)
    weights.check_entries(
        entries, state_dict_shapes([m for m in MODALITIES if m in groups] or MODALITIES), f"'{args.file}'"
    )
    wanted = args.modalities.split(",") if args.modalities else list(groups)
    if absent := [m for m in wanted if m not in groups]:
        raise weights.WeightsError(
            f"'{args.file}' has no weights of {', '.join(absent)}; it has those of {', '.join(groups)}"
        )
    output: Path = args.output
    if output.suffix == weights.SAFETENSORS_SUFFIX:
        targets = {output: [name for m in wanted for name in groups[m]]}
    else:
        targets = {output / f"{m}{weights.SAFETENSORS_SUFFIX}": list(groups[m]) for m in wanted}
    require_apart(targets, [args.file])
    read = sum(file.stat().st_size for file in weight_files(args.file))
    written = (
        sum(entries[name].numel for names in targets.values() for name in names) * torch_dtype(args.dtype).itemsize
    )
    try:
        with progress("converting", read + written, "B") as shown:
            weights.convert(args.file, targets, torch_dtype(args.dtype), shown.advance)
    except OSError as error:
        raise weights.WeightsError(f"'{output}' cannot be written: {error.strerror or error}") from error
    for target in targets:
        print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
    print(f"To use it, set the parameters space: imagebind_huge and weights: {output}")
    return 0


def _by_modality(entries: dict[str, TensorEntry]) -> dict[str, dict[str, TensorEntry]]:
    """Modality → its entries, in the order of the model; last, under "", the entries without a modality."""
    from sensebind.fusion.models.imagebind.network import MODALITIES, modality_of_entry

    groups: dict[str, dict[str, TensorEntry]] = {m: {} for m in (*MODALITIES, "")}
    for name, entry in entries.items():
        groups[modality_of_entry(name) if modality_of_entry(name) in MODALITIES else ""][name] = entry
    return {modality: group for modality, group in groups.items() if group}
