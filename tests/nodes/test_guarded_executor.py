"""Errors of rclpy's own callbacks end no node, however many there are; a middleware that fails does."""

from __future__ import annotations

from helpers.ros_processes import run_ros_program

CLOCK = """
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensebind.nodes.support.guards.executor import MAX_FAILED_WAITS, GuardedExecutor

rclpy.init()
node = Node("inactive", parameter_overrides=[Parameter("use_sim_time", value=True)])
executor = GuardedExecutor(node.get_logger())
executor.add_node(node)
[clock] = [own for own in node.subscriptions if own.topic_name == "/clock"]
message = Clock()
message.clock.sec = -1

async def receive():
    clock.callback(message)

# An inactive node has no other callback that would succeed meanwhile.
tasks = [executor.create_task(receive) for _ in range(MAX_FAILED_WAITS + 10)]
while not all(task.done() for task in tasks[-20:]):
    executor.spin_once(0.0)
print("lives", all(task.exception() for task in tasks))

def broken():
    raise RuntimeError("the middleware is broken")

executor.spin_once(0.0)
executor.get_nodes = broken
for number in range(MAX_FAILED_WAITS + 10):
    try:
        executor.spin_once(0.0)
    except RuntimeError:
        print("ends after", number + 1)
        break
"""


def test_negative_times_on_clock_without_end_leave_an_inactive_node_alive_and_a_broken_middleware_ends_it() -> None:
    run = run_ros_program(CLOCK)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines() == ["lives True", "ends after 10000"]
    assert len(run.stderr.splitlines()) <= 3, run.stderr[-3000:]
