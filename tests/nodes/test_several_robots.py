"""One embedder for several robots: each gets what an embedder of its own would publish, whoever does the work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from helpers.ros_processes import Executable, Peer, parameter_arguments, peer, ros_environment, running
from helpers.ros_services import NodeServices
from helpers.stuck_spaces import with_stuck_space
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.replay.session import Settings, open_replay, open_with_sensors
from sensebind.simulation.messages import SIMULATION_START, image_message

ROBOTS = ("robot1", "robot2")
SECONDS, IMAGE_RATE, IMU_RATE = 8, 10, 100
VALUES: dict[str, Any] = {
    "device": "cpu",
    "modalities": ["vision", "imu"],
    "deadline": 0.0,
    "vision.topic": "front/image",
    "detectors": ["prompt"],
    "prompts.cat": ["a cat"],
}


def pixels_of(robot: str) -> npt.NDArray[np.uint8]:
    """RGB pixels: the first robot sees a cat, the second a wall."""
    if robot == ROBOTS[0]:
        from skimage.data import chelsea

        return np.asarray(cv2.resize(chelsea(), (320, 240), interpolation=cv2.INTER_AREA), np.uint8)
    return np.broadcast_to(np.linspace(60, 160, 320)[None, :, None], (240, 320, 3)).astype(np.uint8)


def record(path: Path, namespaces: dict[str, str]) -> Path:
    """Write a bag with the topics of each robot in `namespaces` (robot → namespace)."""
    with BagWriter(path) as bag:
        make = bag.message_factory.make
        for step in range(SECONDS * IMU_RATE):
            stamp = SIMULATION_START + step * SECOND // IMU_RATE
            for robot, namespace in namespaces.items():
                noise = np.random.default_rng([step, len(robot), int(robot[-1])])
                x, y, z, p, q, r = noise.normal(0, 0.02, 6) + [0, 0, 9.81, 0, 0, 0]
                reading = make(
                    messages.IMU_TYPE,
                    header=messages.header_message(bag.message_factory, stamp, "base"),
                    orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
                    orientation_covariance=np.array([-1.0, *[0.0] * 8]),
                    angular_velocity=make("geometry_msgs/msg/Vector3", x=float(p), y=float(q), z=float(r)),
                    angular_velocity_covariance=np.zeros(9),
                    linear_acceleration=make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z)),
                    linear_acceleration_covariance=np.zeros(9),
                )
                bag.write(f"{namespace}/imu", messages.IMU_TYPE, stamp, reading)
                if step % (IMU_RATE // IMAGE_RATE) == 0:
                    image = np.clip(pixels_of(robot) + noise.normal(0, 3, (240, 320, 3)), 0, 255).astype(np.uint8)
                    message = image_message(bag.message_factory, stamp, f"{robot}_camera", "rgb8", image)
                    bag.write(f"{namespace}/front/image", messages.IMAGE_TYPE, stamp, message)
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both robots, each in its namespace."""
    return record(tmp_path_factory.mktemp("robots") / "bag", {robot: f"/{robot}" for robot in ROBOTS})


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Embedding], list[Event]]]:
    """Robot → what a replay of it alone gives."""
    found = {}
    settings = Settings.of(VALUES, VALUES)
    space = settings.space()
    for robot in ROBOTS:
        alone = record(tmp_path_factory.mktemp(robot) / "bag", {robot: ""})
        with open_replay(alone, settings.embedder) as replay:
            outputs = list(replay.outputs(settings.pipeline(space, settings.events(space))))
        found[robot] = [o for o in outputs if isinstance(o, Embedding)], [o for o in outputs if isinstance(o, Event)]
    return found


@contextmanager
def embedder(environment: dict[str, str], workers: int, *arguments: str, status: int = 0) -> Iterator[Executable]:
    """The embedder of both robots. `arguments`: more of its command line. `status`: its exit status."""
    values = {**VALUES, "robots": list(ROBOTS), "workers": workers}
    with running("embedder", *arguments, environment=environment, values=values, status=status) as process:
        process.wait_for_output("2 robots in", 90)
        yield process


def embeddings_of(me: Peer, robot: str) -> list[tuple[float, Any]]:
    from sensebind.nodes.support.qos import EMBEDDING_QOS

    return me.subscribe(messages.EMBEDDING_TYPE, f"/{robot}/embeddings/{FUSED}", EMBEDDING_QOS)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_each_robot_gets_the_vectors_and_events_of_its_replay(
    bag: Path, replayed: dict[str, tuple[list[Embedding], list[Event]]], workers: int
) -> None:
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

    environment = ros_environment("sensebind_msgs")
    names = ("vision", "imu", FUSED)
    with peer(environment) as me, ExitStack() as detectors:
        received = {
            robot: [me.subscribe(messages.EMBEDDING_TYPE, f"/{robot}/embeddings/{n}", EMBEDDING_QOS) for n in names]
            for robot in ROBOTS
        }
        published = {robot: me.subscribe(messages.EVENT_TYPE, f"/{robot}/events", EVENT_QOS) for robot in ROBOTS}
        with embedder(environment, workers):
            for robot in ROBOTS:  # unchanged detectors: an embedder appears in the namespace of each robot
                options = ("--ros-args", "-r", f"__ns:=/{robot}")
                detector = running("detector", *options, environment=environment, values=VALUES)
                detectors.enter_context(detector).wait_for_output("events from", 90)
            options = parameter_arguments({"delay": 4.0, "wait_for": [f"/{robot}/imu" for robot in ROBOTS]})
            with running("player", str(bag), *options, environment=environment) as player:
                me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
            for robot in ROBOTS:
                me.spin_until(lambda r=robot: sum(map(len, received[r])) >= len(replayed[r][0]) - 1, 20)
            me.spin(2.5)
        for robot in ROBOTS:
            me.spin_until(lambda r=robot: len(published[r]) >= len(replayed[r][1]), 20)
    for robot in ROBOTS:
        wanted = {(e.source, e.tick): e.vector for e in replayed[robot][0]}
        got = {
            (e.source, e.tick): e.vector
            for group in received[robot]
            for _, message in group
            for e in [messages.embedding_from_message(message)]
        }
        last = FUSED, max(tick for _, tick in wanted)  # fused when the node stops
        assert got.keys() | {last} == wanted.keys()
        assert not {key for key, vector in got.items() if vector @ wanted[key] < 0.9999}
        events = [messages.event_from_message(message) for _, message in published[robot]]
        assert [(e.id, e.label, e.phase) for e in events] == [(e.id, e.label, e.phase) for e in replayed[robot][1]]
    assert replayed[ROBOTS[0]][1] and not replayed[ROBOTS[1]][1]


@pytest.mark.slow  # the quick sibling: a killed embedder in test_watchdog.py
def test_a_worker_that_is_killed_is_started_again_and_the_other_robot_goes_on(bag: Path, tmp_path: Path) -> None:
    from lifecycle_msgs.msg import Transition

    environment = ros_environment("sensebind_msgs")
    file = tmp_path / "robots.yaml"
    file.write_text("embedder: {ros__parameters: {idle_timeout: 2.0}}\n")
    arguments = ("--ros-args", "--params-file", str(file), "--")
    with peer(environment) as me, embedder(environment, 2, *arguments) as process:
        file.unlink()  # a worker that is started again does not need it
        received = {robot: embeddings_of(me, robot) for robot in ROBOTS}
        options = parameter_arguments({"loop": True, "delay": 1.0})
        with running("player", str(bag), *options, environment=environment):
            for robot in ROBOTS:
                me.wait_until(lambda r=robot: len(received[r]) > 3, 60, f"embeddings of {robot}")
            victim, *_ = worker_ids(process.pid)
            os.kill(victim, signal.SIGKILL)
            process.wait_for_output("has ended (signal 9): it is started again", 30)
            counts = {robot: len(received[robot]) for robot in ROBOTS}
            for robot in ROBOTS:
                me.wait_until(lambda r=robot: len(received[r]) > counts[r] + 3, 60, f"more embeddings of {robot}")
            change_state(me, Transition.TRANSITION_DEACTIVATE)
            os.kill(worker_ids(process.pid)[0], signal.SIGKILL)  # while nothing watches it
            change_state(me, Transition.TRANSITION_ACTIVATE)
            counts = {robot: len(received[robot]) for robot in ROBOTS}
            for robot in ROBOTS:
                me.wait_until(lambda r=robot: len(received[r]) > counts[r] + 3, 60, f"more embeddings of {robot}")
        assert len(worker_ids(process.pid)) == 2
    assert "Traceback" not in process.output


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_ctrl_c_while_workers_start_prints_one_line(seconds: float) -> None:
    """A terminal and launch send SIGINT to all processes."""
    environment = ros_environment("sensebind_msgs")
    values = {**VALUES, "robots": list(ROBOTS), "workers": 2}
    with running("embedder", environment=environment, values=values) as process:
        deadline = time.monotonic() + 60
        while not (ids := worker_ids(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(seconds)
        ids = worker_ids(process.pid)
        assert ids
        for number in (*ids, process.pid):
            os.kill(number, signal.SIGINT)
        assert process.wait(20) == 0
    assert not [number for number in ids if is_running(number)]
    assert process.output.count("stopped by SIGINT") == 1
    assert "Traceback" not in process.output and "KeyboardInterrupt" not in process.output


@pytest.mark.slow
def test_a_worker_that_hangs_does_not_stop_the_other_robot_or_the_end(bag: Path) -> None:
    environment = ros_environment("sensebind_msgs")
    with peer(environment) as me, embedder(environment, workers=2, status=1) as process:
        received = {robot: embeddings_of(me, robot) for robot in ROBOTS}
        with running("player", str(bag), *parameter_arguments({"loop": True, "delay": 1.0}), environment=environment):
            for robot in ROBOTS:
                me.wait_until(lambda r=robot: len(received[r]) > 3, 60, f"embeddings of {robot}")
            hanging = worker_ids(process.pid)[0]  # that of the first robot
            os.kill(hanging, signal.SIGSTOP)
            process.wait_for_output("worker 1 for /robot1 does not answer", 30)
            before = len(received[ROBOTS[1]])
            me.wait_until(lambda: len(received[ROBOTS[1]]) > before + 5, 60, "embeddings of the other robot")
        begun = time.monotonic()
        assert process.stop() == 1
        assert time.monotonic() - begun < 20
        assert not is_running(hanging)
    assert "worker 1 did not end in order (signal 9): its last windows are lost" in process.output
    assert "Traceback" not in process.output


def test_workers_end_with_an_embedder_that_is_killed(bag: Path) -> None:
    environment = ros_environment("sensebind_msgs")
    values = {**VALUES, "robots": list(ROBOTS), "workers": 2}
    with running("embedder", environment=environment, values=values, status=None) as process, peer(environment) as me:
        process.wait_for_output("2 robots in", 90)
        ids = worker_ids(process.pid)
        assert len(ids) == 2
        process.kill()
        me.wait_until(lambda: not any(is_running(number) for number in ids), 20, "the end of the workers")


def test_a_replay_reads_the_robot_of_the_namespace(
    bag: Path, replayed: dict[str, tuple[list[Embedding], list[Event]]], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.of({**VALUES, "robots": list(ROBOTS)}, VALUES)
    space = settings.space()
    for robot in ROBOTS:
        with open_with_sensors(bag, settings, robot) as (own, replay):
            outputs = list(replay.outputs(own.pipeline(space, own.events(space))))
        assert dict(replay.topics) == {"vision": f"/{robot}/front/image", "imu": f"/{robot}/imu"}
        for got, wanted in zip([o for o in outputs if isinstance(o, Embedding)], replayed[robot][0], strict=True):
            assert (got.source, got.tick) == (wanted.source, wanted.tick) and got.vector @ wanted.vector > 0.9999
        assert [o for o in outputs if isinstance(o, Event)] == replayed[robot][1]
    choose = pytest.raises(ConfigError, match="topics of robot1 and robot2.* choose one with --namespace robot1")
    with choose, open_with_sensors(bag, settings):
        pass
    with open_with_sensors(bag, Settings.of(VALUES | {"vision.topic": ""}), "robto1") as (_, replay):
        assert set(replay.topics.values()) > {f"/{robot}/imu" for robot in ROBOTS}  # as without a namespace
    assert "no topic in the namespace '/robto1': all topics are used" in caplog.text


def test_a_single_robot_may_have_its_topics_anywhere() -> None:
    environment = ros_environment("sensebind_msgs")
    rule = ("--ros-args", "-r", "imu:=/imu/data")
    with running("embedder", *rule, environment=environment, values={"modalities": ["imu"]}) as process:
        process.wait_for_output("imu: subscribed to /imu/data", 60)


def test_a_remapping_to_one_topic_for_all_robots_is_refused() -> None:
    environment = ros_environment("sensebind_msgs")
    rule = ("--ros-args", "-r", "front/image:=/camera/image")
    with running("embedder", *rule, environment=environment, values={**VALUES, "robots": list(ROBOTS)}) as process:
        process.wait_for_output("would give all robots one topic: remap it to 'camera/image'", 60)


def change_state(me: Peer, transition: int) -> None:
    """Send the embedder through a transition."""
    from lifecycle_msgs.srv import ChangeState

    client = me.node.create_client(ChangeState, "/embedder/change_state")
    request = ChangeState.Request()
    request.transition.id = transition
    future = client.call_async(request)
    me.wait_until(future.done, 30, f"transition {transition}")
    assert future.result().success


def worker_ids(parent: int) -> list[int]:
    """The ids of the workers of an embedder, the first robot's first."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(n) for n in children if b"sensebind.nodes.robots.worker" in Path(f"/proc/{n}/cmdline").read_bytes()]


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_new_value_of_use_sim_time_reaches_the_nodes_of_all_robots(workers: int, tmp_path: Path) -> None:
    environment = with_stuck_space(tmp_path, ros_environment("sensebind_msgs"))
    values = {"space": "stuck", "weights": "never", "modalities": ["imu"], "robots": list(ROBOTS), "workers": workers}
    with running("embedder", environment=environment, values=values) as process, peer(environment) as me:
        process.wait_for_output("2 robots in", 60)
        services = NodeServices(me, "/embedder")
        assert services.set("use_sim_time", True) == ""
        me.wait_until(lambda: me.node.count_subscribers("/clock") == 1 + len(ROBOTS), 20, "the subscribers of /clock")
        assert services.set("use_sim_time", False) == ""
        me.wait_until(lambda: me.node.count_subscribers("/clock") == 0, 20, "their end")


@pytest.mark.slow  # the quick siblings: the division of the limit in stream/test_memory
def test_workers_share_the_memory_limit_and_an_error_names_the_limit_that_is_enough_for_them(tmp_path: Path) -> None:
    environment = with_stuck_space(tmp_path, ros_environment("sensebind_msgs"))
    values: dict[str, Any] = {"space": "stuck", "weights": "never", "modalities": ["imu"], "memory_limit_mb": 1}
    values |= {"robots": list(ROBOTS), "workers": 2}
    with running("embedder", environment=environment, values=values) as process, peer(environment) as me:
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics", 100)
        services = NodeServices(me, "/embedder")

        def memory_of(robot: str) -> dict[str, str]:
            name = f"{robot}/embedder: memory"
            found = [s for _, message in diagnostics[-30:] for s in message.status if s.name == name]
            return {pair.key: pair.value for pair in found[-1].values} if found else {}

        def least(error: str) -> int:
            """The limit that the one line of an error names."""
            process.wait_for_output(error, 60)
            assert services.state() == "unconfigured"
            line = [line for line in process.lines if error in line][-1]  # a request without an answer is repeated
            return int(line.partition("Set memory_limit_mb to at least ")[2].partition(",")[0])

        enough = least("not configured: memory_limit_mb is 1 MB, and the least is")
        assert services.set("memory_limit_mb", enough + 20) == ""  # enough for the embedder, not for its workers
        services.change_state("configure")
        enough = least("not configured: worker 1 could not configure: memory_limit_mb leaves")
        limit = enough + 100
        assert services.set("memory_limit_mb", limit) == ""
        services.change_state("configure")
        services.change_state("activate")
        assert services.state() == "active", process.output
        me.wait_until(lambda: all(map(memory_of, ROBOTS)), 30, "the status of both robots")
        ids = worker_ids(process.pid)
        assert [int(memory_of(robot)["process"]) for robot in ROBOTS] == ids
        parts = {int(memory_of(robot)["memory_limit_mb"]) for robot in ROBOTS}
        assert len(parts) == 1 and 2 * sum(parts) < limit
        assert services.set("idle_timeout", 1.5) == ""  # all values are sent to the workers again
        os.kill(ids[0], signal.SIGKILL)
        me.wait_until(lambda: memory_of(ROBOTS[0]).get("process") not in ("", str(ids[0])), 60, "another worker")
        assert {int(memory_of(robot)["memory_limit_mb"]) for robot in ROBOTS} == parts
    assert "Traceback" not in process.output
