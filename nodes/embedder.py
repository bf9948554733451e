"""The executable `embedder`: sensor topics in, embeddings out. A lifecycle node."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("embedder", __name__)  # before the imports below, which take seconds

import time
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher

from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import (
    embedder_parameters,
    modalities_of,
    robots_of,
    sensor_options,
    sensor_warnings,
    sensors_of,
)
from sensebind.fusion.core.parameters import Parameter
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.threads import set_switch_interval
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.inference.remote_runner import describe_space
from sensebind.fusion.inference.row_engine import RowEngine
from sensebind.fusion.io import messages
from sensebind.fusion.stream.scheduler import STOP_TIMEOUT, Scheduler
from sensebind.nodes.robots.background_thread import BackgroundThread
from sensebind.nodes.robots.link import WorkerSetup
from sensebind.nodes.robots.robot_nodes import make_robot_node, remapping_rules, set_clock, without_parameter_files
from sensebind.nodes.robots.space_topics import SpaceTopics
from sensebind.nodes.robots.streams import RobotStreams
from sensebind.nodes.robots.workers import Workers
from sensebind.nodes.support.diagnostic_status import diagnostic_array, diagnostic_status
from sensebind.nodes.support.managed_node import ManagedNode
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS, call_after_change
from sensebind.nodes.support.run import StopFlag, end_process, run_node, spin
from sensebind.nodes.topic_checks import check_topic_names

PHRASES_TIMEOUT = 1.0  # s in which phrases that are being embedded when the process ends must be done


class EmbedderNode(ManagedNode):
    """Embeds the sensor data of one robot, or of several that share the space and the device.

    The topics of one robot belong to this node. Those of each of several `robots` belong to a node of its own, in this
    process or in one of the `workers`. All methods run in the executor's thread.
    """

    def __init__(self) -> None:
        super().__init__("embedder")
        self._streams: list[RobotStreams] = []  # of the robots of this process
        self._robot_nodes: list[Node] = []  # in this process; none for a single robot
        self._space_topics: list[SpaceTopics] = []
        self._workers: Workers | None = None
        self._engine: Engine | None = None
        self._scheduler: Scheduler | None = None
        self._background: BackgroundThread | None = None  # embeds phrases
        self.has_lost_windows = False  # whether windows were dropped at the end
        self.is_stuck = False  # whether a thread is left behind, which never ended or still works
        self._steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10, event_callbacks=NO_EVENT_CALLBACKS
        )
        call_after_change(self, "use_sim_time", self._set_clock_of_robots)

    # --- lifecycle

    def known_parameters(self, values: Mapping[str, Any]) -> list[Parameter]:
        modalities = values.get("modalities") or []  # checked when the node is configured
        return embedder_parameters([m for m in modalities if isinstance(m, str)], values)

    def configure(self, values: dict[str, Any]) -> None:
        modalities, sensors, robots = modalities_of(values), sensors_of(values), robots_of(values)
        for name in (messages.EMBEDDING_TYPE, messages.EMBEDDING_SPACE_TYPE, messages.EMBED_TEXT_TYPE):
            message_type(name)  # fails here if it is not installed
        check_topic_names(self, [sensor_options(values, m, s) for s, m in sensors.items()])
        for text in sensor_warnings(values):
            self.get_logger().warning(text)
        started = time.monotonic()
        self._values = values
        if values["workers"] and not robots:
            self.get_logger().warning("'workers' has no effect without 'robots'")
        if robots and values["workers"]:  # their start takes as long as that of the space
            self._workers = Workers(values["workers"], len(robots), self.get_logger().error)
        space = build.load_space_from(values)
        specs = build.make_window_specs(values, space.trained_windows)
        self._connect_robots(space, robots)
        self._background = BackgroundThread("phrases")
        self._space_topics = [
            SpaceTopics(self, f"{robot}/" if robot else "", space, specs, self._background) for robot in robots or [""]
        ]
        seconds = time.monotonic() - started
        self.get_logger().info(f"space {space.id} ready in {seconds:.1f} s; licence of its weights: {space.licence}")
        if robots:
            processes = f"{len(self._workers.process_ids())} worker processes" if self._workers else "this process"
            self.get_logger().info(f"{len(robots)} robots in {processes}: {', '.join(robots)}")
        for modality in modalities:
            if modality not in space.modalities:
                self.get_logger().warning(
                    f"space {space.id} has no encoder for '{modality}': its windows are counted, not embedded"
                )

    def _connect_robots(self, space: Space, robots: tuple[str, ...]) -> None:
        """Make the topics of the robot of this node, or of all `robots`, here or in the workers."""
        values, batch_size = self._values, int(self._values["batch_size"])
        processes = len(self._workers.process_ids()) if self._workers is not None else 0
        memory = build.memory_budget(values, space, robots=0 if processes else len(robots) or 1)
        nodes: list[Node] = [self]
        if robots:
            within, name = self.get_namespace().rstrip("/"), self.get_name()
            namespaces = [f"{within}/{robot}" for robot in robots]
            rules = remapping_rules(sys.argv, name)  # those of a single robot may name any topic
            simulated = bool(self.get_parameter("use_sim_time").value)
            if self._workers is not None:
                setup = WorkerSetup(
                    values=values,
                    memory=memory.part_of(processes),
                    space=describe_space(space, modalities_of(values)),
                    node_name=name,
                    namespaces=namespaces,
                    ros_arguments=rules,
                    process_arguments=without_parameter_files(sys.argv),
                    use_sim_time=simulated,
                )
                self._workers.configure(setup, RowEngine(space, batch_size))
                return
            for namespace in namespaces:
                self._robot_nodes.append(make_robot_node(name, namespace, rules, simulated))
            nodes = self._robot_nodes
        engine = self._engine = Engine(space, batch_size)
        engine.limit_cache(memory.cache)
        self._streams = [RobotStreams(node, values, engine, memory) for node in nodes]

    def apply_values(self, values: dict[str, Any]) -> None:
        self._values = values
        for streams in self._streams:
            streams.apply_values(values)
        if self._workers is not None:
            self._workers.apply_values(values)

    def _set_clock_of_robots(self, use_sim_time: Any) -> None:
        """Pass a new value of the parameter on: rclpy itself obeys it in this node only."""
        if not isinstance(use_sim_time, bool):
            return  # refused by rclpy
        for node in self._robot_nodes:
            set_clock(node, use_sim_time)
        if self._workers is not None:
            self._workers.set_clock(use_sim_time)

    def activate(self) -> None:
        if self._workers is not None:
            self._workers.activate()
            self._watch_timer = self.create_timer(1.0, self._watch_workers, clock=self._steady_clock)
            return
        assert self._engine is not None
        self._scheduler = Scheduler(self._engine)
        for node in self._robot_nodes:
            if self.executor is not None:
                self.executor.add_node(node)
        for streams in self._streams:
            streams.activate(self._scheduler)

    def _watch_workers(self) -> None:
        """Start workers again that have ended, and publish the status of all."""
        if self._workers is None:
            return  # released since this timer fired
        before = self._workers.restarts
        self._workers.restart_ended()
        count, restarts = len(self._workers.process_ids()), self._workers.restarts
        level, text = (DiagnosticStatus.OK, "OK")
        if restarts > before:
            level, text = DiagnosticStatus.WARN, f"{restarts - before} of {count} worker processes ended"
        if self._workers.hanging:
            level, text = DiagnosticStatus.ERROR, f"no answer from {', '.join(sorted(self._workers.hanging))}"
        values = {"restarts": restarts, **{f"{name} pid": pid for name, pid in self._workers.process_ids().items()}}
        status = diagnostic_status(self.get_fully_qualified_name(), "workers", level, text, values)
        self._diagnostics_publisher.publish(diagnostic_array(self, status))

    def deactivate(self) -> list[Publisher]:
        """Unsubscribe, embed the remaining windows and end the scheduler."""
        if self._workers is not None:
            self.destroy_timer(self._watch_timer)
            self._workers.deactivate()
        if self._scheduler is None:
            return []
        unacknowledged = [publisher for streams in self._streams for publisher in streams.deactivate()]
        self._scheduler.close()
        if self._scheduler.is_stuck:
            self.is_stuck = self.has_lost_windows = True
        self._scheduler = None
        return unacknowledged

    def release(self) -> None:
        for streams in self._streams:
            streams.release()
        for topics in self._space_topics:
            topics.release()
        for node in self._robot_nodes:
            if self.executor is not None:
                self.executor.remove_node(node)
            node.destroy_node()
        if self._background is not None:
            self._background.close(0.0)
        if self._workers is not None:
            self._workers.close()
        # These hold the model. Without them, the next configuration does not need memory for two models.
        self._streams, self._space_topics, self._robot_nodes, self._workers = [], [], [], None
        self._engine = None

    def finish(self) -> list[Publisher]:
        """End the work when the process ends: windows that are not embedded in `STOP_TIMEOUT` are lost."""
        if self._scheduler is not None:
            self._scheduler.stop_waiting_at = time.monotonic() + STOP_TIMEOUT
        publishers: list[Publisher] = []
        if self._workers is None:
            publishers = list(super().finish())
        else:
            self._workers.close()  # each publishes its last embeddings
            self.is_stuck |= self._workers.is_stuck
            self.has_lost_windows |= self._workers.has_lost_windows
            self._workers = None
        if self._background is not None:
            self.is_stuck |= not self._background.close(0.0 if self.is_stuck else PHRASES_TIMEOUT)
        return publishers


def serve(node: EmbedderNode, stop: StopFlag) -> None:
    """Start the node and serve it until `stop` is set. If it cannot be configured, it waits for a correction."""
    spin(node, stop, lambda: node.start(fail=False))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0; 1 if windows were lost because it had to end."""
    set_switch_interval()
    ended: list[EmbedderNode] = []

    def finish(node: EmbedderNode) -> list[Publisher]:
        ended.append(node)
        return node.finish()

    status = run_node("embedder", EmbedderNode, args, serve=serve, finish=finish)
    if any(node.has_lost_windows for node in ended):
        status = 1
    if any(node.is_stuck for node in ended):  # the interpreter would wait for the thread
        sys.stdout.flush()
        sys.stderr.flush()
        end_process(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
