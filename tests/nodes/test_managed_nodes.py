"""The lifecycle nodes: transitions as a lifecycle manager runs them, and parameters while they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from helpers.ros_processes import PATIENCE, Executable, Peer, peer, ros_environment, running
from helpers.ros_services import Manager, NodeServices
from helpers.scripted_modalities import CONCEPTS, HOP, SIZE, SPACE, START
from sensebind.fusion.config.parameters import NODE_PARAMETERS
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventPhase
from sensebind.fusion.core.parameters import Effect

MANAGED = ("embedder", "detector", "bridge")


class Robot(NamedTuple):
    me: Peer
    nodes: dict[str, Executable]
    services: dict[str, NodeServices]


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    """The nodes of one robot, in a namespace, that wait for a lifecycle manager."""
    environment = ros_environment("sensebind_msgs")
    ros = ("--ros-args", "-r", "__ns:=/robot1", "-p", "autostart:=false")
    values = {
        "embedder": ["modalities:=[imu]"],
        "detector": ["detectors:=[fault]", "fault.min_duration:=0.0"],
        "bridge": ["address:=tcp://127.0.0.1:*"],
    }
    arguments = {name: [*ros, *(part for value in own for part in ("-p", value))] for name, own in values.items()}
    with (
        peer(environment) as me,
        running("embedder", *arguments["embedder"], environment=environment) as embedder,
        running("detector", *arguments["detector"], environment=environment) as detector,
        running("bridge", *arguments["bridge"], environment=environment) as bridge,
    ):
        nodes = {"embedder": embedder, "detector": detector, "bridge": bridge}
        yield Robot(me, nodes, {name: NodeServices(me, f"/robot1/{name}") for name in MANAGED})


def bring(robot: Robot, *transitions: str, nodes: tuple[str, ...] = MANAGED) -> None:
    """Run transitions of all nodes in the order of Nav2's lifecycle manager: upwards, or downwards in reverse."""
    for transition in transitions:
        order = nodes if transition in ("configure", "activate") else nodes[::-1]
        for name in order:
            assert robot.services[name].change_state(transition), (name, transition, robot.nodes[name].output)


def states(robot: Robot) -> list[str]:
    return [robot.services[name].state() for name in MANAGED]


def test_every_command_of_nav2s_lifecycle_manager_reaches_its_state(robot: Robot) -> None:
    manager = Manager(robot.services, MANAGED, PATIENCE)
    assert states(robot) == ["unconfigured"] * 3
    for command, expected in (
        ("STARTUP", "active"),
        ("PAUSE", "inactive"),
        ("RESUME", "active"),
        ("RESET", "unconfigured"),
        ("STARTUP", "active"),
        ("PAUSE", "inactive"),
        ("CLEANUP", "unconfigured"),
        ("CONFIGURE", "inactive"),
        ("RESUME", "active"),
        ("RESET", "unconfigured"),
    ):
        assert manager.manage(command) == "", (command, "".join(node.output for node in robot.nodes.values()))
        assert states(robot) == [expected] * 3, command
    assert "Traceback" not in "".join(node.output for node in robot.nodes.values())


def test_a_start_that_fails_at_a_node_leaves_the_others_as_they_are_and_can_be_repeated_after_a_correction(
    robot: Robot,
) -> None:
    manager, detector = Manager(robot.services, MANAGED, PATIENCE), robot.services["detector"]
    assert detector.set("fault.onset_threshold", 0.01) == ""
    assert manager.manage("STARTUP") == "detector"
    assert states(robot) == ["inactive", "unconfigured", "unconfigured"]
    # Transitions that the state does not allow are refused, and change nothing: as of any lifecycle node.
    assert manager.manage("RESET") == "bridge" and manager.manage("STARTUP") == "embedder"
    assert states(robot) == ["inactive", "unconfigured", "unconfigured"]
    assert detector.set("fault.onset_threshold", 0.6) == ""
    assert robot.services["embedder"].change_state("cleanup")
    assert manager.manage("STARTUP") == "" and states(robot) == ["active"] * 3
    assert manager.manage("RESET") == ""
    assert "Traceback" not in "".join(node.output for node in robot.nodes.values())


def test_a_parameter_is_effective_at_once_or_refused_with_the_time_when_it_is(robot: Robot) -> None:
    changes: dict[str, dict[str, Any]] = {
        "embedder": {"imu.hop": 0.25, "device": "cuda", "idle_timeout": 0.7, "autostart": True},
        "detector": {"novelty.threshold": 3.0, "prompts.dog": ["a dog"], "autostart": True},
        "bridge": {"client_queue_size": 10, "address": "ipc:///tmp/x", "autostart": True},
    }
    effects = {node: {p.name: p.effect for p in NODE_PARAMETERS[node]()} for node in MANAGED}
    bring(robot, "configure", "activate")
    for node, values in changes.items():
        services = robot.services[node]
        for name, value in values.items():
            refusal = services.set(name, value)
            effect = effects[node].get(name, Effect.AT_ONCE)  # a label
            if effect is Effect.AT_ONCE:
                assert not refusal and services.get(name) == [value]
            else:
                assert f"'{name}' is read-only" in refusal and effect.value in refusal
                assert services.get(name) != [value]
    bring(robot, "deactivate")
    assert "at the next configure" in robot.services["embedder"].set("imu.hop", 0.25)
    bring(robot, "cleanup")
    assert robot.services["embedder"].set("imu.hop", 0.25) == ""
    assert robot.services["embedder"].set("imu.hop", 0.5) == ""


def test_every_node_refuses_an_unknown_name_and_a_wrong_value(robot: Robot) -> None:
    wrong: dict[str, tuple[str, Any, str]] = {
        "embedder": ("imu.hopp", 0.25, "did you mean 'imu.hop'?"),
        "detector": ("novelty.treshold", 3.0, "did you mean 'novelty.threshold'?"),
        "bridge": ("adress", "ipc:///tmp/x", "did you mean 'address'?"),
    }
    values: dict[str, tuple[str, Any, str]] = {
        "embedder": ("imu.hop", "often", "must be a number"),
        "detector": ("detectors", ["novelti"], "must be some of"),
        "bridge": ("address", 7447, "must be a string"),
    }
    for configured in (False, True):
        for node in MANAGED:
            for name, value, reason in (wrong[node], values[node]):
                refusal = robot.services[node].set(name, value)
                assert f"'{name}'" in refusal and reason in refusal, (node, configured)
        if not configured:
            bring(robot, "configure")
    assert "there is no parameter 'vision.hop'" in robot.services["detector"].set("vision.hop", 0.25)
    bring(robot, "cleanup")


def test_a_failed_configuration_leaves_the_node_unconfigured_until_the_value_is_corrected(robot: Robot) -> None:
    for node, name, wrong, right in (
        ("embedder", "modalities", ["imu", "gas"], ["imu"]),
        ("detector", "fault.onset_threshold", 0.01, 0.6),
        ("bridge", "address", "tcp://0.0.0.0:7447", "tcp://127.0.0.1:*"),
    ):
        services = robot.services[node]
        assert services.set(name, wrong) == ""
        assert not services.change_state("configure") and services.state() == "unconfigured"
        assert "not configured:" in robot.nodes[node].output
        assert services.set(name, right) == ""
        assert services.change_state("configure") and services.change_state("cleanup")


def test_a_deactivated_detector_ends_its_events_and_begins_again_without_a_past(robot: Robot) -> None:
    from sensebind.fusion.io import messages
    from sensebind.nodes.support.message_types import RosMessageFactory, message_type
    from sensebind.nodes.support.qos import EMBEDDING_QOS, LATCHED_QOS, NEW_EVENTS_QOS

    me, factory = robot.me, RosMessageFactory()
    received = me.subscribe(messages.EVENT_TYPE, "/robot1/events", NEW_EVENTS_QOS)
    space = me.publisher(messages.EMBEDDING_SPACE_TYPE, "/robot1/embedding_space", LATCHED_QOS)
    described = {"id": SPACE, "dimension": SIZE, "modalities": ["text", "vision"], "logit_scales": [1.0, 1.0]}
    space.publish(message_type(messages.EMBEDDING_SPACE_TYPE)(**described))
    topics = {
        m: me.publisher(messages.EMBEDDING_TYPE, f"/robot1/embeddings/{m}", EMBEDDING_QOS) for m in ("vision", FUSED)
    }

    def publish(ticks: range) -> None:
        vector = CONCEPTS["room"] / np.linalg.norm(CONCEPTS["room"])
        for tick in (START + i * HOP for i in ticks):
            vision = Embedding("vision", tick - HOP, tick, SPACE, 1.0, vector, symptoms=("dark",))
            fused = Embedding(FUSED, tick - HOP, tick, SPACE, 1.0, vector, sources=("vision",), weights=(1.0,))
            for embedding in (vision, fused):
                topics[embedding.modality].publish(messages.embedding_message(factory, embedding))

    def events() -> list[Event]:
        return [messages.event_from_message(message) for _, message in received]

    bring(robot, "configure", "activate", nodes=("detector",))
    for topic in topics.values():
        me.wait_for_subscribers(topic)
    me.wait_until(lambda: "events from fault" in robot.nodes["detector"].output, 30, "the detectors")
    publish(range(8))
    me.wait_until(lambda: any(e.phase is EventPhase.ONSET for e in events()), 30, "an onset")
    bring(robot, "deactivate", nodes=("detector",))
    me.wait_until(lambda: events()[-1].phase is EventPhase.OFFSET, 10, "the offset")
    assert {e.label for e in events()} == {"fault:vision:dark"} and len({e.id for e in events()}) == 1
    count = len(events())
    bring(robot, "activate", nodes=("detector",))
    for topic in topics.values():
        me.wait_for_subscribers(topic)
    publish(range(100, 108))
    me.wait_until(lambda: len(events()) > count, 30, "the next event")
    assert events()[count].phase is EventPhase.ONSET and events()[count].id != events()[0].id
    bring(robot, "deactivate", "cleanup", nodes=("detector",))


def test_a_shut_down_node_is_finalized_and_its_process_ends_in_order(robot: Robot) -> None:
    manager = Manager(robot.services, MANAGED, PATIENCE)
    assert manager.manage("STARTUP") == "" and manager.manage("SHUTDOWN") == ""
    assert states(robot) == ["finalized"] * 3
    for node in robot.nodes.values():
        assert node.stop() == 0 and "stopped by SIGINT" in node.lines[-1], node.output
