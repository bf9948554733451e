"""`sensebind demo`: plays a simulated patrol to the nodes, or replays it offline, and reports what is detected."""

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

from sensebind.commands.arguments import seed_number

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from subprocess import Popen

    from sensebind.fusion.core.embeddings import Embedding
    from sensebind.fusion.core.events import Event
    from sensebind.fusion.core.space import Space
    from sensebind.nodes.support.listener import Listener
    from sensebind.replay.session import Settings
    from sensebind.report import ReportData, SensorPreviews, TrueEvent
    from sensebind.simulation.recorder import GroundTruthEvent

CONFIG, SCENARIO = "demo.yaml", "scenarios/patrol.yaml"
REQUIRED_MARGIN = 0.1  # of the peak score of a detected event over the onset threshold
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
        "process. Print events as they are reported, and write DIR/report.html and DIR/summary.json. The exit status "
        "is 1 if a true event is missed.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="output folder (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="random seed of the simulation (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="speed of the player, 1 for real time (default: %(default)s)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="replay the patrol in this process, as fast as possible, without ROS"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N",
        help="number of patrols, with the seeds from --seed on, each in its own folder; implies --offline (default: 1)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the demo. Exit status 1 if a true event is missed, a node fails, embeds nothing, or the input is wrong."""
    from sensebind.fusion.core.errors import SensebindError

    try:
        if args.offline or args.seeds != 1:
            return run_offline(args.out, range(args.seed, args.seed + args.seeds))
        return run_demo(args.out, args.seed, args.rate)
    except (DemoError, SensebindError) as error:
        print(f"sensebind demo: {error}", file=sys.stderr)
        return 1


def run_demo(out: Path, seed: int, rate: float) -> int:
    """Simulate, play to the nodes, write the report and print the result. Returns the exit status. Raises `DemoError`
    if a node fails."""
    from sensebind.fusion.config.files import shipped_parameter_file

    try:
        import rclpy  # noqa: F401 - checked before the simulation, which takes half a minute
    except ImportError as error:
        raise DemoError(
            "rclpy is not installed: source a ROS 2 installation, run `make demo`, or add --offline"
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    recording, config = out / "patrol", shipped_parameter_file(CONFIG)
    truth = simulate_patrol(recording, seed)
    start = recording_start(recording)
    published = play_to_nodes(recording, config, out, rate, start)
    if not published.embeddings:
        raise DemoError(f"the embedder published no vector: see {out / 'embedder.log'}")
    print("received: " + ", ".join(f"{m} {count} (lost {published.lost[m]})" for m, count in published.arrived.items()))
    data = write_results(out, recording, config, published, truth)
    found = print_result(data)
    print(f"report: {(out / 'report.html').resolve()}")
    return exit_status(found)


def run_offline(out: Path, seeds: Sequence[int]) -> int:
    """Simulate and replay a patrol for each seed, write its results and print them. Returns the exit status."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.replay.session import Settings

    settings = Settings.read(shipped_parameter_file(CONFIG))
    space = settings.space()
    found: list[TrueEvent] = []
    for seed in seeds:
        folder = out if len(seeds) == 1 else out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        found += print_result(replay_patrol(folder, seed, settings, space))
        print(f"report: {(folder / 'report.html').resolve()}")
    if len(seeds) > 1:
        print(f"all {len(seeds)} patrols: {result_summary(found)}")
    return exit_status(found)


def replay_patrol(out: Path, seed: int, settings: Settings, space: Space) -> ReportData:
    """Simulate a patrol and replay it offline. Write `out`/patrol, `out`/outputs, `out`/summary.json and
    `out`/report.html."""
    from sensebind.replay.progress import progress
    from sensebind.replay.session import open_replay
    from sensebind.report.replay_output import write_replay

    recording = out / "patrol"
    truth = [(t.onset, t.offset, t.label) for t in simulate_patrol(recording, seed)]
    with open_replay(recording, settings.embedder) as replay, progress("replay", replay.seconds) as shown:
        return write_replay(replay, settings, space, out, overwrite=True, truth=truth, progress=shown.reach).data


def simulate_patrol(recording: Path, seed: int) -> list[GroundTruthEvent]:
    """Write the recording. Returns its ground truth."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.replay.progress import progress
    from sensebind.simulation import scenario
    from sensebind.simulation.recorder import record

    print(f"simulating a patrol with seed {seed}: {recording}", flush=True)
    began = time.monotonic()
    plan = scenario.read_scenario(shipped_parameter_file(SCENARIO), seed)
    with progress("simulating", plan.duration) as shown:
        truth = record(plan, recording, overwrite=True, progress=shown.reach)
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
        parameters = ("--params-file", str(config))
        nodes = {
            "embedder": started("embedder", *parameters),
            # With the simulated clock, the end of the recording is no failure of the embedder.
            "detector": started("detector", *parameters, "-p", "use_sim_time:=true"),
        }
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
    return (
        f"  {(event.tick - start) / 1e9:6.1f} s  {event.phase.name:6}  {event.kind.name:12}  {event.label:20} "
        f"{event.score:.2f}  {', '.join(event.supporting_sensors)}"
    )


def write_results(
    out: Path, recording: Path, config: Path, published: NodeOutputs, truth: Sequence[GroundTruthEvent]
) -> ReportData:
    """Write `out`/report.html and `out`/summary.json from the outputs of the nodes and the recording. Returns their
    data."""
    from sensebind.fusion.core.samples import SENSOR_MODALITIES
    from sensebind.fusion.models import registry
    from sensebind.replay.session import Settings
    from sensebind.report import ReportData, similarities, write_report, write_summary

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
        modalities={m: modality_statistics(published.status.get(m, {})) for m in SENSOR_MODALITIES},
        similarities=similarities(published.embeddings, prompts),
        events=published.events,
        previews=previews,
        truth=[(t.onset, t.offset, t.label) for t in truth],
        notes=notes,
        onset_thresholds=settings.onset_thresholds,
    )
    write_report(out / "report.html", data)
    write_summary(out / "summary.json", data)
    return data


def previews_of(recording: Path, values: Mapping[str, Any]) -> tuple[SensorPreviews, int, int]:
    """(previews of the sensor data, start in ns, end in ns) of a recording. `values` are the embedder's parameters."""
    from sensebind.fusion.core.samples import Sample
    from sensebind.replay.session import open_replay
    from sensebind.report import SensorPreviews

    previews = SensorPreviews()
    with open_replay(recording, values) as replay:
        for sample in replay.samples():
            if isinstance(sample, Sample):
                previews.add(sample, replay.reader.calibration(sample.sensor))
        return previews, replay.start, replay.end


def modality_statistics(status: Mapping[str, str]) -> dict[str, Any]:
    """A modality's diagnostics in the form of `SensorStatistics.summary()`; 0 for missing values."""
    reasons = ("coverage", "encoding", "overload", "failure")
    return {
        "windows": int(status.get("windows", 0)),
        "embedded": int(status.get("embedded", 0)),
        "dropped": {reason: int(status[reason]) for reason in reasons if int(status.get(reason, 0))},
        "coverage_mean": float(status.get("coverage_mean", 0)),
        "latency_ms": {"p50": float(status.get("latency_p50_ms", 0)), "p99": float(status.get("latency_p99_ms", 0))},
    }


def print_result(data: ReportData) -> list[TrueEvent]:
    """Print each true event with its detection, then the false alarms and the margins. Returns the true events."""
    from sensebind.fusion.core.events import EventKind, EventPhase
    from sensebind.report import true_events
    from sensebind.report.summary import ONSET_TOLERANCE

    found = true_events(data.truth or (), data.events, data.start, data.onset_thresholds)
    print("truth and detections:")
    for item in found:
        print(f"  {item.onset:6.1f} to {item.offset:6.1f} s  {item.label:10} {detection_text(item)}")
    onsets = [
        (e.label, (e.onset - data.start) / 1e9)
        for e in data.events
        if e.phase is EventPhase.ONSET and e.kind is EventKind.PROMPT
    ]
    false = [
        f"{label} at {at:.1f} s"
        for label, at in onsets
        if not any(label == t.label and t.onset - ONSET_TOLERANCE <= at <= t.offset for t in found)
    ]
    if false:
        print(f"  false alarms: {', '.join(false)}")
    print(f"  {result_summary(found)}")
    return found


def detection_text(item: TrueEvent) -> str:
    """The detection of a true event as text: error of the onset, margin, and the modalities by their role."""
    if not item.detected:
        return "missed"
    parts = [f"detected, onset {item.onset_error or 0:+.2f} s"]
    parts += [] if item.margin is None else [f"margin {item.margin:.2f}"]
    for role in dict.fromkeys(role for _, role in item.modalities):
        parts.append(f"{role}: " + " ".join(modality for modality, own in item.modalities if own == role))
    return ", ".join(parts)


def result_summary(found: Sequence[TrueEvent]) -> str:
    """The number of detected events, of those that a second modality supports, and the smallest margin."""
    text = f"{sum(item.detected for item in found)} of {len(found)} detected"
    text += f", {sum(item.corroborated for item in found)} of them by two modalities or more"
    margins = [item.margin for item in found if item.margin is not None]
    return text + (f"; smallest margin {min(margins):.2f} (required: {REQUIRED_MARGIN:g})" if margins else "")


def exit_status(found: Sequence[TrueEvent]) -> int:
    """1 if a true event was missed, else 0."""
    return int(any(not item.detected for item in found))
