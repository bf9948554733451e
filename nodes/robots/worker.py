"""The process that receives, checks and prepares the data of some robots for an embedder, which starts it.

It has no weights: an engine with a `RemoteRunner` sends the prepared windows to the embedder. It ends with the
embedder, whose signals it ignores, so that it can publish the last embeddings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from queue import Empty

import rclpy
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from sensebind.fusion.config import build
from sensebind.fusion.core.freed_memory import freed_memory_returned, freeze_objects
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.nodes.robots.link import Command, WorkerEnd, WorkerSetup, open_worker_end
from sensebind.nodes.robots.robot_nodes import make_robot_node, set_clock
from sensebind.nodes.robots.streams import RobotStreams
from sensebind.nodes.support.guards.executor import GuardedExecutor
from sensebind.nodes.support.run import logging_to, wait_for_acknowledgements

STOP_TIMEOUT = 5.0  # s in which the last windows must be embedded; the embedder kills this process after 7 s
COMMAND_POLL = 0.05  # s: a command waits at most this long for the executor


class RobotWorker:
    """The robots of this process. All methods run in the main thread."""

    def __init__(self, end: WorkerEnd) -> None:
        self._end = end
        self._scheduler: Scheduler | None = None
        self._nodes: list[Node] = []
        self._streams: list[RobotStreams] = []
        self._executor: GuardedExecutor | None = None
        self._at_end = ExitStack()

    def run(self) -> int:
        """Carry out the commands of the embedder until `stop`, or until the embedder ends. Returns the exit status: 0;
        1 if windows were lost because they could not be embedded in time."""
        with self._at_end:
            while (command := self._next_command()).name != "stop":
                self._end.carry_out(command, self._carry_out)
            if self._scheduler is not None:
                self._scheduler.stop_waiting_at = time.monotonic() + STOP_TIMEOUT
            self._deactivate()
        return int(self._scheduler is not None and self._scheduler.is_stuck)

    def _next_command(self) -> Command:
        """Serve the nodes until a command arrives."""
        while True:
            try:
                if self._executor is None:
                    return self._end.commands.get()
                return self._end.commands.get_nowait()
            except Empty:
                assert self._executor is not None
                self._executor.spin_once(timeout_sec=COMMAND_POLL)

    def _carry_out(self, command: Command) -> None:
        if command.name == "configure":
            self._configure(command.argument)
        elif command.name == "activate":
            self._activate()
        elif command.name == "deactivate":
            self._deactivate()
        elif command.name == "use_sim_time":
            for node in self._nodes:
                set_clock(node, command.argument)
        elif command.name == "apply_values":
            for streams in self._streams:
                streams.apply_values(command.argument)

    def _configure(self, setup: WorkerSetup) -> None:
        rclpy.init(args=list(setup.process_arguments), signal_handler_options=SignalHandlerOptions.NO)
        self._at_end.callback(rclpy.try_shutdown)
        self._at_end.enter_context(logging_to(get_logger(f"{setup.node_name}.worker")))
        self._executor = GuardedExecutor(get_logger(f"{setup.node_name}.worker"))
        values = dict(setup.values)
        engine = self._end.make_engine(setup.space, int(values["batch_size"]))
        memory = build.memory_budget(values, engine.space, robots=len(setup.namespaces), part=setup.memory)
        engine.limit_cache(memory.cache)
        for namespace in setup.namespaces:
            node = make_robot_node(setup.node_name, namespace, setup.ros_arguments, setup.use_sim_time)
            self._at_end.callback(node.destroy_node)
            self._nodes.append(node)
            self._streams.append(RobotStreams(node, values, engine, memory))
            self._executor.add_node(node)
        self._scheduler = Scheduler(engine)
        freeze_objects()

    def _activate(self) -> None:
        assert self._scheduler is not None
        for streams in self._streams:
            streams.activate(self._scheduler)

    def _deactivate(self) -> None:
        wait_for_acknowledgements([publisher for streams in self._streams for publisher in streams.deactivate()])


def main(arguments: Sequence[str]) -> int:
    """Run the process. `arguments`: see `open_worker_end`."""
    logging.captureWarnings(True)
    with freed_memory_returned():
        return RobotWorker(open_worker_end(arguments)).run()
