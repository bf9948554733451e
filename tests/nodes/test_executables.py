"""`run_node`, the frame of every executable: node, callbacks, last messages, exit status."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from helpers.paths import ROOT
from helpers.ros_processes import Executable, ros_environment

PROGRAM = """
import json, os, signal, threading
import rclpy
from rclpy.node import Node
from sensebind.fusion.core.errors import SensebindError
from sensebind.nodes.support.run import run_node, spin

steps = []

class LoggingNode(Node):
    def __init__(self):
        super().__init__("logging")
        steps.append("made")
    def destroy_node(self):
        steps.append(f"destroyed, rclpy {'up' if rclpy.ok() else 'down'}")
        super().destroy_node()

def finish(node):
    steps.append(f"finished, rclpy {'up' if rclpy.ok() else 'down'}")

def make_with_wrong_parameter():
    raise SensebindError("a parameter is wrong")

def make_without_message_type():
    raise ModuleNotFoundError("a message type is not installed")

def fail(node, stop):
    raise SensebindError("the recording is damaged")

def until_signal(node, stop):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    spin(node, stop)

def run_and_print(name, *given, **more):
    steps.clear()
    status = run_node(name, *given, finish=finish, **more)
    print(json.dumps([name, status, steps]), flush=True)

run_and_print("wrong_parameter", make_with_wrong_parameter)
run_and_print("missing_type", make_without_message_type)
run_and_print("failed", LoggingNode, serve=fail)
run_and_print("stopped", LoggingNode, serve=until_signal)
"""


def test_a_node_finishes_before_the_middleware_stops_and_an_error_is_a_message_and_a_status() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    destroyed, finished = "destroyed, rclpy up", "finished, rclpy up"
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["wrong_parameter", 1, []],
        ["missing_type", 1, []],
        ["failed", 1, ["made", destroyed]],
        ["stopped", 0, ["made", finished, destroyed]],
    ]
    for message in ("a parameter is wrong", "a message type is not installed", "the recording is damaged"):
        assert message in done.stderr
    assert "Traceback" not in done.stderr


PUBLISHER = """
import sys
from rclpy.node import Node
from std_msgs.msg import Int32
from sensebind.nodes.support.qos import EVENT_QOS
from sensebind.nodes.support.run import run_node, spin

class Publisher(Node):
    def __init__(self):
        super().__init__("publisher")
        self.publisher = self.create_publisher(Int32, "numbers", EVENT_QOS)

def serve(node, stop):
    while node.publisher.get_subscription_count() < 1:
        stop.wait(0.01)
    node.publisher.publish(Int32(data=0))
    spin(node, stop)

def finish(node):
    for i in range(1, 6):
        node.publisher.publish(Int32(data=i))
    return [node.publisher]

sys.exit(run_node("publisher", Publisher, serve=serve, finish=finish))
"""

SUBSCRIBER = """
import sys
from rclpy.node import Node
from std_msgs.msg import Int32
from sensebind.nodes.support.qos import EVENT_QOS
from sensebind.nodes.support.run import run_node

class Subscriber(Node):
    def __init__(self):
        super().__init__("subscriber")
        self.create_subscription(Int32, "numbers", lambda m: print("received", m.data, flush=True), EVENT_QOS)

sys.exit(run_node("subscriber", Subscriber))
"""


def test_the_last_messages_of_a_node_reach_a_busy_subscriber_before_the_process_ends() -> None:
    environment = ros_environment("std_msgs")
    subscriber = Executable([sys.executable, "-c", SUBSCRIBER], environment)
    publisher = Executable([sys.executable, "-c", PUBLISHER], environment)
    try:
        subscriber.wait_for_output("received 0")
        os.kill(subscriber.pid, signal.SIGSTOP)
        os.kill(publisher.pid, signal.SIGINT)
        time.sleep(0.5)
        os.kill(subscriber.pid, signal.SIGCONT)
        assert publisher.wait() == 0
        subscriber.wait_for_output("received 5")
        assert subscriber.stop() == 0
        assert [line for line in subscriber.lines if "received" in line] == [f"received {i}\n" for i in range(6)]
    finally:
        publisher.kill()
        subscriber.kill()


def test_a_node_does_not_wait_for_acknowledgements_if_the_middleware_has_none() -> None:
    ros_environment()
    from rclpy.duration import Duration

    from sensebind.nodes.support.run import has_acknowledgements, wait_for_acknowledgements

    class WithoutAcknowledgements:
        calls = 0

        def get_subscription_count(self) -> int:
            return 1

        def wait_for_all_acked(self, timeout: Any) -> bool:
            self.calls += 1
            raise RuntimeError("the middleware does not support it")

    publisher: Any = WithoutAcknowledgements()
    assert has_acknowledgements(publisher, Duration(seconds=60))
    wait_for_acknowledgements([publisher, publisher], timeout=60)
    assert publisher.calls == 3


INTERRUPTED = """
import sys
from sensebind.nodes.support.run import StopFlag

stop = StopFlag()

def interrupt(frame, event, argument):
    stop.set()  # like a signal handler: in the same thread, between any two steps
    return interrupt

for _ in range(3):
    sys.settrace(interrupt)
    stopped = stop.wait(0.01)
    sys.settrace(None)
    assert stopped and stop.is_set()
"""


def test_a_signal_during_the_wait_ends_the_wait() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stop_ends_the_wait_of_all_threads() -> None:
    ros_environment()
    from sensebind.nodes.support.run import StopFlag

    stop, began = StopFlag(), time.monotonic()
    assert not stop.wait(0.02) and not stop.wait(-1.0) and not stop.is_set()
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(stop.wait, 60.0) for _ in range(3)]
        time.sleep(0.05)
        stop.set()
        assert all(wait.result() for wait in waits)
    assert stop.is_set() and stop.wait(60.0) and time.monotonic() - began < 30


def test_a_middleware_without_acknowledgements_is_not_waited_for() -> None:
    ros_environment()
    from sensebind.nodes.support.run import wait_for_acknowledgements

    class Publisher:
        def get_subscription_count(self) -> int:
            return 1

        def wait_for_all_acked(self, timeout: object) -> bool:
            raise RuntimeError("RMW_RET_UNSUPPORTED")

    wait_for_acknowledgements([Publisher()])  # type: ignore[list-item]


def test_no_node_overwrites_an_attribute_of_rclpy() -> None:
    ros_environment()
    import rclpy
    from rclpy.lifecycle import LifecycleNode
    from rclpy.node import Node

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=101)
    node = LifecycleNode("probe", context=context)
    reserved = set(vars(node)) | set(dir(Node))
    node.destroy_node()
    context.try_shutdown()
    overwritten = []
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(cls, ast.ClassDef) and any(ast.unparse(base).endswith("Node") for base in cls.bases):
                stored = (n for n in ast.walk(cls) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
                overwritten += [f"{path.name}: {name}" for name in sorted({n.attr for n in stored} & reserved)]
    assert not overwritten
