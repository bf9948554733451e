"""Every executable runs in the same frame: node, callbacks, last words, exit status."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ros import Executable, ros_environment

PROGRAM = """
import json, os, signal, threading
import rclpy
from rclpy.node import Node
from sensebind.fusion.core.errors import SensebindError
from sensebind.nodes.support.run import run_node, spin

did = []

class Noting(Node):
    def __init__(self):
        super().__init__("noting")
        did.append("made")
    def destroy_node(self):
        did.append(f"destroyed, rclpy {'up' if rclpy.ok() else 'down'}")
        super().destroy_node()

def finish(node):
    did.append(f"finished, rclpy {'up' if rclpy.ok() else 'down'}")

def refuse():
    raise SensebindError("a parameter is wrong")

def lack():
    raise ModuleNotFoundError("a message type is not installed")

def fail(node, stop):
    raise SensebindError("the recording is damaged")

def until_signal(node, stop):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    spin(node, stop)

def note(name, *given, **more):
    did.clear()
    status = run_node(name, *given, finish=finish, **more)
    print(json.dumps([name, status, did]), flush=True)

note("refused", refuse)
note("lacking", lack)
note("failed", Noting, serve=fail)
note("stopped", Noting, serve=until_signal)
"""


def test_a_node_finishes_while_the_middleware_is_up_and_an_error_is_a_message_and_a_status() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    destroyed, finished = "destroyed, rclpy up", "finished, rclpy up"
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["refused", 1, []],
        ["lacking", 1, []],
        ["failed", 1, ["made", destroyed]],
        ["stopped", 0, ["made", finished, destroyed]],
    ]
    for message in ("a parameter is wrong", "a message type is not installed", "the recording is damaged"):
        assert message in done.stderr
    assert "Traceback" not in done.stderr


SPEAKER = """
import sys
from rclpy.node import Node
from std_msgs.msg import Int32
from sensebind.nodes.support.qos import EVENT_QOS
from sensebind.nodes.support.run import run_node, spin

class Speaker(Node):
    def __init__(self):
        super().__init__("speaker")
        self.publisher = self.create_publisher(Int32, "numbers", EVENT_QOS)

def until_heard(node, stop):
    while node.publisher.get_subscription_count() < 1:
        stop.wait(0.01)
    node.publisher.publish(Int32(data=0))
    spin(node, stop)

def finish(node):
    for i in range(1, 6):
        node.publisher.publish(Int32(data=i))
    return [node.publisher]

sys.exit(run_node("speaker", Speaker, serve=until_heard, finish=finish))
"""

LISTENER = """
import sys
from rclpy.node import Node
from std_msgs.msg import Int32
from sensebind.nodes.support.qos import EVENT_QOS
from sensebind.nodes.support.run import run_node

class Listener(Node):
    def __init__(self):
        super().__init__("listener")
        self.create_subscription(Int32, "numbers", lambda message: print("heard", message.data, flush=True), EVENT_QOS)

sys.exit(run_node("listener", Listener))
"""


def test_what_a_node_publishes_last_reaches_a_subscriber_that_is_busy_while_the_process_ends() -> None:
    environment = ros_environment("std_msgs")
    listener = Executable([sys.executable, "-c", LISTENER], environment)
    speaker = Executable([sys.executable, "-c", SPEAKER], environment)
    try:
        listener.wait_for_output("heard 0")
        os.kill(listener.pid, signal.SIGSTOP)
        os.kill(speaker.pid, signal.SIGINT)
        time.sleep(0.5)
        os.kill(listener.pid, signal.SIGCONT)
        assert speaker.wait() == 0
        listener.wait_for_output("heard 5")
        assert listener.stop() == 0
        assert [line for line in listener.lines if "heard" in line] == [f"heard {i}\n" for i in range(6)]
    finally:
        speaker.kill()
        listener.kill()


INTERRUPTED = """
import sys
from sensebind.nodes.support.run import StopFlag

stop = StopFlag()

def interrupt(frame, event, argument):
    stop.set()  # as a signal handler would, in the same thread, between any two steps
    return interrupt

for _ in range(3):
    sys.settrace(interrupt)
    seen = stop.wait(0.01)
    sys.settrace(None)
    assert seen and stop.is_set()
"""


def test_a_signal_that_interrupts_the_wait_for_it_stops_the_wait() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_all_threads_that_wait_see_the_stop() -> None:
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


def test_no_node_hides_what_rclpy_keeps_under_the_same_name() -> None:
    ros_environment()
    import rclpy
    from rclpy.lifecycle import LifecycleNode
    from rclpy.node import Node

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=101)
    node = LifecycleNode("probe", context=context)
    kept = set(vars(node)) | set(dir(Node))
    node.destroy_node()
    context.try_shutdown()
    hidden = []
    for path in sorted((Path(__file__).parents[1] / "nodes").rglob("*.py")):
        for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(cls, ast.ClassDef) and any(ast.unparse(base).endswith("Node") for base in cls.bases):
                stored = (n for n in ast.walk(cls) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
                hidden += [f"{path.name}: {name}" for name in sorted({n.attr for n in stored} & kept)]
    assert not hidden
