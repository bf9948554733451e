"""`sensebind align`: train a spoke of a frozen image-text space, on recordings or folders of paired files; or join a
modality of another space through text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensebind.commands.arguments import require_apart, require_file_name, require_writable, seed_number
from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Callable, Mapping

    from sensebind.fusion.core.space import Hub
    from sensebind.fusion.models.spokes.spoke import Spoke
    from sensebind.training.data.pairs import Pairs
    from sensebind.training.spoke_training import EpochResult, TrainingOptions


DEFAULT_BLOCK, DEFAULT_HELD_OUT = 10.0, 0.2


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "align",
        help="train a spoke: bind a modality to a space by contrastive learning, or through text",
        description="Train a spoke: an encoder of one modality, aligned to a frozen image-text space by InfoNCE. Pairs "
        "are windows of MODALITY and vision at the same tick of a recording, or files with equal names in DIR/MODALITY "
        "and DIR/vision (or DIR/text: captions). Whole blocks of time are held out, not single frames. With --through "
        "text no pairs are needed: the encoder is that of another space that also embeds text (--source).",
    )
    _add_data_options(parser.add_argument)
    _add_join_options(parser.add_argument_group("joining a modality of another space (--through text)").add_argument)
    _add_training_options(parser.add_argument_group("training on pairs").add_argument)
    add = parser.add_argument
    add("--seed", type=seed_number, default=0, help="random seed (default: %(default)s)")
    add("--checkpoint", type=Path, metavar="F", help="file to save after each epoch, and to resume from if it exists")
    add("--tensorboard", type=Path, metavar="DIR", help="write training curves to this folder (extra: tensorboard)")
    add("-o", "--out", required=True, type=Path, metavar="F.safetensors", help="spoke file to write")


def _add_data_options(add: Callable[..., Any]) -> None:
    add("recordings", nargs="*", type=Path, metavar="RECORDING", help="bags with MODALITY and vision")
    add("--pairs", type=Path, metavar="DIR", help="folder of paired files, instead of recordings")
    add("--modality", required=True, help="depth, thermal, audio, imu, vision, or a user-defined modality")
    add("--hub", default="starter", help="frozen space to bind it to (default: %(default)s)")
    add("--weights", default="", help="weight file or folder of the hub")
    add("--config", type=Path, metavar="F", help="ROS parameter file: topics, windows, user-defined modalities")
    add(
        "--block",
        type=float,
        default=DEFAULT_BLOCK,
        help="length of a block in s (default: %(default)s); with --pairs: 8 files",
    )
    add(
        "--held-out",
        type=float,
        default=DEFAULT_HELD_OUT,
        metavar="X",
        help="fraction of blocks held out (default: %(default)s)",
    )


def _add_join_options(add: Callable[..., Any]) -> None:
    add("--through", choices=("text",), help="join the spaces by phrases that both embed, instead of training on pairs")
    add("--source", metavar="SPACE", help="space with an encoder for MODALITY and for text")
    add("--source-weights", default="", metavar="W", help="weight file or folder of the source")
    add("--phrases", type=Path, metavar="F.txt", help="more phrases, one in a line: the names of what your robot meets")
    add(
        "--unlabelled", nargs="+", type=Path, default=[], metavar="DATA",
        help="recordings, files or folders of files of MODALITY: their mean vector is subtracted",
    )  # fmt: skip


def _add_training_options(add: Callable[..., Any]) -> None:
    add("--method", choices=("whole", "head", "lora"), help="part to train (default: lora for images, else whole)")
    add("--rank", type=int, default=8, help="rank of LoRA (default: %(default)s)")
    add("--start", type=Path, metavar="F", help="spoke to start from (default: the hub's spoke, if any)")
    add("--scratch", action="store_true", help="start from a new spoke")
    add("--epochs", type=int, default=20, help="maximum number of epochs (default: %(default)s)")
    add(
        "--patience",
        type=int,
        default=6,
        help="stop after so many epochs without a better held-out R@1 (default: %(default)s)",
    )
    add("--batch", type=int, default=64, help="pairs that are compared with each other (default: %(default)s)")
    add("--chunk", type=int, default=32, help="pairs in memory at once, with gradient caching (default: %(default)s)")
    add(
        "--bank",
        type=int,
        default=512,
        help="number of negatives beside the batch: vectors of the hub (default: %(default)s)",
    )
    add(
        "--views",
        type=int,
        default=1,
        help="number of crops of each image, equal in both modalities (default: %(default)s)",
    )
    add(
        "--inverted", type=float, default=0.0, help="fraction of images with inverted brightness (default: %(default)s)"
    )
    add("--learning-rate", type=float, default=1e-3, help="learning rate of AdamW (default: %(default)s)")
    add("--temperature", type=float, default=0.07, help="temperature of InfoNCE (default: %(default)s)")
    add("--learn-temperature", action="store_true", help="train the temperature too, from --temperature on")
    add(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="precision of training (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Train or join a spoke and write its file. Raises `SensebindError`."""
    require_file_name(args.out, "-o", "spoke.safetensors")
    require_file_name(args.checkpoint, "--checkpoint", "checkpoint.pt")
    outputs = [args.out, args.checkpoint, args.tensorboard]
    inputs = [*args.recordings, args.config, args.start, args.phrases, *args.unlabelled]
    if args.pairs:  # the folders in it that are read
        inputs += [args.pairs / name for name in (args.modality, "vision", "text")]
    require_apart(outputs, [*inputs, args.weights or None, args.source_weights or None])
    require_apart([args.out], [args.checkpoint, args.tensorboard])
    require_writable(*{path.parent for path in (args.out, args.checkpoint) if path})
    if args.tensorboard:
        require_writable(args.tensorboard)
    return _join(args) if args.through else _train(args)


def _join(args: argparse.Namespace) -> int:
    """Join a modality of another space to the hub, through text."""
    import time

    from sensebind.fusion.models import registry
    from sensebind.fusion.models.spokes import joined
    from sensebind.training import text_join
    from sensebind.training.data.pairs import AlignError
    from sensebind.training.spoke_initialization import training_parameters

    if not args.source:
        raise AlignError("--through text needs --source: a space with encoders for the modality and for text")
    if args.recordings or args.pairs:
        raise AlignError("--through text needs no pairs: leave out the recordings and --pairs (or use --unlabelled)")
    if unused := changed_training_options(args):
        raise AlignError(f"--through text trains nothing: leave out {', '.join(unused)}")
    began = time.perf_counter()
    phrases = text_join.shared_phrases(text_join.read_phrases(args.phrases) if args.phrases else ())
    hub = registry.load_without_spokes(args.hub, modalities=["text"], weights=args.weights)
    source = registry.load_space(args.source, modalities=[args.modality, "text"], weights=args.source_weights)
    text_join.check_spaces(source, hub, args.modality)
    mean = None
    if args.unlabelled:
        values = training_parameters(args.config, args.modality)
        mean = text_join.mean_vector(source, args.modality, args.unlabelled, values)
    weights = str(Path(args.source_weights).absolute()) if args.source_weights else ""
    spec, join, quality = text_join.join_through_text(
        source, hub, args.modality, phrases, mean, name=absolute_source(args.source), weights=weights
    )
    joined.save(args.out, spec, join)
    print(
        f"hub {hub.id}; {args.modality} of {source.id}, through {len(phrases.phrases)} phrases"
        f"{'' if mean is None else ', centred by unlabelled data'}\n"
        f"held-out phrases find themselves: R@1 {quality.recall:.3f} (chance {quality.chance:.3f}, "
        f"n {quality.held_out}); {time.perf_counter() - began:.0f} s\n"
        f"{args.out}: to use it, set spokes: [{args.out}] in the parameter file"
    )
    return 0


def changed_training_options(args: argparse.Namespace) -> list[str]:
    """The options of training on pairs that do not have their defaults."""
    parser = argparse.ArgumentParser()
    _add_training_options(parser.add_argument)
    parser.add_argument("--block", default=DEFAULT_BLOCK)
    parser.add_argument("--held-out", default=DEFAULT_HELD_OUT)
    parser.add_argument("--checkpoint")
    parser.add_argument("--tensorboard")
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(args, name) != value]


def absolute_source(space: str) -> str:
    """The name of a space; a folder in it is made absolute, so that the spoke file can be used from any folder."""
    prefix, colon, folder = space.partition(":")
    return f"{prefix}:{Path(folder).absolute()}" if colon and Path(folder).is_dir() else space


def _train(args: argparse.Namespace) -> int:
    """Train a spoke on pairs."""
    from dataclasses import replace

    from sensebind.fusion.core.space import Hub
    from sensebind.fusion.models import registry
    from sensebind.fusion.models.spokes import spoke as spokes
    from sensebind.replay.progress import progress
    from sensebind.training.data.pairs import AlignError, split, summary
    from sensebind.training.spoke_initialization import SpokeInitialization, initial_spoke, training_parameters
    from sensebind.training.spoke_training import held_out_recall, train_spoke

    if args.source or args.unlabelled or args.phrases:
        raise AlignError("--source, --phrases and --unlabelled join spaces: add --through text")
    if bool(args.recordings) == bool(args.pairs):
        raise AlignError("give recordings or --pairs DIR, and not both")
    settings = _settings(args)
    hub = registry.load_without_spokes(args.hub, weights=args.weights)
    if not isinstance(hub, Hub):
        raise AlignError(f"space {hub.id} has no image encoder, so no modality can be bound to it")
    values = training_parameters(args.config, args.modality)
    start = SpokeInitialization(args.start, args.scratch, args.method, args.rank, args.seed)
    spoke = initial_spoke(hub, args.modality, values, start, args.recordings)
    pairs = _pairs(args, hub, spoke, values, keep_views=spoke.spec.kind == "image" and settings.views > 0)
    training, held = split(pairs, args.held_out, args.seed)
    print(f"hub {hub.id}; {summary(pairs)}: {len(training)} for training, {len(held)} held out")
    before = held_out_recall(spoke, held)
    with (
        progress("training", settings.epochs, "epochs") as shown,
        TensorBoardCurves(args.tensorboard) as curve,
    ):

        def show(epoch: EpochResult) -> None:
            shown.note(f"loss {epoch.loss:.3f}, held-out R@1 {epoch.recall:.3f}, best {epoch.best:.3f}")
            curve(epoch)

        best = train_spoke(
            spoke, hub, training, held, settings, on_epoch=show, checkpoint=args.checkpoint, progress=shown.reach
        )
    sources = [str(path.name) for path in args.recordings or [args.pairs]]
    about = {"data": sources, "pairs": len(training), "held_out": len(held), "recall_at_1": round(best.recall, 4)}
    spoke.spec = replace(spoke.spec, about=about)
    spokes.save(spoke, args.out)
    print(
        f"held-out R@1 {best.recall:.3f} after epoch {best.number} (before {before:.3f}, chance {best.chance:.3f}, "
        f"n {len(held)})\n{args.out}: to use it, set spokes: [{args.out}] in the parameter file"
    )
    return 0


def _settings(args: argparse.Namespace) -> TrainingOptions:
    """The training settings in the arguments. Raises `AlignError` for values out of range."""
    from sensebind.training.spoke_training import TrainingOptions

    return TrainingOptions(
        epochs=args.epochs, batch=args.batch, chunk=args.chunk, learning_rate=args.learning_rate, bank=args.bank,
        temperature=args.temperature, learn_temperature=args.learn_temperature, views=args.views,
        inverted_fraction=args.inverted, patience=args.patience, precision=args.precision, seed=args.seed,
    )  # fmt: skip


def _pairs(args: argparse.Namespace, hub: Hub, spoke: Spoke, values: Mapping[str, Any], keep_views: bool) -> Pairs:
    """All pairs; shows the progress through the recordings. Raises `AlignError` and `RecordingError`."""
    from sensebind.replay.progress import track
    from sensebind.training.data.pairs import concatenate_pairs, pairs_from_folder, pairs_from_recording

    modality, trained_window = args.modality, spoke.spec.trained_window
    if args.pairs:
        return pairs_from_folder(args.pairs, modality, hub, spoke.tensor, trained_window, keep_views=keep_views)
    trained_windows = {**hub.trained_windows, modality: trained_window}
    return concatenate_pairs([
        pairs_from_recording(path, modality, hub, spoke.tensor, values, trained_windows, args.block, keep_views)
        for path in track(args.recordings, "reading", "recordings")
    ])  # fmt: skip


class TensorBoardCurves:
    """A context manager that returns a function of an epoch's results: it writes them to TensorBoard if `folder` is
    given. They are no reason to end a training: if they cannot be written, a warning says so."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise SensebindError(
                    "--tensorboard needs the package tensorboard: pip install 'sensebind[tensorboard]'"
                ) from error
            self._writer = SummaryWriter(folder)

    def __enter__(self) -> Callable[[EpochResult], None]:
        def write(epoch: EpochResult) -> None:
            try:
                for name in ("loss", "recall", "best") if self._writer is not None else ():
                    self._writer.add_scalar(name, getattr(epoch, name), epoch.number)
            except OSError as error:
                self._give_up(error)

        return write

    def __exit__(self, *_: object) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        print(f"the curves for TensorBoard end here: {error.strerror or error}", file=sys.stderr)
