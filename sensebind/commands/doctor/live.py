"""`sensebind doctor --live`: the accounting identity of sensors and topics of running nodes, from their diagnostics."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from sensebind.fusion.core.errors import SensebindError, printable
from sensebind.fusion.stream.accounting.identity import COUNTERS, Account, accounts
from sensebind.fusion.stream.accounting.topics import NOT_ENDS, REFUSED, topic_accounts

NO_ROS = "--live reads /diagnostics, which needs ROS 2: source its setup file, or see `sensebind doctor`"
NO_NODE = (
    "no node of Sensebind answered in {seconds:g} s: start one and activate it, and use its "
    "ROS_DOMAIN_ID (now {domain}) and ROS_AUTOMATIC_DISCOVERY_RANGE"
)
MAX_STATUSES = 1000  # sensors and topics of nodes that are kept: any process can publish
MAX_ENDS = 100  # names of counts of a topic
MAX_TEXT = 200  # characters of a name
MAX_COUNT = 2**63  # no counter is larger
LARGE_LOSS = 0.05  # fraction of a line: a cause with more is explained
NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
# Topic and name of a count: ``embeddings/front: refused.not_finite``.
TOPIC_COUNT = re.compile(
    rf"([A-Za-z0-9_/ ]{{1,200}}): ({'|'.join(NOT_ENDS)}|(?:used|refused|dropped)\.[a-z_]{{1,40}})", re.ASCII
)
ESTIMATED = {"lost": "lost (estimate)", "earlier": "before the first (estimate)"}
REFUSALS = "docs/guides/lifecycle.md#what-is-refused"
LOSSES, LOAD = "docs/guides/reading-recordings.md#what-is-not-used", "docs/guides/troubleshooting.md"
REMEDIES = {  # cause → what to do
    "lost": f"the middleware loses messages: larger buffers, see `sensebind doctor` and {LOAD}",
    "undecodable": "messages cannot be read: the status of the sensor in /diagnostics names the parameter to set",
    "side_undecodable": "messages that describe the sensor cannot be read: see its status in /diagnostics",
    "unstamped": "the driver sets no stamps: set <sensor>.stamps: received",
    "clock": "its clock is not that of the other sensors: synchronise it, or set <sensor>.stamps: received",
    "outlier": "its stamps jump: set <sensor>.stamps: received",
    "too_late": "messages come after their windows have closed: raise <sensor>.lateness",
    "overflow": "more readings arrive than <sensor>.max_rate allows, or more data than memory_limit_mb: raise it",
    "coverage": "windows have too little data: messages are missing, or <sensor>.min_coverage is too high",
    "overload": f"the device is too slow for these sensors: raise hop, or use a smaller space, see {LOAD}",
    "expired": f"the device is too slow for these sensors: raise hop, or use a smaller space, see {LOAD}",
    "encoding": "data of windows cannot be decoded: the status of the sensor in /diagnostics says why",
    "failure": "the space or the device fails: the status of the sensor in /diagnostics says why",
    "no_encoder": "the space has no encoder for this modality: remove it from 'modalities', or choose another space",
    "unfused": "this sensor is behind the others: raise fusion_timeout, or synchronise its clock",
    "late": f"embeddings come after their tick: raise the detector's tick_timeout, or see {LOAD}",
    "time": "stamps of embeddings are far from those of the others: stop the other publisher of embeddings",
    "after_stall": "the detector did not run for a time: its computer is too busy",
    "other_space": "vectors are of another space than the embedder's: stop the other publisher of embeddings",
    "not_ready": "the detector has no vectors of its phrases: start the embedder, whose embed_text makes them",
    "failed": "an error in the detectors: the log of the detector names it, please report it",
    "queue_full": "a client of the bridge reads too slowly: see client_queue_size in docs/bridge.md",
    "unavailable": "no recorder offers the snapshot service: see docs/guides/recording.md",
}


def count_of(text: Any) -> int | None:
    """A counter in a status; None if the text is none."""
    if not isinstance(text, str) or not NUMBER.fullmatch(text) or int(text) >= MAX_COUNT:
        return None
    return int(text)


def counters_of(status: Any) -> dict[str, dict[str, int]]:
    """The counters in a status that are valid: those of its sensor at "", those of each topic at its name. Any message
    is accepted."""
    found: dict[str, dict[str, int]] = {}
    for pair in status.values:
        topic, name = "", str(pair.key)
        if name not in COUNTERS:
            matched = TOPIC_COUNT.fullmatch(name)
            if matched is None or (matched[1] not in found and len(found) >= MAX_STATUSES):
                continue
            topic, name = matched[1], matched[2]
        count = count_of(pair.value)
        counts = found.setdefault(topic, {})
        if count is not None and (name in counts or topic == "" or len(counts) < MAX_ENDS):
            counts[name] = count
    return found


def lines_of(counts: Mapping[str, int]) -> list[Account]:
    """The lines of the identity in the counters of a sensor, or of a topic. None for any others."""
    if all(name in counts for name in COUNTERS):
        return accounts(counts)
    return topic_accounts(counts) if all(name in counts for name in NOT_ENDS) else []


def remedy(cause: str) -> str:
    """What to do about a cause; empty if nothing."""
    return (
        f"other programs send what cannot be used, see {REFUSALS}"
        if cause.startswith(REFUSED)
        else REMEDIES.get(cause, "")
    )


def line_text(line: Account) -> str:
    """A line of the table, with the causes that dropped something. What is lost is named an estimate."""
    parts = [f"{name} {count}" for name, count in line.used.items() if count or len(line.used) == 1]
    parts += [f"{ESTIMATED.get(cause, cause)} {count}" for cause, count in line.dropped.items() if count]
    parts += [f"waiting {line.waiting}"] if line.waiting else []
    parts += [f"UNACCOUNTED {line.unaccounted}"] if line.unaccounted else []
    return f"  {line.name:<10} {line.total:>9} = {' + '.join(parts) or 0}"


def report(statuses: Mapping[str, Mapping[str, int]]) -> tuple[list[str], bool]:
    """The table of all sensors and topics, and whether everything is accounted for. `statuses`: name → counters."""
    text, causes, all_accounted = list[str](), dict[str, None](), True
    for name, counts in sorted(statuses.items()):
        lines = lines_of(counts)
        if lines:
            text += [printable(name, MAX_TEXT), *(line_text(line) for line in lines)]
        for line in lines:
            all_accounted &= not line.unaccounted
            causes |= {cause: None for cause, n in line.dropped.items() if n > LARGE_LOSS * line.total}
    if remedies := [f"  {cause}: {remedy(cause)}" for cause in causes if remedy(cause)]:
        text += [f"large losses (all causes: {LOSSES}):", *remedies]
    if not all_accounted:
        text.append("UNACCOUNTED: counters do not add up, which is a fault of Sensebind: please report this output")
    return text, all_accounted


class LiveStatuses:
    """The newest counters of each sensor and topic of nodes of Sensebind. `add` accepts any message."""

    def __init__(self) -> None:
        self.statuses: dict[str, dict[str, int]] = {}

    def add(self, message: Any) -> None:
        """Keep the counters of a `DiagnosticArray`."""
        for status in message.status:
            for topic, counts in counters_of(status).items():
                name = f"{status.name}, {topic}" if topic else str(status.name)
                if lines_of(counts) and (name in self.statuses or len(self.statuses) < MAX_STATUSES):
                    self.statuses[name] = counts


def received_statuses(seconds: float) -> dict[str, dict[str, int]]:
    """The newest counters of sensors and topics after `seconds` of diagnostics. Raises `SensebindError` without ROS."""
    try:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.context import Context
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        from rclpy.node import Node
    except (ImportError, OSError) as error:
        raise SensebindError(f"{NO_ROS} ({printable(str(error), MAX_TEXT)})") from error
    found, context = LiveStatuses(), Context()
    try:
        rclpy.init(args=[], context=context)
        node = Node(f"sensebind_doctor_{os.getpid()}", context=context, enable_rosout=False, use_global_arguments=False)
    except Exception as error:  # of the middleware: a wrong domain, no network
        raise SensebindError(f"ROS cannot be used here: {printable(str(error), MAX_TEXT)}") from error
    try:
        node.create_subscription(DiagnosticArray, "/diagnostics", found.add, 100)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left, 0.2))
    except ExternalShutdownException:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    return found.statuses


def check_live(seconds: float) -> int:
    """Print the table of the running nodes. Returns the exit status: 1 if anything is unaccounted or no node answered.
    Raises `SensebindError` without ROS."""
    statuses = received_statuses(seconds)
    if not statuses:
        print(NO_NODE.format(seconds=seconds, domain=printable(os.environ.get("ROS_DOMAIN_ID", "0"), MAX_TEXT)))
        return 1
    text, all_accounted = report(statuses)
    print("\n".join(text), flush=True)
    return 0 if all_accounted else 1
