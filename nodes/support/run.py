"""How every executable runs: until it is told to stop, with the middleware still up while it finishes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


@contextmanager
def ros(args: list[str] | None = None) -> Iterator[Event]:
    """rclpy from init to shutdown. Yields what SIGINT and SIGTERM set.

    rclpy's own handlers would shut the middleware down at once, and a node could not publish its last words.
    """
    stop = Event()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        # Launch and a terminal may both say it: the second time must not turn a clean end into a death.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        rclpy.try_shutdown()


def spin(node: Node, stop: Event) -> None:
    """Serve the node's callbacks in this thread until `stop` is set."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set() and rclpy.ok():
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)
    executor.shutdown()
