"""Real nodes for tests: each runs in a separate process, in a ROS domain that no other test uses.

with running("player", str(bag), environment=ros_environment()) as player, peer(player.environment) as me:
    received = me.subscribe("std_msgs/msg/String", "chatter")
    me.wait_until(lambda: len(received) == 3, 10, "three messages")
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from helpers.paths import ROOT

# Factor of all time limits (`timeout`), which are those of an idle machine; on a busy one, nodes start ten times as
# slowly. A wait ends when its condition holds, so a high limit costs time only if a test fails.
PATIENCE = 5.0

MIDDLEWARE = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
)


def random_domain() -> int:
    """A random ROS domain (1 to 101) that no other worker of this test run draws: worker k of n has each n-th one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return secrets.choice(range(1 + worker, 102, workers))


def ros_environment(*packages: str, **extra: str) -> dict[str, str]:
    """An environment for processes that communicate only with each other, with buffers for images.

    Skips the test if rclpy or one of the message `packages` is not installed. `extra` overrides other variables.
    """
    for package in ("rclpy", *packages):
        if find_spec(package) is None:
            pytest.skip(f"the ROS package '{package}' is not installed here: see `sensebind doctor`")
    from sensebind.nodes.support.transport import isolated_environment

    base = {name: value for name, value in os.environ.items() if name not in MIDDLEWARE}
    result = isolated_environment({**base, "ROS_DOMAIN_ID": str(random_domain())})
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**result, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **extra}


def run_ros_program(program: str) -> subprocess.CompletedProcess[str]:
    """Run Python code to its end, with the messages of this package and the helpers of the tests."""
    environment = ros_environment("sensebind_msgs")
    environment["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'tests'}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)


class Executable:
    """A process and the lines of its output, both streams together. `send` writes a line to its input."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, has_input: bool = False) -> None:
        self.environment = dict(environment)
        self.command = list(command)
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything that it has printed so far."""
        return "".join(self.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for_output(self, text: str, timeout: float = 30.0) -> None:
        """Wait until `text` is printed. Fails the test if the process ends or the time is up before it is printed."""
        deadline = time.monotonic() + timeout * PATIENCE
        while text not in self.output:
            if not self.is_running:
                self._reader.join(5)
                if text in self.output:
                    return
                pytest.fail(
                    f"{self.command} ended with {self._process.returncode} before it printed '{text}':\n{self.output}"
                )
            if time.monotonic() > deadline:
                pytest.fail(f"{self.command} did not print '{text}' in {timeout:g} s:\n{self.output}")
            time.sleep(0.02)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends. Returns its exit status. Fails the test if it does not end in time."""
        try:
            status = self._process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.command} did not end in {timeout:g} s:\n{self.output}")
        self._reader.join(5)
        return status

    def stop(self, number: int = signal.SIGINT, timeout: float = 15.0) -> int:
        """Send it a signal. Returns its exit status. If it does not end, it is killed and the test fails."""
        if self.is_running:
            self._process.send_signal(number)
        try:
            return self.wait(timeout)
        except BaseException:
            self.kill()
            raise

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal, and do not wait."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once with SIGKILL."""
        if self.is_running:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)


def parameter_arguments(values: Mapping[str, Any]) -> list[str]:
    """Command-line arguments that set these ROS parameters."""
    if not values:
        return []
    import yaml

    pairs = [
        f"{name}:={yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]}"
        for name, value in values.items()
    ]
    return ["--ros-args", *(part for pair in pairs for part in ("-p", pair))]


@contextmanager
def running(
    node: str,
    *arguments: str,
    environment: Mapping[str, str],
    values: Mapping[str, Any] | None = None,
    status: int | None = 0,
) -> Iterator[Executable]:
    """Run ``python -m sensebind.nodes.<node>`` with these arguments and parameter `values` until the block ends.

    If it still runs then, it is stopped with SIGINT. It must end with `status` (None: any).
    """
    command = [sys.executable, "-m", f"sensebind.nodes.{node}", *arguments, *parameter_arguments(values or {})]
    process = Executable(command, environment)
    try:
        yield process
        ended = process.stop()
        if status is not None and ended != status:
            pytest.fail(f"{process.command} ended with {ended}, not {status}:\n{process.output}")
    finally:
        process.kill()


class Peer:
    """A node in the test's own process. Its callbacks run during `wait_until`, `spin_until` and `spin`."""

    def __init__(self, environment: Mapping[str, str], name: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        # Fast DDS reads these once, when the first participant of the process is created.
        os.environ.update({name: environment[name] for name in MIDDLEWARE if name in environment})
        self.context = rclpy.Context()
        rclpy.init(
            context=self.context,
            domain_id=int(environment["ROS_DOMAIN_ID"]),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = rclpy.create_node(name, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def close(self) -> None:
        self._executor.remove_node(self.node)
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def publisher(self, type_name: str, topic: str, qos: Any = 10) -> Any:
        """A publisher of ``pkg/msg/Type``."""
        from sensebind.nodes.support.message_types import message_type

        return self.node.create_publisher(message_type(type_name), topic, qos)

    def subscribe(
        self,
        type_name: str,
        topic: str,
        qos: Any = 10,
        *,
        raw: bool = False,
        into: list[tuple[float, Any]] | None = None,
    ) -> list[tuple[float, Any]]:
        """Subscribe to a topic. Returns a list, `into` or a new one, that grows with each (`time.monotonic()` of
        arrival, message)."""
        from sensebind.nodes.support.message_types import message_type

        received: list[tuple[float, Any]] = [] if into is None else into
        self.node.create_subscription(
            message_type(type_name), topic, lambda message: received.append((time.monotonic(), message)), qos, raw=raw
        )
        return received

    def spin(self, seconds: float) -> None:
        """Serve callbacks for `seconds`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.1))

    def spin_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Serve callbacks until `condition` holds, for at most `timeout` × `PATIENCE` s; returns whether it holds."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Serve callbacks until `condition` holds. Fails the test if it does not within `timeout` s."""
        if not self.spin_until(condition, timeout):
            pytest.fail(f"waited {timeout:g} s for {what}")

    def wait_for_subscribers(self, publisher: Any, count: int = 1, timeout: float = 15.0) -> None:
        """Wait until `count` subscriptions are matched with this publisher."""
        self.wait_until(
            lambda: publisher.get_subscription_count() >= count,
            timeout,
            f"{count} subscribers of {publisher.topic_name}",
        )


@contextmanager
def peer(environment: Mapping[str, str], name: str = "test_peer") -> Iterator[Peer]:
    """A node in this process that communicates with executables started with the same `environment`."""
    result = Peer(environment, name)
    try:
        yield result
    finally:
        result.close()
