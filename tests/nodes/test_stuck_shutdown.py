"""A signal ends every node within 10 s, also one that is stuck: with its exit status, without processes and files."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.ros_processes import PATIENCE, Executable, Peer, parameter_arguments, peer, ros_environment
from helpers.stuck_spaces import with_stuck_space
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages

LIMIT = 10.0  # s, as documented; launch sends SIGKILL after that
SHARED = Path("/dev/shm")
ROBOTS = {"robots": ["r1", "r2"], "workers": 2}
FULL = {"queue_size": 200, "deadline": 0.0}  # no window is dropped
PROGRAM = """
import sys
from helpers.stuck_spaces import wait_for_ever
from rclpy.node import Node
from sensebind.nodes.support import run

class StuckNode(Node):
    def __init__(self):
        super().__init__("stuck")

def serve(node, stop):
    print("stuck", flush=True)
    wait_for_ever()

run.EXIT_TIMEOUT = 0.5
sys.exit(run.run_node("stuck", StuckNode, serve=serve))
"""


def mapped_files(pid: int) -> set[str]:
    """The names of the shared memory that a process uses."""
    return set(re.findall(rf"{SHARED}/(fastdds_[0-9a-f]+)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE))


def processes_of(pid: int) -> list[int]:
    """The process and its children."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def assert_ends(process: Executable, number: int, status: int) -> None:
    """Send a signal to the process. It must end with `status`, and leave no process and no shared memory."""
    ids, began = processes_of(process.pid), time.monotonic()
    own = set.union(*map(mapped_files, ids)) - mapped_files(os.getpid())
    assert process.stop(number, timeout=LIMIT) == status, process.output
    took = time.monotonic() - began
    assert took < LIMIT * PATIENCE
    print(f"{took:.1f} s")  # shown by `pytest -s`
    assert not [pid for pid in ids if Path(f"/proc/{pid}").exists()]
    assert not [name for name in sorted(own) if (SHARED / name).exists()]
    assert "Traceback" not in process.output


@pytest.mark.skipif(not SHARED.exists(), reason="the shared memory of Linux")
def test_a_process_that_is_stuck_in_a_library_ends_after_its_signal() -> None:
    environment = ros_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment["PYTHONPATH"]])
    process = Executable([sys.executable, "-c", PROGRAM], environment)
    try:
        process.wait_for_output("stuck")
        assert_ends(process, signal.SIGTERM, 1)
        assert "did not end in 0.5 s after SIGTERM" in process.lines[-1]
    finally:
        process.kill()


@contextmanager
def readings(me: Peer, topic: str) -> Iterator[None]:
    """Publish IMU readings at 100 Hz while the node of the test is spun."""
    from sensebind.nodes.support.message_types import message_type

    publisher = me.publisher(messages.IMU_TYPE, topic, 1000)

    def publish() -> None:
        message = message_type(messages.IMU_TYPE)()
        now = me.node.get_clock().now().nanoseconds
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, SECOND)
        message.linear_acceleration.z = 9.81
        publisher.publish(message)

    me.wait_for_subscribers(publisher, timeout=60)
    timer = me.node.create_timer(0.01, publish)
    yield
    me.node.destroy_timer(timer)


def idle(me: Peer, process: Executable) -> None:
    process.wait_for_output("imu: subscribed", 60)


def stuck(moment: str) -> Callable[[Peer, Executable], None]:
    return lambda me, process: process.wait_for_output(f"stuck at {moment}", 60)


def busy(topic: str, moment: str = "") -> Callable[[Peer, Executable], None]:
    """Wait until the embedder has work, or is stuck at a moment."""

    def wait(me: Peer, process: Executable) -> None:
        with readings(me, topic):
            me.spin(3.0)
            me.wait_until(lambda: f"stuck at {moment}" in process.output or not moment, 60, "the moment")

    return wait


def asked(me: Peer, process: Executable) -> None:
    """Request the vectors of as many phrases as are allowed."""
    from sensebind.nodes.support.message_types import message_type

    type_ = message_type(messages.EMBED_TEXT_TYPE)
    client = me.node.create_client(type_, "embed_text")
    me.wait_until(client.service_is_ready, 60, "the service")
    client.call_async(type_.Request(texts=[f"phrase {number}" for number in range(256)]))
    me.wait_until(lambda: "stuck at text" in process.output, 60, "the request")


@pytest.mark.slow  # the quick siblings: above, and `test_a_stuck_device_blocks_neither_removal_nor_the_end`
@pytest.mark.skipif(not SHARED.exists(), reason="the shared memory of Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "more", "wait", "status"),
    [
        pytest.param("never", {}, idle, 0, id="idle"),
        pytest.param("load", {}, stuck("load"), 1, id="loads its weights"),
        pytest.param("slow", FULL, busy("imu"), 1, id="more data than it can embed"),
        pytest.param("embed", {}, busy("imu", "embed"), 1, id="a batch never ends"),
        pytest.param("text", {}, asked, 0, id="a phrase never ends"),
        pytest.param("never", ROBOTS, idle, 0, id="idle workers"),
        pytest.param("slow", {**ROBOTS, **FULL}, busy("r1/imu"), 1, id="more data than workers can embed"),
        pytest.param("embed", ROBOTS, busy("r1/imu", "embed"), 1, id="a batch of workers never ends"),
    ],
)
def test_an_embedder_ends_within_ten_seconds_of_its_signal(
    moment: str,
    more: dict[str, Any],
    wait: Callable[[Peer, Executable], None],
    status: int,
    number: int,
    tmp_path: Path,
) -> None:
    environment = with_stuck_space(tmp_path, ros_environment("sensebind_msgs"))
    values = {"device": "cpu", "space": "stuck", "weights": moment, "modalities": ["imu"], "imu.hop": 0.1, **more}
    command = [sys.executable, "-m", "sensebind.nodes.embedder", *parameter_arguments(values)]
    process = Executable(command, environment)
    try:
        with peer(environment) as me:
            wait(me, process)
            assert_ends(process, number, status)
    finally:
        process.kill()


@pytest.mark.slow  # the quick sibling: test_interrupts
@pytest.mark.skipif(not SHARED.exists(), reason="the shared memory of Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("node", ["detector", "bridge", "event_recorder", "player"])
def test_each_other_node_ends_within_ten_seconds_of_its_signal(node: str, number: int, tmp_path: Path) -> None:
    from helpers.patrols import record_patrol

    arguments, values = [], dict[str, Any]()
    if node == "player":
        record_patrol(tmp_path / "bag", duration=1.0)
        arguments, values = [str(tmp_path / "bag")], {"loop": True}
    if node == "bridge":
        values = {"address": f"ipc://{tmp_path}/socket"}
    environment = ros_environment("sensebind_msgs")
    command = [sys.executable, "-m", f"sensebind.nodes.{node}", *arguments, *parameter_arguments(values)]
    process = Executable(command, environment)
    try:
        with peer(environment) as me:
            me.wait_until(lambda: node in me.node.get_node_names(), 60, "the node")
            me.spin(1.0)
            assert_ends(process, number, 0)
    finally:
        process.kill()
    assert not (tmp_path / "socket").exists()
