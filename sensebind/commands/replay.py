"""`sensebind replay`: writes the embeddings and events of a recording, a summary and a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import add_config, add_device, add_out

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "replay",
        help="write embeddings, events, a summary and a report of a recording",
        description="Replay a recording offline, faster than real time, through the pipeline of the nodes. Writes "
        "DIR/outputs/ (an MCAP bag, with annotated images for Foxglove), DIR/summary.json and DIR/report.html.",
    )
    parser.add_argument("recording", type=Path, help="bag: a folder, or an .mcap, .db3 or .bag file")
    add_config(parser)
    add_out(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the outputs of an earlier replay in DIR")
    add_device(parser)
    parser.add_argument(
        "--truth", type=Path, metavar="TSV",
        help="truth for the report: onset, offset (s from the start), label "
        "(default: RECORDING.truth.tsv, if it exists)",
    )  # fmt: skip
    parser.add_argument("--rerun", type=Path, metavar="FILE", help="write a file for the Rerun viewer too (.rrd)")


def run(args: argparse.Namespace) -> int:
    """Replay a recording and write the files. Exit status 1 if it has no topic of any modality. Raises
    `SensebindError`."""
    from functools import partial

    from tqdm import tqdm

    from sensebind.fusion.core.events import EventPhase
    from sensebind.fusion.core.samples import SECOND
    from sensebind.replay.session import Settings, open_replay
    from sensebind.report.replay_output import write_replay
    from sensebind.report.report_data import report_truth

    settings = Settings.read(args.config, args.device)
    truth = report_truth(args.recording, args.truth, settings.prompts)
    with open_replay(args.recording, settings.embedder) as replay:
        for modality in settings.modalities:
            topic = replay.topics.get(modality)
            print(
                f"{modality:8} {topic} ({replay.reader.topic_reasons[modality]})" if topic else f"{modality:8} no topic"
            )
        if not replay.topics:
            print(
                f"'{args.recording}' has no topic of any modality: set <modality>.topic in the file of --config",
                file=sys.stderr,
            )
            return 1
        space = settings.space()
        with tqdm(total=round(replay.seconds), unit="s", disable=None) as bar:

            def progress(seconds: float) -> None:
                bar.update(int(seconds) - bar.n)

            data, warnings = write_replay(
                replay, settings, space, args.out, overwrite=args.overwrite, truth=truth, rerun=args.rerun,
                progress=progress, warn=partial(tqdm.write, file=sys.stderr),
            )  # fmt: skip
    for warning in warnings:
        print(warning)
    for name, figures in data.modalities.items():
        print(f"{name:8} {figures['windows']} windows, {figures['embedded']} embedded")
    onsets = [event for event in data.events if event.phase is EventPhase.ONSET]
    print(
        f"{len(onsets)} events: " + ", ".join(f"{e.label} at {(e.onset - data.start) / SECOND:.1f} s" for e in onsets)
    )
    also = f"; {args.rerun}" if args.rerun else ""
    print(f"{data.realtime_factor} × real time; written to {args.out}: outputs, summary.json, report.html{also}")
    return 0
