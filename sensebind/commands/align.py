"""`sensebind align`: bind a sense to a frozen image-text space, from recordings or folders of paired files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Callable, Mapping

    from sensebind.fusion.core.space import Hub
    from sensebind.fusion.models.spokes.spoke import Spoke
    from sensebind.training.data.pairs import Pairs
    from sensebind.training.spoke_training import EpochResult, Settings


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "align",
        help="bind a sense to a space by contrast",
        description="Train a spoke: the encoder of one sense, aligned to a frozen image-text space by InfoNCE. Pairs "
        "are windows of two senses at the same tick of a recording, or files with equal names in DIR/MODALITY and "
        "DIR/vision (or DIR/text, captions). Whole stretches of time are held out, never neighbouring frames.",
    )
    add = parser.add_argument
    add("recordings", nargs="*", type=Path, metavar="RECORDING", help="bags with both senses")
    add("--pairs", type=Path, metavar="DIR", help="folder of paired files, in place of recordings")
    add("--modality", required=True, help="sense to bind: depth, thermal, audio, imu, vision, or one of the config's")
    add("--hub", default="starter", help="space to bind it to, frozen (default: %(default)s)")
    add("--weights", default="", help="weight file or folder of the hub")
    add("--config", type=Path, metavar="F", help="ROS parameter file: topics, windows, senses of your own")
    add("--method", choices=("whole", "head", "lora"), help="what is trained (default: lora for images, else whole)")
    add("--rank", type=int, default=8, help="of LoRA (default: %(default)s)")
    add("--start", type=Path, metavar="F", help="spoke to begin with (default: the hub's own for this sense, if any)")
    add("--scratch", action="store_true", help="begin with no spoke")
    add("--epochs", type=int, default=20, help="at most (default: %(default)s)")
    add("--patience", type=int, default=6, help="epochs without a better held-out R@1 (default: %(default)s)")
    add("--batch", type=int, default=64, help="pairs compared at once (default: %(default)s)")
    add("--chunk", type=int, default=32, help="pairs in memory at once, by gradient caching (default: %(default)s)")
    add("--bank", type=int, default=512, help="more of the hub's vectors as negatives (default: %(default)s)")
    add("--views", type=int, default=1, help="cuts of each picture, the same in both senses (default: %(default)s)")
    add("--inverted", type=float, default=0.0, help="share of pictures shown as negatives (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-3, help="(default: %(default)s)")
    add("--temperature", type=float, default=0.07, help="of InfoNCE (default: %(default)s)")
    add("--learn-temperature", action="store_true", help="learn it from there on")
    add("--precision", choices=("float32", "bf16"), default="float32", help="(default: %(default)s)")
    add("--block", type=float, default=10.0, help="seconds held out together; 8 files (default: %(default)s)")
    add("--held-out", type=float, default=0.2, metavar="SHARE", help="of the blocks (default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--checkpoint", type=Path, metavar="F", help="written after each epoch; gone on from where it is there")
    add("--tensorboard", type=Path, metavar="DIR", help="write curves there (extra: tensorboard)")
    add("-o", "--out", required=True, type=Path, metavar="F.safetensors", help="spoke file to write")


def run(args: argparse.Namespace) -> int:
    """Train and write. Raises `SensebindError`."""
    from dataclasses import replace

    from tqdm import tqdm

    from sensebind.fusion.core.space import Hub
    from sensebind.fusion.models import registry
    from sensebind.fusion.models.spokes import spoke as spokes
    from sensebind.training.data.pairs import AlignError, split, summary
    from sensebind.training.spoke_initialization import SpokeInitialization, initial_spoke, training_parameters
    from sensebind.training.spoke_training import held_out_recall, train_spoke

    if bool(args.recordings) == bool(args.pairs):
        raise AlignError("give recordings, or --pairs DIR, and not both")
    settings = _settings(args)
    hub = registry.load_without_spokes(args.hub, weights=args.weights)
    if not isinstance(hub, Hub):
        raise AlignError(f"space {hub.id} has no image encoder that a sense could be bound to")
    values = training_parameters(args.config, args.modality)
    start = SpokeInitialization(args.start, args.scratch, args.method, args.rank, args.seed)
    spoke = initial_spoke(hub, args.modality, values, start, args.recordings)
    pairs = _pairs(args, hub, spoke, values, keep_views=spoke.spec.kind == "image" and settings.views > 0)
    training, held = split(pairs, args.held_out, args.seed)
    print(f"hub {hub.id}; {summary(pairs)}: {len(training)} to train on, {len(held)} held out")
    before = held_out_recall(spoke, held)
    with tqdm(total=settings.epochs, unit="epoch", disable=None) as bar, TensorBoardCurves(args.tensorboard) as curve:

        def show(epoch: EpochResult) -> None:
            bar.update(epoch.number - bar.n)
            bar.set_postfix(loss=f"{epoch.loss:.3f}", held_out=f"{epoch.recall:.3f}", best=f"{epoch.best:.3f}")
            curve(epoch)

        best = train_spoke(spoke, hub, training, held, settings, on_epoch=show, checkpoint=args.checkpoint)
    sources = [str(path.name) for path in args.recordings or [args.pairs]]
    about = {"data": sources, "pairs": len(training), "held_out": len(held), "recall_at_1": round(best.recall, 4)}
    spoke.spec = replace(spoke.spec, about=about)
    spokes.save(spoke, args.out)
    print(
        f"held-out R@1 {best.recall:.3f} after epoch {best.number} (before {before:.3f}, chance {best.chance:.3f}, "
        f"n {len(held)})\n{args.out}: name it in the config, spokes: [{args.out}]"
    )
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """How to train. Raises `AlignError`."""
    from sensebind.training.spoke_training import Settings

    return Settings(
        epochs=args.epochs, batch=args.batch, chunk=args.chunk, learning_rate=args.learning_rate, bank=args.bank,
        temperature=args.temperature, learn_temperature=args.learn_temperature, views=args.views,
        inverted=args.inverted, patience=args.patience, precision=args.precision, seed=args.seed,
    )  # fmt: skip


def _pairs(args: argparse.Namespace, hub: Hub, spoke: Spoke, values: Mapping[str, Any], keep_views: bool) -> Pairs:
    """All pairs, with a bar of the recordings. Raises `AlignError`, and `RecordingError`."""
    from tqdm import tqdm

    from sensebind.training.data.pairs import concatenate_pairs, pairs_from_folder, pairs_from_recording

    modality, trained_window = args.modality, spoke.spec.trained_window
    if args.pairs:
        return pairs_from_folder(args.pairs, modality, hub, spoke.tensor, trained_window, keep_views=keep_views)
    trained_windows = {**hub.trained_windows, modality: trained_window}
    return concatenate_pairs([
        pairs_from_recording(path, modality, hub, spoke.tensor, values, trained_windows, args.block, keep_views)
        for path in tqdm(args.recordings, desc="recordings", unit="bag", disable=None)
    ])  # fmt: skip


class TensorBoardCurves:
    """A context whose value takes epochs: to TensorBoard where a folder is given, else nowhere."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise SensebindError("--tensorboard needs its package: pip install 'sensebind[tensorboard]'") from error
            self._writer = SummaryWriter(folder)

    def __enter__(self) -> Callable[[EpochResult], None]:
        def write(epoch: EpochResult) -> None:
            if self._writer is not None:
                for name in ("loss", "recall", "best"):
                    self._writer.add_scalar(name, getattr(epoch, name), epoch.number)

        return write

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
