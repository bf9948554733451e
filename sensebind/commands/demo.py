"""`sensebind demo`: plays a simulated patrol to the nodes, and reports what they detect."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from subprocess import Popen

    from sensebind.fusion.core.embeddings import Embedding
    from sensebind.fusion.core.events import Event
    from sensebind.nodes.support.listener import Listener
    from sensebind.report import SensorPreviews
    from sensebind.simulation.recorder import GroundTruthEvent

STARTUP_TIMEOUT = 60.0  # s, limit for the start of the nodes
PLAYBACK_DELAY = 4.0  # s before the first message: enough to discover all subscribers, also on a busy computer


class DemoError(Exception):
    """The demo cannot continue; the message gives the reason."""


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="play a simulated patrol to the nodes",
        description="Simulate a short patrol with five sensors and play it over DDS to the nodes, each a separate "
        "process. Print events as they are reported, and write DIR/report.html.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="output folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the simulation (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="speed of the player, 1 for real time (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo. Exit status 1 if a node fails, embeds nothing, or the input is wrong."""
    from sensebind.fusion.core.errors import SensebindError

    try:
        return run_demo(args.out, args.seed, args.rate)
    except (DemoError, SensebindError) as error:
        print(f"sensebind demo: {error}", file=sys.stderr)
        return 1


def run_demo(out: Path, seed: int, rate: float) -> int:
    """Simulate, play to the nodes, write the report and print the result. Raises `DemoError` if a node fails."""
    from sensebind.fusion.config.files import shipped_parameter_file

    try:
        import rclpy  # noqa: F401 - checked before the simulation, which takes half a minute
    except ImportError as error:
        raise DemoError("rclpy is not installed: source a ROS 2 installation, or run `make demo`") from error
    out.mkdir(parents=True, exist_ok=True)
    recording, config = out / "patrol", shipped_parameter_file("demo.yaml")
    truth = simulate_patrol(recording, seed)
    start = recording_start(recording)
    published = play_to_nodes(recording, config, out, rate, start)
    if not published.embeddings:
        raise DemoError(f"the embedder published no vector: see {out / 'embedder.log'}")
    print("received: " + ", ".join(f"{m} {count} (lost {published.lost[m]})" for m, count in published.arrived.items()))
    write_report(out, recording, config, published, truth)
    print_result(published.events, truth, start)
    print(f"report: {(out / 'report.html').resolve()}")
    return 0


def simulate_patrol(recording: Path, seed: int) -> list[GroundTruthEvent]:
    """Write the recording. Returns its ground truth."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.simulation import scenario
    from sensebind.simulation.recorder import record

    print(f"simulating a patrol: {recording}")
    began = time.monotonic()
    truth = record(
        scenario.read_scenario(shipped_parameter_file("scenarios/patrol.yaml"), seed), recording, overwrite=True
    )
    print(f"  {time.monotonic() - began:.0f} s")
    return truth


@dataclass(frozen=True)
class NodeOutputs:
    """The outputs of the nodes. `status`: name → key → value of the newest diagnostics. `arrived` and `lost`: number of
    messages of each modality, counted by the embedder."""

    embeddings: list[Embedding]
    events: list[Event]
    space: Any
    status: dict[str, dict[str, str]]
    arrived: dict[str, str]
    lost: dict[str, int]


def play_to_nodes(recording: Path, config: Path, out: Path, rate: float, start: int) -> NodeOutputs:
    """Play a recording to the nodes, each a separate process, and print events as they arrive.

    `start` (ns) is the start of the recording. Logs are written to `out`. Raises `DemoError` if a node fails.
    """
    import os

    import rclpy

    from sensebind.nodes.support.listener import Listener
    from sensebind.nodes.support.processes import node_process
    from sensebind.nodes.support.transport import isolated_environment

    environment = isolated_environment()
    os.environ.update(environment)  # for the listener in this process too
    with ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        listener = Listener(lambda event: print(format_event(event, start), flush=True))
        stack.callback(listener.destroy_node)

        def started(name: str, *arguments: str) -> Popen[bytes]:
            log = out / f"{name}.log"
            return stack.enter_context(node_process(name, ["--ros-args", *arguments], environment=environment, log=log))

        print("starting embedder and detector")
        nodes = {name: started(name, "--params-file", str(config)) for name in ("embedder", "detector")}
        spin_until(listener, nodes, out, listener.is_ready, STARTUP_TIMEOUT, "starting the nodes")
        print(f"playing at rate {rate:g}; events as they are reported:")
        given = {"recording": recording, "rate": rate, "delay": PLAYBACK_DELAY}
        player = started("player", *(part for name, value in given.items() for part in ("-p", f"{name}:={value}")))
        spin_until(listener, nodes, out, lambda: player.poll() is not None, 600 / rate, "playing")
        if player.returncode:
            raise DemoError(f"the player failed with exit status {player.returncode}: see {out / 'player.log'}")
        spin_for(listener, nodes, out, 2.5)  # the last windows close when their topics have had no message for a while
        # The detector publishes the end of each event that is still open when it stops.
        nodes.pop("detector").send_signal(signal.SIGINT)
        spin_for(listener, nodes, out, 1.5)
        return collect_outputs(listener)


def spin_until(
    listener: Listener,
    nodes: Mapping[str, Popen[bytes]],
    out: Path,
    until: Callable[[], bool],
    seconds: float,
    what: str,
) -> None:
    """Listen until `until()` is true. Raises `DemoError` if a node stops first, or after `seconds`; `what` names the
    step."""
    import rclpy

    deadline = time.monotonic() + seconds
    while not until():
        rclpy.spin_once(listener, timeout_sec=0.05)
        for name, process in nodes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} stopped with exit status {process.returncode}: see {out / f'{name}.log'}")
        if time.monotonic() > deadline:
            raise DemoError(f"{what} took over {seconds:.0f} s: see the logs in {out}")


def spin_for(listener: Listener, nodes: Mapping[str, Popen[bytes]], out: Path, seconds: float) -> None:
    """Listen for `seconds`. Raises `DemoError` if a node stops."""
    end = time.monotonic() + seconds
    spin_until(listener, nodes, out, lambda: time.monotonic() > end, 10, "the end")


def collect_outputs(listener: Listener) -> NodeOutputs:
    """The outputs that a listener has received."""
    from sensebind.fusion.core.samples import SENSOR_MODALITIES

    arrived = {m: listener.diagnostic_value(m, "arrived") for m in SENSOR_MODALITIES}
    lost = {
        m: sum(int(listener.diagnostic_value(m, key) or 0) for key in ("lost", "earlier")) for m in SENSOR_MODALITIES
    }
    status = {name: {pair.key: pair.value for pair in found.values} for name, found in listener.statuses.items()}
    return NodeOutputs(listener.embeddings, listener.events, listener.space, status, arrived, lost)


def recording_start(recording: Path) -> int:
    """Start of the recording in ns."""
    from sensebind.fusion.io.recordings import Recording

    with Recording(recording) as bag:
        return bag.start


def format_event(event: Event, start: int) -> str:
    """An event as one line of text."""
    modalities = ", ".join(evidence.modality for evidence in event.evidence if evidence.supports)
    return (
        f"  {(event.tick - start) / 1e9:6.1f} s  {event.phase.name:6}  {event.kind.name:12}  {event.label:20} "
        f"{event.score:.2f}  {modalities}"
    )


def write_report(
    out: Path, recording: Path, config: Path, published: NodeOutputs, truth: Sequence[GroundTruthEvent]
) -> None:
    """Write `out`/report.html from the outputs of the nodes and the recording."""
    from sensebind.fusion.core.samples import SENSOR_MODALITIES
    from sensebind.fusion.models import registry
    from sensebind.replay.session import Settings
    from sensebind.report import ReportData, similarities, write_report

    settings = Settings.read(config)
    previews, start, end = previews_of(recording, settings.embedder)
    text = registry.load_space(str(settings.embedder["space"]), modalities=["text"])
    prompts = {label: text.embed_text(phrases).numpy() for label, phrases in settings.prompts.items()}
    notes = ["Played over DDS to the nodes, each a separate process."]
    if silent := [m for m in SENSOR_MODALITIES if m not in published.space.modalities]:
        notes.append(f"This space has no encoder for {', '.join(silent)}: windows are counted, but not embedded.")
    data = ReportData(
        title="Simulated patrol",
        recording=recording.name,
        space=published.space.id,
        licence=published.space.licence,
        start=start,
        end=end,
        modalities={m: modality_statistics(published.status.get(f"sensebind: {m}", {})) for m in SENSOR_MODALITIES},
        similarities=similarities(published.embeddings, prompts),
        events=published.events,
        previews=previews,
        truth=[(t.onset, t.offset, t.label) for t in truth],
        notes=notes,
    )
    write_report(out / "report.html", data)


def previews_of(recording: Path, values: Mapping[str, Any]) -> tuple[SensorPreviews, int, int]:
    """(previews of the sensor data, start in ns, end in ns) of a recording. `values` are the embedder's parameters."""
    from sensebind.fusion.core.samples import Sample
    from sensebind.replay.session import open_replay
    from sensebind.report import SensorPreviews

    previews = SensorPreviews()
    with open_replay(recording, values) as replay:
        for sample in replay.samples():
            if isinstance(sample, Sample):
                previews.add(sample, replay.reader.calibration(sample.modality))
        return previews, replay.start, replay.end


def modality_statistics(status: Mapping[str, str]) -> dict[str, Any]:
    """A modality's diagnostics in the form of `ModalityStatistics.summary()`; 0 for missing values."""
    reasons = ("coverage", "encoding", "overload", "failure")
    return {
        "windows": int(status.get("windows", 0)),
        "embedded": int(status.get("embedded", 0)),
        "dropped": {reason: int(status[reason]) for reason in reasons if int(status.get(reason, 0))},
        "coverage_mean": float(status.get("coverage_mean", 0)),
        "latency_ms": {"p50": float(status.get("latency_p50_ms", 0)), "p99": float(status.get("latency_p99_ms", 0))},
    }


def print_result(events: Any, truth: Any, start: int) -> None:
    """Print the truth with the onset of the first matching event of each item, then the false alarms."""
    from sensebind.fusion.core.events import EventKind, EventPhase

    print("truth and detections:")
    onsets = [e for e in events if e.phase is EventPhase.ONSET and e.kind is EventKind.PROMPT]
    labels = {t.label for t in truth}
    for item in truth:
        hits = [
            (e.onset - start) / 1e9
            for e in onsets
            if e.label == item.label and item.onset - 2 <= (e.onset - start) / 1e9 <= item.offset + 2
        ]
        result = f"detected, onset at {hits[0]:.1f} s" if hits else "not detected"
        print(f"  {item.onset:6.1f} to {item.offset:6.1f} s  {item.label:20} {result}")
    others = [e for e in onsets if e.label not in labels]
    if others:
        print("  false alarms: " + ", ".join(f"{e.label} at {(e.onset - start) / 1e9:.1f} s" for e in others))
