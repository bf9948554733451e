"""The event recorder: snapshots at chosen onsets, and nothing lost or blocked where there is no recorder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helpers.diagnostic_statuses import DIAGNOSTICS, newest
from helpers.ros_processes import Executable, Peer, peer, ros_environment, run_ros_program, running
from helpers.ros_services import NodeServices
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.stream.accounting.topics import topic_accounts

SERVICE = "/recorder/snapshot"


class Recording:
    """A running event recorder, a publisher of events, and the newest diagnostics."""

    def __init__(self, me: Peer, node: Executable) -> None:
        from sensebind.fusion.io import messages
        from sensebind.nodes.support.message_types import RosMessageFactory
        from sensebind.nodes.support.qos import EVENT_QOS

        self.me, self.node, self._messages, self._factory = me, node, messages, RosMessageFactory()
        self._events = me.publisher(messages.EVENT_TYPE, "events", EVENT_QOS)
        self._diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics")
        self._publish(EventKind.PROMPT, "latched")  # before the node subscribes: it must not receive it
        me.wait_for_subscribers(self._events)

    def publish(self, label: str, kind: EventKind = EventKind.PROMPT) -> None:
        """The reports on one event, from onset to offset."""
        for phase in EventPhase:
            self._publish(kind, label, phase)

    def _publish(self, kind: EventKind, label: str, phase: EventPhase = EventPhase.ONSET) -> None:
        event = Event(f"{label}/1", kind, label, phase, 1, 2 if phase is EventPhase.OFFSET else 0, 2, 0.9, "toy@1", ())
        self._events.publish(self._messages.event_message(self._factory, event))

    def publish_bytes(self, data: bytes) -> None:
        """Publish bytes that may be no event."""
        self._events.publish(data)

    def counts(self) -> dict[str, str]:
        """The values of the newest status, with its message."""
        status = newest(self._diagnostics, "event_recorder: snapshots")
        return {**status.values, "message": status.message}

    def topic_counts(self) -> dict[str, int]:
        """What became of the events, for the accounting identity."""
        head = "events: "
        return {key.removeprefix(head): int(n) for key, n in self.counts().items() if key.startswith(head)}

    def wait_for(self, **counts: int) -> None:
        """Wait until the diagnostics have these counts."""
        self.me.wait_until(
            lambda: all(self.counts().get(name) == str(count) for name, count in counts.items()), 15, str(counts)
        )


@contextmanager
def recording(environment: dict[str, str], **values: Any) -> Iterator[Recording]:
    values = {"snapshot_service": SERVICE, "snapshot_interval": 0.0, **values}
    with peer(environment) as me, running("event_recorder", environment=environment, values=values) as node:
        yield Recording(me, node)


def test_the_onset_of_a_chosen_event_takes_one_snapshot() -> None:
    if find_spec("rosbag2_interfaces") is None:
        pytest.skip("rosbag2_interfaces is not installed here: `make .venv/.ready` builds its snapshot service")
    from sensebind.nodes.support.message_types import message_type

    answers = [True, False, True]
    taken: list[str] = []

    def snapshot(request: Any, response: Any) -> Any:
        taken.append("")
        response.success = answers[len(taken) - 1]
        return response

    environment = ros_environment("sensebind_msgs")
    with recording(environment, event_kinds=["prompt"], event_labels=["person", "dog"]) as found:
        found.me.node.create_service(message_type("rosbag2_interfaces/srv/Snapshot"), SERVICE, snapshot)
        found.me.spin(1.0)  # the node discovers the service
        found.publish("cat")
        found.publish_bytes(b"\0\1\0\1")  # a header that claims padding: Fast CDR reads past its end
        found.publish("person", EventKind.UNKNOWN)
        found.publish("person")
        found.wait_for(onsets=1, snapshots=1, too_soon=0)
        assert len(taken) == 1 and "snapshot for PROMPT person (person/1)" in found.node.output
        assert found.counts()["refused.event.malformed"] == "1"
        found.publish("dog")
        found.wait_for(onsets=2, snapshots=1, refused=1)
        assert "could not take the snapshot" in found.counts()["message"]
        assert NodeServices(found.me, "/event_recorder").set("snapshot_interval", 60.0) == "", "effective at once"
        found.publish("dog")
        found.wait_for(onsets=3, too_soon=1)
        assert NodeServices(found.me, "/event_recorder").set("snapshot_interval", 0.0) == ""
        assert NodeServices(found.me, "/event_recorder").set("snapshot_delay", 0.5) == ""
        found.publish("dog")
        found.publish("person")
        found.me.spin(0.2)
        assert len(taken) == 2, "the snapshot waits for its delay"
        found.wait_for(onsets=5, snapshots=2, too_soon=2)
        message = found.counts()["message"]
        assert message.startswith("2 snapshots; refused messages: event.malformed 1") and len(taken) == 3
        published, arrived = topic_accounts(found.topic_counts())
        assert arrived.used == {"snapshots": 2} and not arrived.unaccounted
        not_chosen = {"refused.malformed": 1, "not_chosen": 2 * 3 + 5 * 2, "too_soon": 2, "recorder_refused": 1}
        assert arrived.dropped == not_chosen
        assert published.total == 2 + 7 * 3, "with the one that was published before the node started"


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_recorder_each_onset_is_counted_and_the_warning_comes_once(installed: bool, tmp_path: Path) -> None:
    environment = ros_environment("sensebind_msgs")
    if not installed:  # hides the package, also where it is installed: a package that is loaded already is not ROS's
        (tmp_path / "rosbag2_interfaces.py").touch()
        (tmp_path / "sitecustomize.py").write_text("import rosbag2_interfaces\n")
        environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    elif find_spec("rosbag2_interfaces") is None:
        pytest.skip("rosbag2_interfaces is not installed here: `make .venv/.ready` builds its snapshot service")
    with recording(environment) as found:
        for label in ("a", "b", "c"):
            found.publish(label)
        found.wait_for(onsets=3, unavailable=3, snapshots=0)
        reason = f"the service '{SERVICE}' is not there" if installed else "install or build the ROS package"
        assert reason in found.counts()["message"] and found.node.output.count(reason) == 1


ENDED = """
from types import SimpleNamespace
import rclpy
from rclpy.serialization import serialize_message
from rclpy.task import Future
from helpers import poison_messages as poison
from sensebind.nodes import event_recorder as module
from sensebind.nodes.support.message_types import RosMessageFactory

rclpy.init(args=["--ros-args", "-p", "snapshot_interval:=0.0", "-p", "snapshot_delay:=0.0"])
node, calls = module.EventRecorderNode(), []
node.trigger_configure()
node.trigger_activate()
own = node._client
recorder = node._client = SimpleNamespace(
    service_is_ready=lambda: recorder.runs, runs=True, remove_pending_request=lambda call: None,
    call_async=lambda request: [calls.append(Future()), calls[-1]][1])
module.message_type = lambda name: SimpleNamespace(Request=object)


def begin_event():
    node._subscription.callback(serialize_message(poison.good_event(RosMessageFactory())), {})


begin_event()
recorder.runs = False  # it is killed while it writes
node._request_if_due()
recorder.runs = True
begin_event()
calls[-1].set_result(SimpleNamespace(success=True))
print(len(calls), {name: count for name, count in node._counts.items() if count})
node._client = own
"""


def test_a_recorder_that_ends_while_it_writes_is_asked_again_at_the_next_event() -> None:
    run = run_ros_program(ENDED)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "2 {'onsets': 2, 'unanswered': 1, 'snapshots': 1}"


def test_the_counts_begin_again_when_the_node_is_configured_again() -> None:
    with recording(ros_environment("sensebind_msgs")) as found:
        found.publish("a")
        found.wait_for(onsets=1, unavailable=1)
        services = NodeServices(found.me, "/event_recorder")
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert services.change_state(transition)
        found.wait_for(onsets=0, unavailable=0)
        found.publish("b")
        found.wait_for(onsets=1, unavailable=1)


def test_a_name_that_no_service_can_have_ends_the_node_with_the_parameter() -> None:
    environment = ros_environment("sensebind_msgs", "rosbag2_interfaces")
    values = {"snapshot_service": "bad name"}
    with running("event_recorder", environment=environment, values=values, status=None) as node:
        assert node.wait() == 1
    assert "'snapshot_service': 'bad name'" in node.output and "Traceback" not in node.output
