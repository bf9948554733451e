"""The bridge: authorized programs without ROS receive what the nodes publish, and no others do."""

from __future__ import annotations

import argparse
import os
import socket as socket_module
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from zmq.auth import load_certificate

from helpers import poison_messages as poison
from helpers.paths import ROOT
from helpers.ros_processes import PATIENCE, Executable, Peer, parameter_arguments, peer, ros_environment, running
from sensebind.commands import keys
from sensebind.fusion.core.embeddings import FUSED, Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.io.wire import WireError, decode, encode
from sensebind.fusion.io.zmq_publisher import MAX_COUNTS, ZmqPublisher, ZmqPublisherError, is_local

TICK = 1_700_000_000_500_000_000
ANY_PORT = "tcp://127.0.0.1:*"


def embedding(modality: str = "vision") -> Embedding:
    # float32 represents the compared numbers exactly.
    return Embedding(
        modality,
        TICK - 500_000_000,
        TICK,
        "starter@0123",
        0.75,
        l2_normalize(np.arange(1.0, 385.0)),
        "camera_optical_frame",
    )


def event() -> Event:
    evidence = (
        Evidence("vision", 0.75, True, TICK - 500_000_000, TICK),
        Evidence("audio", 0.25, False, TICK - 2_000_000_000, TICK),
    )
    return Event(
        f"prompt/person/{TICK}",
        EventKind.PROMPT,
        "person",
        EventPhase.ONSET,
        TICK,
        0,
        TICK,
        0.75,
        "starter@0123",
        evidence,
    )


@contextmanager
def subscriber(
    endpoint: str, topic: bytes = b"", keys_in: Path | None = None, client: str = ""
) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SUBSCRIBE, topic)
    if keys_in is not None:
        public, secret = load_certificate(keys_in / f"{client}.key_secret")
        assert secret is not None
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, load_certificate(keys_in / "bridge.key")[0])
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


def endpoint_of(bridge: Executable) -> str:
    bridge.wait_for_output("publishing on tcp://")
    return bridge.output.split("publishing on ")[1].split()[0]


def make_keys(folder: Path, client: str = "client") -> Path:
    assert keys.run(argparse.Namespace(out=folder, client=client)) == 0
    return folder


def same(a: Embedding, b: Embedding) -> bool:
    return bool(np.array_equal(a.vector, b.vector)) and replace(a, vector=b.vector) == b


# --- wire format


def test_a_decoded_embedding_equals_the_encoded_one() -> None:
    fused = replace(embedding(FUSED), sources=("audio", "vision"), weights=(0.25, 0.75))
    for sent in (embedding(), fused):
        topic, payload = encode(sent)
        assert topic == f"embedding/{sent.modality}".encode()
        got = decode(topic, payload)
        assert isinstance(got, Embedding)
        assert same(got, sent)


def test_a_decoded_event_equals_the_encoded_one() -> None:
    topic, payload = encode(event())
    assert topic == b"event"
    assert decode(topic, payload) == event()


def test_the_topic_of_a_robot_with_a_namespace_begins_with_it() -> None:
    for item, own in ((embedding(), "embedding/vision"), (event(), "event")):
        for robot in ("robot1", "fleet/robot1", "embedding", "event"):
            topic, payload = encode(item, robot=robot)
            assert topic == f"{robot}/{own}".encode() and msgpack.unpackb(payload)["robot"] == robot
            got = decode(topic, payload)
            if isinstance(got, Embedding) and isinstance(item, Embedding):
                assert same(got, item)
            else:
                assert got == item
    with pytest.raises(WireError, match="robot2/event"):  # the topic and the message disagree
        decode(b"robot2/event", encode(event(), robot="robot1")[1])


def test_a_reader_needs_only_msgpack_and_numpy() -> None:
    message = msgpack.unpackb(encode(embedding())[1])
    vector = np.frombuffer(message["vector"], "<f4")
    assert np.array_equal(vector, embedding().vector)
    assert (message["stamp"], message["window_start"], message["space"]) == (TICK, TICK - 500_000_000, "starter@0123")
    fields = msgpack.unpackb(encode(event())[1])
    assert (fields["kind"], fields["phase"], fields["label"]) == ("PROMPT", "ONSET", "person")
    assert [e["modality"] for e in fields["evidence"] if e["supports"]] == ["vision"]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (b"weather", encode(event())[1]),
        (b"event", b"\xc1"),
        (b"event", b""),
        (b"event", msgpack.packb([1, 2])),
        (b"event", msgpack.packb({"version": 1})),
        (b"event", msgpack.packb({"version": 3})),
        (b"embedding/vision", encode(event())[1]),
    ],
)
def test_bytes_in_another_format_are_refused(topic: bytes, payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(topic, payload)


def test_the_reader_in_the_documentation_works() -> None:
    page = (ROOT / "docs" / "bridge.md").read_text(encoding="utf-8")
    reader = page.split("```python\n")[1].split("```")[0]
    with ZmqPublisher(ANY_PORT) as publisher:
        code = reader.replace("tcp://127.0.0.1:7447", publisher.endpoint)
        process = Executable([sys.executable, "-u", "-c", code], os.environ)
        try:
            began = time.monotonic()
            while not ("event" in process.output and "embedding/vision" in process.output):
                assert process.is_running, process.output
                assert time.monotonic() - began < 20
                publisher.send(*encode(event()))
                publisher.send(*encode(embedding()))
                time.sleep(0.05)
        finally:
            process.kill()
    assert f"event {TICK} person" in process.lines[0] + process.lines[1]
    assert f"embedding/vision {TICK} [" in process.output


# --- socket


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:7447", True),
        ("tcp://127.8.9.1:*", True),
        ("tcp://localhost:7447", True),
        ("tcp://[::1]:7447", True),
        ("ipc:///tmp/socket", True),
        ("tcp://*:7447", False),
        ("tcp://0.0.0.0:7447", False),
        ("tcp://[::]:7447", False),
        ("tcp://eth0:7447", False),
        ("tcp://localhost.example.org:7447", False),
        ("tcp://192.168.1.5:7447", False),
    ],
)
def test_an_address_is_local_only_if_no_other_machine_can_reach_it(address: str, local: bool) -> None:
    assert is_local(address) == local
    if not local:
        with pytest.raises(ZmqPublisherError, match="sensebind keys"):
            ZmqPublisher(address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "127.0.0.1:7447", "tcp://127.0.0.1", "tcp://:7447", "udp://127.0.0.1:7447", "ipc://"),
        *("tcp://127.0.0.1:99999", "tcp://127.0.0.1:0", "tcp://127.0.0.1:-1", "tcp://127.0.0.1:٧٤٤٧"),
        *("tcp://127.0.0.1:" + "9" * 10_000, "tcp://127.0.0.1:7447\n[ERROR] forged", "ipc:///tmp/a\nb"),
    ],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ZmqPublisherError, match="'address'"):
        ZmqPublisher(address)


def test_a_path_is_bound_only_if_nothing_is_lost_there(tmp_path: Path) -> None:
    path = tmp_path / "bridge"
    for make_it in (lambda: path.write_text("notes"), path.mkdir, lambda: path.symlink_to(tmp_path / "elsewhere")):
        make_it()
        with pytest.raises(ZmqPublisherError, match="is kept"):
            ZmqPublisher(f"ipc://{path}")
        assert os.path.lexists(path)
        path.rmdir() if path.is_dir() else path.unlink()
    for missing in (tmp_path / "no folder" / "bridge", tmp_path / ("x" * 120)):
        with pytest.raises(ZmqPublisherError, match="no folder|107 bytes"):
            ZmqPublisher(f"ipc://{missing}")


def test_a_socket_that_a_killed_bridge_left_is_replaced_one_in_use_is_not_and_none_is_left_behind(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bridge"
    left = socket_module.socket(socket_module.AF_UNIX)
    left.bind(str(path))
    left.close()  # its file stays, as after SIGKILL
    with ZmqPublisher(f"ipc://{path}") as publisher:
        with pytest.raises(ZmqPublisherError, match="in use"):
            ZmqPublisher(f"ipc://{path}")
        with subscriber(publisher.endpoint) as client:
            began = time.monotonic()
            while not client.poll(20):
                publisher.send(b"event", b"x")
                assert time.monotonic() - began < 10
    assert not path.exists()
    publisher.close()  # a second time


def test_an_address_in_use_is_reported_and_a_closed_one_is_free_at_once() -> None:
    with ZmqPublisher(ANY_PORT) as first:
        with pytest.raises(ZmqPublisherError, match=f"{first.endpoint}.*in use"):
            ZmqPublisher(first.endpoint)
        for _ in range(2000):
            first.send(b"event", bytes(1000))
    with ZmqPublisher(first.endpoint) as second:
        assert second.endpoint == first.endpoint


def test_a_slow_client_loses_messages_and_does_not_delay_the_publisher() -> None:
    with ZmqPublisher(ANY_PORT, queue_size=10) as publisher, subscriber(publisher.endpoint) as slow:
        slow_began = time.monotonic()
        while not slow.poll(20):
            publisher.send(b"event", b"first")
            assert time.monotonic() - slow_began < 10
        began = time.monotonic()
        for _ in range(3000):
            publisher.send(b"event", bytes(100_000))
        assert time.monotonic() - began < 5
        assert publisher.counts["queue_full"] >= 1 and "too slowly" in publisher.drop_warning
        publisher.poll_connection_events()
        assert publisher.client_count == 1


HOSTILE_CLIENT = """
import sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1])
socket.setsockopt(zmq.SUBSCRIBE, b"x" * 2**20)  # ZeroMQ would use twelve times as many bytes
time.sleep(60)
"""


def test_a_client_that_subscribes_to_megabytes_is_disconnected_and_the_others_receive() -> None:
    with (
        ZmqPublisher(ANY_PORT) as publisher,
        subscriber(publisher.endpoint) as good,
        subprocess.Popen([sys.executable, "-c", HOSTILE_CLIENT, publisher.endpoint]) as hostile,
    ):
        try:
            began = time.monotonic()
            while not publisher.counts["closed"] or not good.poll(20):
                publisher.send(b"event", b"")
                publisher.poll_connection_events()
                assert time.monotonic() - began < 10 * PATIENCE
        finally:
            hostile.kill()


def test_ever_new_topics_take_bounded_memory_and_each_message_is_counted() -> None:
    with ZmqPublisher(ANY_PORT) as publisher:
        for number in range(3 * MAX_COUNTS):
            publisher.send(b"embedding/own%d" % number, b"")
        assert len(publisher.counts) == MAX_COUNTS + 1 and publisher.counts.total() == 3 * MAX_COUNTS


def test_a_reader_detects_each_message_that_was_dropped_for_it() -> None:
    """The example in the documentation: what it receives and what it reports as lost is all that was sent."""
    count = 20_000
    with ZmqPublisher(ANY_PORT, queue_size=10) as publisher:
        example = ROOT / "docs" / "examples" / "zmq_client.py"
        process = Executable([sys.executable, "-u", str(example), publisher.endpoint], os.environ)
        try:
            began = time.monotonic()
            while "ONSET" not in process.output:
                publisher.send(*encode(event(), 0))
                time.sleep(0.02)
                assert time.monotonic() - began < 20 * PATIENCE and process.is_running, process.output
            time.sleep(0.5)
            first = process.output.count("ONSET")
            for number in range(1, count):
                publisher.send(*encode(event(), number))
            time.sleep(0.5)
            deadline = time.monotonic() + 20 * PATIENCE
            lost = received = 0
            while lost + received < count and time.monotonic() < deadline:
                publisher.send(*encode(event(), count))  # the next one that arrives shows the last gap
                time.sleep(0.1)
                lines = list(process.lines)
                lost = sum(int(line.split()[1]) for line in lines if line.startswith("event: "))
                received = sum("ONSET" in line for line in lines) - first
        finally:
            process.kill()
    assert lost > 0 and publisher.counts["queue_full"] > 0
    assert received + lost >= count


def test_keys_are_created_in_pairs_and_secret_keys_are_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_keys(tmp_path / "keys", "dashboard")
    secrets = sorted(folder.glob("*.key_secret"))
    assert [path.name for path in secrets] == ["bridge.key_secret", "dashboard.key_secret"]
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        public, secret = load_certificate(path)
        assert secret is not None
        assert zmq.curve_public(secret) == public
    assert [path.name for path in (folder / "authorized").iterdir()] == ["dashboard.key"]
    assert b"secret" not in (folder / "authorized" / "dashboard.key").read_bytes()
    assert "authorized_keys: " in capsys.readouterr().out


def test_existing_keys_are_kept(tmp_path: Path) -> None:
    folder = make_keys(tmp_path, "one")
    before = {path: path.read_bytes() for path in folder.rglob("*.key*")}
    (folder / "one.key_secret").unlink()  # moved to the client, as the command advises
    make_keys(folder, "one")
    make_keys(folder, "two")
    after = {path: path.read_bytes() for path in folder.rglob("*.key*")}
    assert set(before) - set(after) == {folder / "one.key_secret"}
    assert all(after[path] == content for path, content in before.items() if path in after)
    assert len(after) == len(before) + 1  # two's pair of keys was added, one's secret key removed


@pytest.mark.parametrize("name", ["bridge", "", "../elsewhere", ".hidden", "a b"])
def test_a_client_name_that_is_not_a_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(keys.KeysError, match="--client"):
        keys.run(argparse.Namespace(out=tmp_path, client=name))


def test_without_its_authenticator_the_socket_accepts_no_client(tmp_path: Path) -> None:
    folder = make_keys(tmp_path)
    with ZmqPublisher(ANY_PORT, str(folder / "bridge.key_secret"), str(folder / "authorized")) as publisher:
        assert publisher._authenticator is not None
        publisher._authenticator.stop()
        with subscriber(publisher.endpoint, b"", folder, "client") as socket:
            for _ in range(10):
                publisher.send(b"event", b"")
                assert not socket.poll(50)


@pytest.mark.parametrize(
    ("secret", "authorized", "word"),
    [
        ("bridge.key_secret", "", "'authorized_keys'"),
        ("", "authorized", "'secret_key'"),
        ("nothing.key_secret", "authorized", "'secret_key'"),
        ("bridge.key", "authorized", "'secret_key'"),
        ("bridge.key_secret", "nowhere", "'authorized_keys'"),
        ("bridge.key_secret", "empty", "'authorized_keys'"),
    ],
)
def test_unusable_keys_are_refused(tmp_path: Path, secret: str, authorized: str, word: str) -> None:
    folder = make_keys(tmp_path)
    (folder / "empty").mkdir()
    with pytest.raises(ZmqPublisherError, match=word):
        ZmqPublisher(ANY_PORT, str(folder / secret) if secret else "", str(folder / authorized) if authorized else "")


# --- node


class Publishing:
    """Publishes embeddings and an event repeatedly, as an embedder and a detector would."""

    def __init__(self, me: Peer, *modalities: str, namespace: str = "") -> None:
        from sensebind.fusion.io import messages
        from sensebind.nodes.support.message_types import RosMessageFactory
        from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

        self._me = me
        self._outputs: list[tuple[Any, Any]] = [
            (
                me.publisher(messages.EMBEDDING_TYPE, f"{namespace}/embeddings/{m}", EMBEDDING_QOS),
                messages.embedding_message(RosMessageFactory(), embedding(m)),
            )
            for m in modalities
        ]
        self._outputs.append(
            (
                me.publisher(messages.EVENT_TYPE, f"{namespace}/events", EVENT_QOS),
                messages.event_message(RosMessageFactory(), event()),
            )
        )
        for publisher, _ in self._outputs:
            me.wait_for_subscribers(publisher)

    def publish(self) -> None:
        """Publish each message once."""
        for publisher, message in self._outputs:
            publisher.publish(message)
        self._me.spin(0.05)

    def until(self, socket: zmq.Socket[bytes], count: int, timeout: float) -> dict[bytes, bytes]:
        """Publish until `count` topics or `timeout` s are reached. Returns the received topic → payload."""
        got: dict[bytes, bytes] = {}
        deadline = time.monotonic() + timeout
        while len(got) < count and time.monotonic() < deadline:
            self.publish()
            while socket.poll(0):
                topic, payload = socket.recv_multipart()
                got[topic] = payload
        return got


def test_the_bridge_forwards_embeddings_of_every_modality_and_events() -> None:
    environment = ros_environment("sensebind_msgs")
    with (
        running("bridge", environment=environment, values={"address": ANY_PORT}) as bridge,
        peer(environment) as me,
        subscriber(endpoint_of(bridge)) as socket,
    ):
        from sensebind.fusion.io import messages
        from sensebind.nodes.support.message_types import RosMessageFactory
        from sensebind.nodes.support.qos import LATCHED_QOS

        space = poison.good_space(RosMessageFactory())
        space.id, space.dimension = embedding().space, embedding().vector.size
        space_publisher = me.publisher(messages.EMBEDDING_SPACE_TYPE, "/embedding_space", LATCHED_QOS)
        me.wait_for_subscribers(space_publisher)
        space_publisher.publish(space)
        # The space has no encoder for radar: the bridge finds the topic of this other publisher.
        got = Publishing(me, "vision", FUSED, "radar").until(socket, 4, 10)
        assert set(got) == {b"embedding/vision", b"embedding/fused", b"embedding/radar", b"event"}
        assert decode(b"event", got[b"event"]) == event()
        for modality in ("vision", FUSED, "radar"):
            topic = f"embedding/{modality}".encode()
            forwarded = decode(topic, got[topic])
            assert isinstance(forwarded, Embedding)
            assert same(forwarded, embedding(modality))


def test_the_bridge_numbers_the_messages_of_each_topic_so_that_a_client_notices_a_loss() -> None:
    environment = ros_environment("sensebind_msgs")
    with (
        running("bridge", environment=environment, values={"address": ANY_PORT}) as bridge,
        peer(environment) as me,
        subscriber(endpoint_of(bridge)) as socket,
    ):
        source = Publishing(me, "vision")
        numbers: dict[bytes, list[int]] = {b"embedding/vision": [], b"event": []}
        deadline = time.monotonic() + 10
        while min(map(len, numbers.values())) < 5 and time.monotonic() < deadline:
            source.publish()
            while socket.poll(0):
                topic, payload = socket.recv_multipart()
                numbers[topic].append(msgpack.unpackb(payload)["sequence"])
    for topic, found in numbers.items():
        assert len(found) >= 5 and found == list(range(found[0], found[0] + len(found))), topic


def test_only_clients_with_an_authorized_key_receive_data(tmp_path: Path) -> None:
    environment = ros_environment("sensebind_msgs")
    folder = make_keys(tmp_path / "keys")
    unauthorized = make_keys(tmp_path / "unauthorized")
    (unauthorized / "bridge.key").write_bytes((folder / "bridge.key").read_bytes())
    values = {
        "address": "tcp://0.0.0.0:*",
        "secret_key": str(folder / "bridge.key_secret"),
        "authorized_keys": str(folder / "authorized"),
    }
    with running("bridge", environment=environment, values=values) as bridge, peer(environment) as me:
        endpoint = endpoint_of(bridge).replace("0.0.0.0", "127.0.0.1")
        source = Publishing(me, FUSED)
        with (
            subscriber(endpoint) as keyless,
            subscriber(endpoint, b"", unauthorized, "client") as unknown,
            subscriber(endpoint, b"", folder, "client") as authorized,
        ):
            assert set(source.until(authorized, 2, 10)) == {b"embedding/fused", b"event"}
            assert source.until(keyless, 1, 1) == {}
            assert source.until(unknown, 1, 1) == {}
        bridge.wait_for_output("refused", 5)
        assert "chmod" not in bridge.output


def test_an_address_that_other_machines_can_reach_is_refused_without_keys() -> None:
    done = _run({"address": "tcp://*:7447"})
    assert done.returncode == 1
    assert "tcp://*:7447" in done.stderr
    assert "sensebind keys" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_counts_are_a_copy() -> None:
    with ZmqPublisher(ANY_PORT) as publisher:
        publisher.send(b"event", b"")
        publisher.counts.clear()
        assert publisher.counts == {"event": 1}


def test_a_second_publisher_takes_the_next_free_port_if_it_may() -> None:
    with ZmqPublisher(ANY_PORT) as first:
        port = int(first.endpoint.rpartition(":")[2])
        with ZmqPublisher(first.endpoint, more_ports=15) as second:
            assert port < int(second.endpoint.rpartition(":")[2]) <= port + 15


def test_two_robots_on_one_computer_publish_on_free_ports_with_their_names_in_the_topics() -> None:
    environment = ros_environment("sensebind_msgs")
    # The default address may be in use on this computer; what counts is that two bridges get different ones.
    with (
        running("bridge", "--ros-args", "-r", "__ns:=/robot1", environment=environment) as one,
        running("bridge", "--ros-args", "-r", "__ns:=/robot2", environment=environment) as two,
        peer(environment) as me,
    ):
        endpoints = [endpoint_of(one), endpoint_of(two)]
        assert len(set(endpoints)) == 2 and "is in use" in one.output + two.output
        source = Publishing(me, "vision", namespace="/robot2")
        with subscriber(endpoints[1], b"robot2/") as socket:
            assert set(source.until(socket, 2, 10)) == {b"robot2/embedding/vision", b"robot2/event"}


def test_a_second_bridge_reports_that_the_address_is_in_use() -> None:
    with ZmqPublisher(ANY_PORT) as publisher:
        done = _run({"address": publisher.endpoint})
    assert done.returncode == 1
    assert f"'{publisher.endpoint}' is in use" in done.stderr
    assert "Traceback" not in done.stderr


def _run(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sensebind.nodes.bridge", *parameter_arguments(values)]
    environment = ros_environment("sensebind_msgs")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
