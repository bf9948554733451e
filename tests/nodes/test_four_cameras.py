"""Several sensors of a modality: the nodes publish what a replay of the same recording gives, each with its sensor.

Two robots, each in its namespace, with four cameras, two IMUs and one microphone array.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.four_cameras import SENSORS, TOPICS, record_four_cameras, settings_file
from helpers.ros_processes import parameter_arguments, peer, ros_environment, running
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.io import messages
from sensebind.replay.session import Settings, open_replay

STOPPED = "fault:embeddings:stopped"  # the detector node reports it some seconds after the end of a recording


class Robot(NamedTuple):
    """A robot whose camera `cat` sees a cat. Its camera `covered` is covered in the middle of the recording."""

    namespace: str
    cat: str
    covered: str


class Outputs(NamedTuple):
    embeddings: list[Embedding]
    events: list[Event]


ROBOTS = (Robot("robot1", "front", "rear"), Robot("robot2", "left", "front"))


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> dict[Robot, Path]:
    """Seven seconds of each robot, of different data."""
    folder = tmp_path_factory.mktemp("several")
    for seed, robot in enumerate(ROBOTS, 14):
        record_four_cameras(
            folder / robot.namespace, 7.0, cat=robot.cat, covered=robot.covered, covered_at=3.0, seed=seed
        )
    return {robot: folder / robot.namespace for robot in ROBOTS}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return settings_file(tmp_path_factory.mktemp("config") / "sensors.yaml")


@pytest.fixture(scope="module")
def replayed(bags: Mapping[Robot, Path], config: Path) -> dict[Robot, Outputs]:
    settings = Settings.read(config)
    space = settings.space()
    found = {}
    for robot, bag in bags.items():
        with open_replay(bag, settings.embedder) as replay:
            outputs = list(replay.outputs(settings.pipeline(space, settings.events(space))))
        found[robot] = Outputs(
            [o for o in outputs if isinstance(o, Embedding)], [o for o in outputs if isinstance(o, Event)]
        )
    return found


@pytest.mark.parametrize("robot", ROBOTS)
def test_each_sensor_has_its_own_windows_and_one_vector_is_fused_for_a_tick(
    replayed: Mapping[Robot, Outputs], robot: Robot
) -> None:
    embeddings = replayed[robot].embeddings
    ticks = {name: {e.tick for e in embeddings if e.source == name} for name in (*SENSORS, FUSED)}
    assert all(ticks.values())
    assert {e.source: e.modality for e in embeddings if e.modality != FUSED} == SENSORS
    whole = [e for e in embeddings if e.modality == FUSED and set(e.sources) == set(SENSORS)]
    assert whole
    for fused in whole:
        weights = dict(zip(fused.sources, fused.weights, strict=True))
        cameras = sum(weights[name] for name, modality in SENSORS.items() if modality == "vision")
        assert cameras == pytest.approx(weights["microphones"], rel=0.2)  # four cameras count as one microphone


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_fault_names_the_covered_camera_and_the_others_go_on(
    replayed: Mapping[Robot, Outputs], robot: Robot
) -> None:
    embeddings, events = replayed[robot]
    faults = {e.label for e in events if e.kind is EventKind.FAULT and e.phase is EventPhase.ONSET}
    assert faults == {f"fault:{robot.covered}:dark"}
    last = max(e.tick for e in embeddings)
    for name, modality in SENSORS.items():
        if modality == "vision" and name != robot.covered:
            assert not any(e.symptoms for e in embeddings if e.sensor == name)
    seen = [e for e in events if e.kind is EventKind.PROMPT and e.label == "cat" and e.phase is not EventPhase.OFFSET]
    assert seen and max(e.tick for e in seen) > last - 2 * 10**9
    supporting = {own.sensor for e in seen for own in e.evidence if own.supports}
    assert robot.cat in supporting and robot.covered not in supporting


def test_live_and_replayed_vectors_and_events_of_two_robots_are_the_same(
    bags: Mapping[Robot, Path], config: Path, replayed: Mapping[Robot, Outputs]
) -> None:
    for robot, live in play_to_nodes(bags, config, replayed).items():
        got, wanted = ({_key(e): e.vector for e in found.embeddings} for found in (live, replayed[robot]))
        last = FUSED, max(tick for _, tick in wanted)  # fused when the node stops
        assert (wanted.keys() - got.keys() - {last}, got.keys() - wanted.keys()) == (set(), set()), robot
        assert not {key: vector @ wanted[key] for key, vector in got.items() if vector @ wanted[key] < 0.9999}
        events = [e for e in live.events if e.label != STOPPED]
        assert [_report(e) for e in events] == [_report(e) for e in replayed[robot].events]


def play_to_nodes(bags: Mapping[Robot, Path], config: Path, expected: Mapping[Robot, Outputs]) -> dict[Robot, Outputs]:
    """What the nodes of each robot publish while a player plays its recording. All robots run at the same time.

    Waits at most 20 s for as many vectors and events as `expected`, then a moment to notice an excess one.
    """
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    file = ("--ros-args", "--params-file", str(config))
    vectors: dict[Robot, list[tuple[float, Any]]] = {}
    events: dict[Robot, list[tuple[float, Any]]] = {}
    with ExitStack() as stack, ExitStack() as embedders, ExitStack() as detectors:
        me = stack.enter_context(peer(environment))
        for robot in bags:
            vectors[robot] = []
            for name in (*SENSORS, FUSED):
                topic = f"/{robot.namespace}/embeddings/{name}"
                me.subscribe(messages.EMBEDDING_TYPE, topic, EMBEDDING_QOS, into=vectors[robot])
            events[robot] = me.subscribe(messages.EVENT_TYPE, f"/{robot.namespace}/events", EVENT_QOS)
        started = []
        for robot in bags:
            arguments = (*file, "-r", f"__ns:=/{robot.namespace}")
            embedders.enter_context(running("embedder", *arguments, environment=environment))
            started.append(detectors.enter_context(running("detector", *arguments, environment=environment)))
        for detector in started:
            detector.wait_for_output("events from", 90)
        with ExitStack() as players:
            playing = []
            for robot, bag in bags.items():
                options = parameter_arguments({"delay": 4.0, "clock": False, "wait_for": TOPICS})
                topics = [part for topic in TOPICS for part in ("-r", f"{topic}:=/{robot.namespace}{topic}")]
                playing.append(
                    players.enter_context(running("player", str(bag), *options, *topics, environment=environment))
                )
            me.wait_until(lambda: not any(player.is_running for player in playing), 60, "the end of the recordings")
        me.spin_until(lambda: all(len(vectors[r]) >= len(expected[r].embeddings) - 1 for r in bags), 20)
        me.spin(1.0)
        detectors.close()
        me.spin_until(lambda: all(len(events[r]) >= len(expected[r].events) for r in bags), 20)
        me.spin(0.5)
    return {
        robot: Outputs(
            [messages.embedding_from_message(message) for _, message in vectors[robot]],
            [messages.event_from_message(message) for _, message in events[robot]],
        )
        for robot in bags
    }


def _key(embedding: Embedding) -> tuple[str, int]:
    return embedding.source, embedding.tick


def _report(event: Event) -> tuple[Any, ...]:
    return event.id, event.phase, [(e.modality, e.sensor, e.frame_id, e.supports) for e in event.evidence]
