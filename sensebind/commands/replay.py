"""`sensebind replay`: writes the embeddings and events of a recording, a summary and a report."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import (
    add_config,
    add_device,
    add_out,
    add_selection,
    require_apart,
    require_file_name,
    selection_of,
)
from sensebind.fusion.core.errors import printable

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.evaluation.run_recordings import TrackerStep
    from sensebind.fusion.core.space import Space
    from sensebind.fusion.io.ground_truth import LabelSpan
    from sensebind.fusion.io.recordings import Selection
    from sensebind.replay.losses import ReplayLosses
    from sensebind.replay.session import Replay, Settings
    from sensebind.report import ReportData

OUTPUT_NAMES = ("outputs", "foxglove_layout.json", "summary.json", "report.html")


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "replay",
        help="write embeddings, events, a summary and a report of a recording",
        description="Replay a recording offline, faster than real time, through the pipeline of the nodes. Writes "
        "DIR/outputs/ (an MCAP bag, with the scores of the prompts, and annotated images for Foxglove), "
        "DIR/foxglove_layout.json (a layout for DIR/outputs), DIR/summary.json and DIR/report.html.",
    )
    parser.add_argument("recording", type=Path, help="bag: a folder, or an .mcap, .db3 or .bag file")
    add_selection(parser)
    add_config(parser)
    parser.add_argument(
        "--namespace",
        metavar="NS",
        help="the robot's namespace: only its topics are read, if the recording has any, and sections such as "
        "/NS/detector in the file of --config too",
    )
    add_out(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the outputs of an earlier replay in DIR")
    parser.add_argument(
        "--strict", action="store_true",
        help="exit with status 1 if something was lost: messages that could not be read, fewer than the recording "
        "counts, and messages, samples or windows that were not used because they are undecodable, late, duplicate, …",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--truth", type=Path, metavar="TSV",
        help="truth for the report: onset, offset (s from the start), label "
        "(default: RECORDING.truth.tsv, if it exists)",
    )  # fmt: skip
    parser.add_argument(
        "--suggest", type=Path, metavar="FILE",
        help="print the best onset threshold of each prompt by the truth, cross-validated over blocks of time, and "
        "write these thresholds with the parameters of --config to FILE, a parameter file",
    )  # fmt: skip
    parser.add_argument("--rerun", type=Path, metavar="FILE", help="write a file for the Rerun viewer too (.rrd)")
    parser.add_argument(
        "--rerun-connect", nargs="?", const="", metavar="ADDR",
        help="send the replay to a Rerun viewer that runs, while it runs: HOST:PORT (default: 127.0.0.1:9876)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Replay a recording and write the files. Exit status 1 if it has no topic of any modality, and with --strict if
    something was lost. Raises `SensebindError`."""
    from sensebind.fusion.core.errors import ConfigError
    from sensebind.fusion.io.ground_truth import find_truth_file, require_truth_file
    from sensebind.replay.progress import progress
    from sensebind.replay.session import Settings, open_with_sensors
    from sensebind.report.replay_output import write_replay
    from sensebind.report.report_data import report_truth
    from sensebind.report.rerun_file import viewer_address

    require_file_name(args.suggest, "--suggest", "suggested.yaml")
    require_file_name(args.rerun, "--rerun", "replay.rrd")
    inputs = [args.recording, args.config, args.truth, find_truth_file(args.recording)]
    require_apart([*(args.out / name for name in OUTPUT_NAMES), args.rerun, args.suggest], inputs)
    require_apart([args.rerun, args.suggest], [args.out / name for name in OUTPUT_NAMES])
    configured = Settings.read(args.config, namespace=args.namespace)
    settings = configured.with_device(args.device)
    if args.suggest:
        require_truth_file(args.recording, args.truth)
        if not settings.prompts:
            raise ConfigError("--suggest needs prompts in the file of --config")
    viewer = None if args.rerun_connect is None else viewer_address(args.rerun_connect)
    selection = selection_of(args)
    truth = selected_truth(report_truth(args.recording, args.truth, settings.prompts), selection)
    with open_with_sensors(args.recording, settings, args.namespace, selection) as (settings, replay):
        print(_topics_table(replay, settings))
        if not replay.topics:
            for note in replay.recording.notes:
                print(printable(note))
            print(
                f"'{args.recording}' has no topic of any modality: set <modality>.topic in the file of --config",
                file=sys.stderr,
            )
            return 1
        space = settings.space()
        with progress("replay", replay.seconds) as shown:
            data, warnings, steps = write_replay(
                replay, settings, space, args.out, overwrite=args.overwrite, truth=truth, rerun=args.rerun,
                rerun_viewer=viewer, progress=shown.reach, warn=shown.write,
            )  # fmt: skip
    for warning in warnings:
        print(printable(warning))
    width = max([8, *map(len, data.modalities)])
    for name, figures in data.modalities.items():
        lost = data.losses.sensors[name].text() if name in data.losses.sensors else ""
        also = f"; not used: {lost}" if lost else ""
        print(f"{name:{width}} {figures['windows']} windows, {figures['embedded']} embedded{also}")
    for line in data.losses.lines():
        print(printable(line))
    print(printable(events_text(data)))
    also = f"; {args.rerun}" if args.rerun else ""
    print(f"{data.realtime_factor} × real time; written to {args.out}: {', '.join(OUTPUT_NAMES)}{also}")
    if args.suggest:
        _suggest(args, configured, space, steps, truth or [], data.start)
    return _strict_status(args.recording, data.losses) if args.strict else 0


def _strict_status(recording: Path, losses: ReplayLosses) -> int:
    """The exit status with --strict. Prints what was lost."""
    problems = ["messages could not be read"] if losses.recording else []
    if faults := losses.faults():
        problems.append(f"not all was used of {', '.join(faults)}")
    if problems:
        print(printable(f"error: '{recording}': {'; '.join(problems)} (--strict)"), file=sys.stderr)
    return int(bool(problems))


def selected_truth(truth: list[LabelSpan] | None, selection: Selection) -> list[LabelSpan] | None:
    """The truth within the selected part of a recording, in seconds from its start."""
    if truth is None or not selection.is_limited_in_time:
        return truth
    length = math.inf if selection.duration is None else selection.duration
    shifted = ((onset - selection.start, offset - selection.start, label) for onset, offset, label in truth)
    return [(max(on, 0.0), min(off, length), label) for on, off, label in shifted if off > 0 and on < length]


def _topics_table(replay: Replay, settings: Settings) -> str:
    """One line for each sensor: its topic, and why this one."""
    from sensebind.fusion.config.parameters import sensors_of

    sensors = list(sensors_of(settings.embedder))
    width = max(8, *map(len, sensors))
    reasons, missing = replay.reader.topic_reasons, replay.reader.missing_reasons
    lines = [
        f"{sensor:{width}} {replay.topics[sensor]} ({reasons[sensor]})"
        if sensor in replay.topics
        else f"{sensor:{width}} no topic" + (f" ({missing[sensor]})" if missing.get(sensor) else "")
        for sensor in sensors
    ]
    return "\n".join(map(printable, lines))


def events_text(data: ReportData) -> str:
    """The number of events, and each with its onset; with the sensors that support it, if any has a name of its own."""
    from sensebind.fusion.core.events import EventPhase
    from sensebind.fusion.core.samples import SECOND

    onsets = [event for event in data.events if event.phase is EventPhase.ONSET]
    start, _ = data.time_range()
    shown = []
    for event in onsets:
        names = ", ".join(event.supporting_sensors) if data.has_named_sensors else ""
        shown.append(f"{event.label} at {(event.onset - start) / SECOND:.1f} s" + (f" ({names})" if names else ""))
    return f"{len(onsets)} events: {', '.join(shown)}"


def _suggest(
    args: argparse.Namespace,
    settings: Settings,
    space: Space,
    steps: list[TrackerStep | None],
    truth: list[LabelSpan],
    start: int,
) -> None:
    """Print the best onset thresholds, and write them with the other parameters to the file of --suggest."""
    from functools import partial

    from sensebind.evaluation.spans import Spans
    from sensebind.fusion.config.files import write_parameter_file
    from sensebind.fusion.config.parameters import ONSET_THRESHOLD_PREFIX
    from sensebind.fusion.events.prompt import PromptDetector
    from sensebind.replay.progress import track
    from sensebind.training import onset_thresholds

    (detector,) = (
        found
        for found in settings.with_detector({"detectors": ["prompt"]}).detectors(space)
        if isinstance(found, PromptDetector)
    )
    shown = partial(track, what="onset thresholds", unit="thresholds")
    found = onset_thresholds.suggest_thresholds(detector, steps, space.id, Spans.of(truth), start, shown)
    print(f"onset thresholds by event F1:\n{onset_thresholds.suggestion_table(found)}")
    values = settings.changed_values()
    values |= {f"{ONSET_THRESHOLD_PREFIX}{label}": v for label, v in onset_thresholds.threshold_values(found).items()}
    heading = [
        f"Suggested by `sensebind replay {args.recording} --suggest`, from its truth. Nothing applies it for you."
    ]
    heading += onset_thresholds.suggestion_table(found).splitlines()
    write_parameter_file(args.suggest, values, heading)
    print(f"written to {args.suggest}; it is not applied: use it as --config, --params-file or params_file")
