"""`sensebind calibrate`: fit a calibration on labelled recordings, with which scores of prompts are probabilities."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import add_config, add_device, require_apart, require_file_name, require_writable

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.training.prompt_classifiers import LabelledStream


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit prompt calibration and prompt classifiers on labelled recordings",
        description="Fit on labelled recordings, for each modality: the probability of a prompt at a given similarity; "
        "prompt classifiers; and the reliability of the modality, which is its weight among all modalities. To use "
        "FILE, set the detector's parameter prompt.calibration to it.",
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="bag: a folder or a file")
    parser.add_argument(
        "--truth",
        nargs="+",
        type=Path,
        default=[],
        metavar="TSV",
        help="truth of each recording: onset, offset (s from its start) and label, tab-separated (default: "
        "RECORDING.truth.tsv)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    add_config(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Fit a calibration and write its file. Exit status 1 if no prompt is set. Raises `SensebindError`."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.fusion.events.prompt import PromptDetector
    from sensebind.fusion.io.ground_truth import find_truth_file, match_truth_files, read_truth, require_truth_file
    from sensebind.fusion.io.recordings import duration
    from sensebind.replay.progress import progress
    from sensebind.replay.session import DEFAULT_PARAMETER_FILE, Settings
    from sensebind.training.calibration import CalibratedSpace, assessment_steps, fit_and_assess
    from sensebind.training.data.labelled_streams import labelled_stream

    require_file_name(args.out, "-o", "calibration.safetensors")
    require_apart([args.out], [*args.recordings, *args.truth, *map(find_truth_file, args.recordings), args.config])
    require_writable(args.out.parent)
    file = args.config or shipped_parameter_file(DEFAULT_PARAMETER_FILE)
    settings = Settings.read(file, args.device)
    truths = zip(args.recordings, match_truth_files(args.recordings, args.truth), strict=True)
    labels = [read_truth(require_truth_file(recording, given), settings.prompts) for recording, given in truths]
    space = settings.space()
    found = settings.with_detector({"detectors": ["prompt"], "prompt.calibration": "none"}).detectors(space)
    if not found or not isinstance(found[0], PromptDetector):
        print(f"'{file}' has no prompts: add prompts.<label>: [phrase, …] for each label of the truth", file=sys.stderr)
        return 1
    detector = found[0]
    unknown = sorted({label for spans in labels for _, _, label in spans} - set(detector.prompts))
    if unknown:
        print(f"labels of the truth without a prompt are ignored: {', '.join(unknown)}", file=sys.stderr)
    streams: list[LabelledStream] = []
    for recording, spans in zip(args.recordings, labels, strict=True):
        with progress(f"reading {recording.name}", duration(recording)) as shown:
            streams.append(labelled_stream(recording, spans, settings, space, shown.reach))
        print(f"{recording}: {len(streams[-1][0])} ticks, {len(spans)} labelled spans", flush=True)
    source = f"recordings: {', '.join(recording.resolve().name for recording in args.recordings)}"
    with progress("fitting", assessment_steps(len(streams)), "steps") as shown:
        calibration, notes = fit_and_assess(detector, streams, CalibratedSpace.of(space, source), shown.advance)
    calibration.save(args.out, notes)
    for name in ("before", "after", "cross-validated"):
        if name in notes:
            print(f"{name:18} " + ", ".join(f"{key} {value:g}" for key, value in notes[name].items()))
    width = max([8, *map(len, calibration.fitted_modalities)])
    for modality in calibration.fitted_modalities:
        curve = calibration.modalities.get(modality)
        line = f"{modality:{width}} " + (f"reliability {curve.reliability:.2f}" if curve else "no score curve")
        classifiers = calibration.classifiers.modalities.get(modality) if calibration.classifiers else None
        print(line + (f", {classifiers.trained_classes().sum()} prompt classifiers" if classifiers else ""))
    print(f"{args.out}: for the encoders of space {space.id}; to use it, set prompt.calibration: {args.out}")
    return 0
