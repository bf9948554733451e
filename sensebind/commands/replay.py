"""`sensebind replay`: a recording to embeddings, events, a summary and a report."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "replay",
        help="a recording to embeddings, events, a summary and a report",
        description="Replay a recording offline, faster than real time, through the line that the nodes run. Writes "
        "DIR/outputs/ (an MCAP bag, with annotated pictures for Foxglove), DIR/summary.json and DIR/report.html.",
    )
    parser.add_argument("recording", type=Path, help="bag: a folder, or an .mcap, .db3 or .bag file")
    parser.add_argument("--config", type=Path, metavar="F", help="ROS parameter file (default: config/starter.yaml)")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier replay left in DIR")
    parser.add_argument("--device", help="cpu, cuda or auto, whatever the file says")
    parser.add_argument(
        "--truth", type=Path, metavar="TSV",
        help="what was there, for the report: onset, offset (s from the start), label "
        "(default: RECORDING.truth.tsv, where it is there)",
    )  # fmt: skip
    parser.add_argument("--rerun", type=Path, metavar="FILE", help="write all of it for the Rerun viewer too (.rrd)")


def run(args: argparse.Namespace) -> int:
    """Replay and write. Exit status 1 where the recording has no topic of any sense. Raises `SensebindError`."""
    from tqdm import tqdm

    from sensebind.fusion.config import build
    from sensebind.fusion.config.detectors import detectors
    from sensebind.fusion.core.embeddings import Embedding
    from sensebind.fusion.core.events import Event, Phase, occurrences
    from sensebind.fusion.core.samples import SECOND, Sample
    from sensebind.fusion.events.tracker import EventLine
    from sensebind.fusion.io import messages
    from sensebind.fusion.io.recordings import BagWriter, Recording
    from sensebind.replay.driver import Reader, replay
    from sensebind.replay.session import Settings
    from sensebind.report import Media, ReportData, similarities, write, write_summary
    from sensebind.report.annotated import AnnotatedPictures
    from sensebind.report.data import truth_for
    from sensebind.report.viewer import RerunFile

    settings = Settings.read(args.config, args.device)
    truth = truth_for(args.recording, args.truth)
    with Recording(args.recording) as recording:
        reader = Reader(recording, settings.embedder, settings.modalities)
        for modality in settings.modalities:
            topic = reader.topics.get(modality)
            print(f"{modality:8} {topic} ({reader.reasons[modality]})" if topic else f"{modality:8} no topic")
        if not reader.topics:
            print(f"'{args.recording}' has no topic of any sense", file=sys.stderr)
            return 1
        space = settings.space()
        found = detectors(settings.detector, lambda phrases: space.embed_text(phrases).numpy(), space.modalities)
        pipeline = build.pipeline(settings.embedder, space, events=EventLine(found, space.id))
        vectors = {label: space.embed_text(phrases).numpy() for label, phrases in settings.prompts.items()}
        media = Media()
        notes = [f"{m}: {reader.topics[m]} ({reader.reasons[m]})" for m in reader.topics]
        notes += [
            f"This space has no encoder for {m} yet: windowed and counted, not embedded."
            for m in reader.topics
            if m not in space.modalities
        ]
        embeddings: list[Embedding] = []
        events: list[Event] = []
        told: dict[str, int] = {}
        started = time.perf_counter()
        with (
            BagWriter(args.out / "outputs", overwrite=args.overwrite) as bag,
            tqdm(total=round((recording.end - recording.start) / SECOND), unit="s", disable=None) as bar,
        ):
            viewer = RerunFile(args.rerun, args.recording.name) if args.rerun else None
            pictures = AnnotatedPictures(bag.types)
            bag.write(
                "/embedding_space",
                messages.EMBEDDING_SPACE,
                recording.start,
                messages.space_message(bag.types, space, pipeline.specs),
            )

            def progress(stamp: int) -> None:
                bar.update((stamp - recording.start) // SECOND - bar.n)

            def show(sample: Sample) -> None:
                calibration = reader.calibrations.get(sample.modality)
                media.add(sample, calibration)
                if (written := pictures.add(sample, calibration)) is not None:
                    bag.write(*written)
                if viewer:
                    viewer.add(sample, calibration)

            for output in replay(reader, pipeline, on_sample=show, progress=progress):
                if isinstance(output, Embedding):
                    embeddings.append(output)
                    topic = f"/embeddings/{output.modality}"
                    bag.write(topic, messages.EMBEDDING, output.tick, messages.embedding_message(bag.types, output))
                elif isinstance(output, Event):
                    events.append(output)
                    if output.phase is Phase.ONSET:
                        media.keep(output.onset)
                    bag.write("/events", messages.EVENT, output.tick, messages.event_message(bag.types, output))
                else:
                    text = f"{output.modality}: topic '{reader.topics[output.modality]}': {output.message}"
                    if text not in told:
                        tqdm.write(text, file=sys.stderr)
                    told[text] = told.get(text, 0) + 1
            for annotation in pictures.annotations(occurrences(events)):
                bag.write(*annotation)
        took = time.perf_counter() - started
        for text, times in told.items():
            notes.append(f"{text} ({times} times)")
        snapshot = pipeline.statistics()
        for modality, statistics in snapshot.items():
            if unstamped := statistics.counts["unstamped"]:
                notes.append(
                    f"{modality}: {unstamped} of {statistics.counts['samples']} messages have no stamp in their header "
                    "and were left out: let the driver stamp them"
                )
                print(notes[-1])
        data = ReportData(
            title=args.recording.resolve().name,
            recording=args.recording.resolve().name,
            space=space.id,
            licence=space.licence,
            start=recording.start,
            end=recording.end,
            modalities={m: s.summary() for m, s in snapshot.items()},
            similarities=similarities(embeddings, vectors),
            events=events,
            media=media,
            truth=truth,
            realtime_factor=round((recording.end - recording.start) / SECOND / took, 2),
            notes=notes,
        )
    if viewer:
        start = data.start
        spans = [(start + round(on * SECOND), start + round(off * SECOND), label) for on, off, label in truth or ()]
        viewer.finish(embeddings, data.similarities, occurrences(events), spans)
    write(args.out / "report.html", data)
    write_summary(args.out / "summary.json", data)
    for name, figures in data.modalities.items():
        print(f"{name:8} {figures['windows']} windows, {figures['embedded']} embedded")
    onsets = [event for event in events if event.phase is Phase.ONSET]
    print(
        f"{len(onsets)} events: " + ", ".join(f"{e.label} at {(e.onset - data.start) / SECOND:.1f} s" for e in onsets)
    )
    also = f"; {args.rerun}" if args.rerun else ""
    print(f"{data.realtime_factor} × real time; {args.out}/outputs, summary.json, report.html{also}")
    return 0
