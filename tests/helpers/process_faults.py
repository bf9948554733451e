"""Faults of processes and of simulated time, at running nodes: a table of causes, documented outcomes and checks."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.diagnostic_statuses import OK, STALE
from helpers.fault_runs import FaultRun, Publisher
from helpers.ros_services import NodeServices
from helpers.sensor_publisher import RATES, TOPICS
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages

STOPPED = "fault:embeddings:stopped"
PAUSE, LONG_PAUSE = 2.5, 4.0  # s; after 2.7 s the detector reports that embeddings stopped

Check = Callable[[FaultRun], tuple[float, list[str]]]


@dataclass(frozen=True, slots=True)
class ProcessFault:
    """`check` causes the fault and returns the time of recovery in s, and what was not as documented."""

    description: str
    outcome: str
    check: Check


def publisher_killed(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    run.publisher.process.kill()
    run.me.spin(2.5)
    problems = not_seen(run, began, [f"embedder: {sensor}" for sensor in RATES], STALE, "no messages arrive")
    for sensor, topic in TOPICS.items():  # nobody knows how many messages were under way
        status = run.sensor(sensor)
        run.earlier[topic] = sum(map(status.count, ("arrived", "lost", "earlier")))
    run.publisher = Publisher(run.environment)
    run.me.wait_until(lambda: bool(run.publisher.answers()), 30, "the new publisher")
    return run.recovered(run.publisher.answers()[0]), problems


def publisher_paused(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    pause(run, run.publisher.process, PAUSE)
    run.command()  # forgets the time of the pause
    problems = not_seen(run, began, [f"embedder: {sensor}" for sensor in RATES], STALE, "no messages arrive")
    recovery = run.recovered(run.command())
    run.me.spin(2.2)  # the second status after it
    said = {s.message for sensor in RATES for s in run.statuses(f"embedder: {sensor}", began) if "clock" in s.message}
    return recovery, problems + sorted(said)


def embedder_paused(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    pause(run, run.nodes["embedder"], LONG_PAUSE)
    recovery = run.recovered(run.command())
    run.me.wait_until(lambda: phases(run, began, STOPPED) == [0, 2], 20, f"the end of {STOPPED}")
    return recovery, []


def detector_paused(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    pause(run, run.nodes["detector"], PAUSE)
    ended = run.command()
    problems = unharmed(run, began, run.now())
    wait_for_status(run, "detector: events", began, lambda s: s.count("stalls") >= 1)
    after = [at for at, message in run.embeddings[FUSED] if at > ended["at"]]
    run.me.spin(1.0)
    return (after[0] if after else run.now()) - ended["at"], [*problems, *fault_events(run, began)]


def bridge_paused(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    before = len(run.reader.messages)
    pause(run, run.nodes["bridge"], PAUSE)
    ended = run.now()
    run.me.wait_until(lambda: run.reader.newest > ended, 20, "messages of the bridge")
    recovery = run.reader.newest - ended
    run.me.spin(0.5)
    problems = [] if not run.reader.gaps(before) else [f"the reader has gaps: {run.reader.gaps(before)}"]
    return recovery, problems + unharmed(run, began, run.now())


def detector_killed(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    run.nodes["detector"].kill()
    run.me.spin(1.0)
    run.start("detector")
    run.wait_for_output("detector", "events from")
    ended = run.now()
    problems = unharmed(run, began, ended)
    at = wait_for_status(run, "detector: events", ended, lambda s: s.level == OK and s.count("ticks") > 0)
    return at - ended, problems


def bridge_killed(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    run.nodes["bridge"].kill()
    run.me.spin(1.0)
    run.start("bridge")
    run.wait_for_output("bridge", "publishing on")
    ended, before = run.now(), len(run.reader.messages)
    run.me.wait_until(lambda: len(run.reader.messages) > before, 20, "messages of the new bridge")
    recovery = run.reader.newest - ended
    problems = unharmed(run, began, run.now())
    if run.reader.messages[before][2] > 2:
        problems.append(f"the first message has the sequence {run.reader.messages[before][2]}")
    return recovery, problems


def embedder_killed(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    run.nodes["embedder"].kill()
    wait_for_status(run, "detector: events", began, lambda s: s.level == STALE and "no embeddings arrive" in s.message)
    answer = restarted_embedder(run)
    recovery = run.recovered(answer)
    run.me.wait_until(lambda: phases(run, began, STOPPED) == [0, 2], 20, f"the end of {STOPPED}")
    return recovery, []


def embedder_killed_in_embed_text(run: FaultRun) -> tuple[float, list[str]]:
    """The detector has asked for the vector of a new phrase, and gets no answer any more."""
    began = run.now()
    run.nodes["embedder"].signal(signal.SIGSTOP)
    services = NodeServices(run.me, "/detector")
    assert services.set("prompts.cat", ["a cat meows"]) == ""
    wait_for_status(run, "detector: events", began, lambda s: "waiting for the embedder's embed_text" in s.message)
    run.nodes["embedder"].kill()
    answer = restarted_embedder(run)
    at = wait_for_status(run, "detector: events", answer["at"], lambda s: s.message.startswith("2 prompts"))
    assert services.set("prompts.cat", []) == ""
    return max(at - answer["at"], run.recovered(answer)), []


def simulated_forward(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    recovery = run.recovered(run.command(clock=30.0))
    run.me.spin(1.2)  # a status after it
    return recovery, [f"{s}: no restart" for s in RATES if run.counted(s, began)["restarts"] < 1]


def simulated_back(run: FaultRun) -> tuple[float, list[str]]:
    began, line = run.now(), "the clock jumped back"
    recovery = run.recovered(run.command(clock=-100.0))
    run.me.spin(1.2)  # a status after it
    problems = [f"{s}: no restart" for s in RATES if run.counted(s, began)["restarts"] < 1]
    for name in ("embedder", "detector"):
        if line not in run.nodes[name].output:
            problems.append(f"the log of the {name} does not say '{line}'")
    return recovery, problems


def simulated_pause(run: FaultRun) -> tuple[float, list[str]]:
    began = run.now()
    answer = run.command(20, clock_pause=4.0)
    recovery = run.recovered(answer)
    problems = fault_events(run, began)
    if not any("/clock stands still" in s.message for s in run.statuses("detector: events", began)):
        problems.append("the detector does not report that /clock stands still")
    return recovery, problems


PROCESS_FAULTS: Mapping[str, ProcessFault] = {
    "publisher_paused": ProcessFault(
        "the drivers do not run for 2.5 s (SIGSTOP)",
        "STALE meanwhile; it is not reported as a clock that was set",
        publisher_paused,
    ),
    "embedder_paused": ProcessFault(
        "the embedder does not run for 4 s (SIGSTOP)",
        "event `fault:embeddings:stopped`, which ends; the messages that waited are used, others are `lost`",
        embedder_paused,
    ),
    "embedder_killed": ProcessFault(
        "the embedder is killed, and started again",
        "the detector is STALE, event `fault:embeddings:stopped`, which ends when embeddings arrive again",
        embedder_killed,
    ),
    "embedder_killed_in_embed_text": ProcessFault(
        "the embedder is killed while it embeds a phrase for the detector",
        "the detector is WARN, and asks the new embedder",
        embedder_killed_in_embed_text,
    ),
    "detector_paused": ProcessFault(
        "the detector does not run for 2.5 s (SIGSTOP): a reliable subscriber that does not read",
        "the embedder is not delayed; then the detector uses all that waited, `stalls` counts, no fault event",
        detector_paused,
    ),
    "detector_killed": ProcessFault(
        "the detector is killed, and started again",
        "the embedder is not delayed; the new detector begins without a past",
        detector_killed,
    ),
    "bridge_paused": ProcessFault(
        "the bridge does not run for 2.5 s (SIGSTOP)",
        "the embedder is not delayed; clients receive what waited, without a gap in `sequence`",
        bridge_paused,
    ),
    "bridge_killed": ProcessFault(
        "the bridge is killed, and started again at the same address",
        "clients are connected again by ZeroMQ; `sequence` starts at 0",
        bridge_killed,
    ),
    "publisher_killed": ProcessFault(
        "the drivers are killed, and started again 2.5 s later",
        "STALE meanwhile; the new ones are used from their first message on, messages before it count as `earlier`",
        publisher_killed,
    ),
}
SIMULATED_TIME_FAULTS: Mapping[str, ProcessFault] = {
    "clock_jumps_forward": ProcessFault(
        "`use_sim_time`: /clock and the stamps jump forward by 30 s",
        "windowing starts again (`restarts`)",
        simulated_forward,
    ),
    "clock_jumps_back": ProcessFault(
        "`use_sim_time`: /clock and the stamps jump back by 100 s, as in a bag that starts again",
        "windowing and event tracking start again (`restarts`), and the logs say so",
        simulated_back,
    ),
    "clock_stands_still": ProcessFault(
        "`use_sim_time`: /clock and the sensors stand still for 4 s, as in a simulation that is paused",
        "the detector reports `/clock stands still`; no fault event",
        simulated_pause,
    ),
}


# --- what the checks share


def pause(run: FaultRun, process: Any, seconds: float) -> None:
    """Stop a process for a time, during which callbacks are served."""
    process.signal(signal.SIGSTOP)
    try:
        run.me.spin(seconds)
    finally:
        process.signal(signal.SIGCONT)


def restarted_embedder(run: FaultRun) -> dict[str, Any]:
    """Start the embedder again. Returns the answer of the publisher when it was ready."""
    run.forget_embedder()
    run.start("embedder")
    run.wait_for_output("embedder", "audio: subscribed to")
    return run.command()


def unharmed(run: FaultRun, began: float, ended: float) -> list[str]:
    """What the embedder did not do in this time as without a fault, by the stamps of its vectors: while nodes start,
    the middleware delivers them to this one late."""
    shift = time.time() - time.monotonic()  # the stamps are of the clock of the system

    def ticks() -> list[float]:
        found = [message for _, message in run.embeddings[FUSED] if set(message.sources) == set(RATES)]
        return [messages.stamp_to_ns(message.header.stamp) / SECOND - shift for message in found]

    run.me.wait_until(lambda: max(ticks(), default=0.0) > ended, 10, "the vectors after the fault")
    inside = [tick for tick in ticks() if began < tick <= ended]
    expected = int(2 * (ended - began)) - 1
    return [] if len(inside) >= expected else [f"{len(inside)} of {expected} ticks were fused"]


def not_seen(run: FaultRun, since: float, names: Sequence[str], level: bytes, text: str) -> list[str]:
    """The components that did not report this."""
    return [
        f"{name}: no status with '{text}'"
        for name in names
        if not any(s.level == level and text in s.message for s in run.statuses(name, since))
    ]


def phases(run: FaultRun, since: float, label: str) -> list[int]:
    """The phases of an event, without its updates."""
    return [message.phase for at, message in run.events if at > since and message.label == label and message.phase != 1]


def fault_events(run: FaultRun, since: float) -> list[str]:
    """The fault events that began, where none should."""
    found = {
        message.label
        for at, message in run.events
        if at > since and message.label.startswith("fault:") and message.phase == 0
    }
    return [f"the detector reports {', '.join(sorted(found))}"] if found else []


def wait_for_status(run: FaultRun, name: str, since: float, condition: Callable[[Any], bool]) -> float:
    """Wait for such a status of a component. Returns its time of arrival."""

    def found() -> list[float]:
        return [status.arrived_at for status in run.statuses(name, since) if condition(status)]

    run.me.wait_until(lambda: bool(found()), 20, f"a status of {name}, not {run.statuses(name)[-1:]}")
    return found()[0]
