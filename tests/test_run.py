"""Every executable runs in the same frame: node, callbacks, last words, exit status."""

from __future__ import annotations

import json
import subprocess
import sys

from ros import ros_environment

PROGRAM = """
import json, os, signal, threading
import rclpy
from rclpy.node import Node
from sensebind.fusion.core.errors import SensebindError
from sensebind.nodes.support.run import run, spin

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
    status = run(name, *given, finish=finish, **more)
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
