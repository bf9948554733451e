"""`sensebind demo`: a simulated patrol through the real nodes, and what they made of it."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.fusion.core.events import Event

START_UP = 60.0  # s that the nodes may take to be ready
DELAY = 4.0  # s before the first message: all subscribers have been met by then, also on a busy machine


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "demo",
        help="a simulated patrol through the real nodes",
        description="Simulates a short patrol with five sensors, plays it over DDS to the nodes, each a process of its "
        "own, prints events as they happen, and writes DIR/report.html.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of playing (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Simulate, play, listen, report. Exit status 1 where the nodes did not do their part."""
    from sensebind.fusion.core.errors import SensebindError

    try:
        return demonstrate(args.out, args.seed, args.rate)
    except (DemoError, SensebindError) as error:
        print(f"sensebind demo: {error}", file=sys.stderr)
        return 1


def demonstrate(out: Path, seed: int, rate: float) -> int:
    """The whole demo. Raises `DemoError` where a node fails."""
    import os

    from sensebind.fusion.config.parameters import shipped
    from sensebind.simulation import simulate

    try:
        import rclpy
    except ImportError as error:
        raise DemoError("rclpy is not installed: source a ROS 2 installation, or run `make demo`") from error
    from sensebind.nodes.support.listener import Listener
    from sensebind.nodes.support.processes import running
    from sensebind.nodes.support.transport import alone

    out.mkdir(parents=True, exist_ok=True)
    recording = out / "patrol"
    print(f"simulating a patrol: {recording}")
    began = time.monotonic()
    truth = simulate(recording, seed=seed, overwrite=True)
    print(f"  {time.monotonic() - began:.0f} s")

    environment = alone()
    os.environ.update(environment)  # for our own listener too
    config = shipped("demo.yaml")
    ros = ["--ros-args", "--params-file", str(config)]
    play = ["--ros-args", "-p", f"recording:={recording}", "-p", f"rate:={rate}", "-p", f"delay:={DELAY}"]
    with ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        first = [0]

        def show(event: Event) -> None:
            print(line(event, first[0]), flush=True)

        listener = Listener(show)
        stack.callback(listener.destroy_node)
        print("starting embedder and detector")
        nodes = {
            name: stack.enter_context(running(name, ros, environment=environment, log=out / f"{name}.log"))
            for name in ("embedder", "detector")
        }

        def spin(until: Any, seconds: float, what: str) -> None:
            deadline = time.monotonic() + seconds
            while not until():
                rclpy.spin_once(listener, timeout_sec=0.05)
                for name, process in nodes.items():
                    if process.poll() is not None:
                        raise DemoError(f"{name} stopped ({process.returncode}): see {out / f'{name}.log'}")
                if time.monotonic() > deadline:
                    raise DemoError(f"{what} took over {seconds:.0f} s: see the logs in {out}")

        spin(listener.is_ready, START_UP, "starting the nodes")
        first[0] = start_of(recording)
        print(f"playing at rate {rate:g}; events as they happen:")
        player = stack.enter_context(running("player", play, environment=environment, log=out / "player.log"))
        spin(lambda: player.poll() is not None, 600 / rate, "playing")
        if player.returncode:
            raise DemoError(f"player failed ({player.returncode}): see {out / 'player.log'}")
        # The last windows close once their topics have been silent for a while.
        quiet = time.monotonic() + 2.5
        spin(lambda: time.monotonic() > quiet, 10, "the end")
        # The detector tells the end of what is still open when it stops; hear it out.
        nodes.pop("detector").send_signal(2)
        quiet = time.monotonic() + 1.5
        spin(lambda: time.monotonic() > quiet, 10, "the end")
        counts = {m: listener.figure(m, "arrived") for m in ("vision", "depth", "thermal", "audio", "imu")}
        lost = {m: sum(int(listener.figure(m, key) or 0) for key in ("lost", "earlier")) for m in counts}
        status = {m: {pair.key: pair.value for pair in s.values} for m, s in listener.status.items()}
        embeddings, events, space = listener.embeddings, listener.events, listener.space
    if not embeddings:
        raise DemoError(f"nothing was embedded: see {out / 'embedder.log'}")
    print("arrived: " + ", ".join(f"{m} {counts[m]} (lost {lost[m]})" for m in counts))
    report(out, recording, config, embeddings, events, space, status, truth)
    print_result(events, truth, first[0])
    print(f"report: {(out / 'report.html').resolve()}")
    return 0


def start_of(recording: Path) -> int:
    """The time (ns) that the recording begins at."""
    from sensebind.fusion.io.recordings import Recording

    with Recording(recording) as bag:
        return bag.start


def line(event: Event, start: int) -> str:
    """An event as one line of text."""
    senses = ", ".join(evidence.modality for evidence in event.evidence if evidence.supports)
    return (
        f"  {(event.tick - start) / 1e9:6.1f} s  {event.phase.name:6}  {event.kind.name:12}  {event.label:20} "
        f"{event.score:.2f}  {senses}"
    )


def report(
    out: Path, recording: Path, config: Path, embeddings: Any, events: Any, space: Any, status: Any, truth: Any
) -> None:
    """Write `out`/report.html from what was published and from the recording."""
    from sensebind.fusion.config.detectors import prompts_of
    from sensebind.fusion.config.parameters import (
        FREE,
        detector_parameters,
        embedder_parameters,
        names_of_others,
        read,
        resolve,
    )
    from sensebind.fusion.core.samples import SENSOR_MODALITIES, Sample
    from sensebind.fusion.io.recordings import Recording
    from sensebind.fusion.models import registry
    from sensebind.replay.driver import Reader
    from sensebind.report import Media, ReportData, similarities, write

    values = resolve(embedder_parameters(), read(config, "embedder"), free=FREE, others=names_of_others("embedder"))
    wanted = resolve(detector_parameters(), read(config, "detector"), free=FREE, others=names_of_others("detector"))
    media = Media()
    with Recording(recording) as bag:
        reader = Reader(bag, values, SENSOR_MODALITIES)
        for sample in reader.samples():
            if isinstance(sample, Sample):
                media.add(sample, reader.calibrations.get(sample.modality))
        start, end = bag.start, bag.end
    text = registry.load(str(values["space"]), modalities=["text"])
    prompts = {label: text.embed_text(phrases).numpy() for label, phrases in prompts_of(wanted).items()}
    modalities = {}
    for modality in SENSOR_MODALITIES:
        told = status.get(f"sensebind: {modality}", {})
        modalities[modality] = {
            "windows": int(told.get("windows", 0)),
            "embedded": int(told.get("embedded", 0)),
            "dropped": {
                k: int(told[k]) for k in ("coverage", "encoding", "overload", "failure") if int(told.get(k, 0))
            },
            "coverage_mean": float(told.get("coverage_mean", 0)),
            "latency_ms": {"p50": float(told.get("latency_p50_ms", 0)), "p99": float(told.get("latency_p99_ms", 0))},
        }
    silent = [m for m in SENSOR_MODALITIES if m not in space.modalities]
    data = ReportData(
        title="Simulated patrol",
        recording=recording.name,
        space=space.id,
        licence=space.licence,
        start=start,
        end=end,
        modalities=modalities,
        similarities=similarities(embeddings, prompts),
        events=events,
        media=media,
        truth=[(t.onset, t.offset, t.label) for t in truth],
        notes=[
            "Played over DDS to the nodes, each a process of its own.",
            *(
                [f"This space has no encoder yet for {', '.join(silent)}: windowed and counted, not embedded."]
                if silent
                else []
            ),
        ],
    )
    write(out / "report.html", data)


def print_result(events: Any, truth: Any, start: int) -> None:
    """What was there, and what was told of it."""
    from sensebind.fusion.core.events import Kind, Phase

    print("what was there, and what was told:")
    onsets = [e for e in events if e.phase is Phase.ONSET and e.kind is Kind.PROMPT]
    labels = {t.label for t in truth}
    for item in truth:
        hits = [
            (e.onset - start) / 1e9
            for e in onsets
            if e.label == item.label and item.onset - 2 <= (e.onset - start) / 1e9 <= item.offset + 2
        ]
        told = f"told from {hits[0]:.1f} s on" if hits else "not told"
        print(f"  {item.onset:6.1f} to {item.offset:6.1f} s  {item.label:20} {told}")
    others = [e for e in onsets if e.label not in labels]
    if others:
        print("  told and not there: " + ", ".join(f"{e.label} at {(e.onset - start) / 1e9:.1f} s" for e in others))
