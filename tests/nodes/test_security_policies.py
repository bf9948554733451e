"""The SROS2 policy of each node allows all that the node does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from xml.etree import ElementTree

import pytest

from helpers.paths import ROOT
from helpers.ros_processes import Peer, peer, ros_environment, running
from sensebind.fusion.io import messages

NODES = {
    "embedder": {"space": "starter", "device": "cpu", "use_sim_time": True},
    "detector": {"detectors": ["prompt"], "prompts.person": ["a person"], "use_sim_time": True},
    "bridge": {"address": "tcp://127.0.0.1:*", "use_sim_time": True},
    "event_recorder": {"use_sim_time": True},
}
SENSORS = {
    "camera/image": messages.IMAGE_TYPE,
    "depth/image": messages.IMAGE_TYPE,
    "thermal/image": messages.IMAGE_TYPE,
    "imu": messages.IMU_TYPE,
    "audio": "audio_common_msgs/msg/AudioDataStamped",
}
# The schema of SROS2's policies (policy.xsd, version 0.2.0): element → its attributes, and its allowed children.
SCHEMA: dict[str, tuple[set[str], set[str]]] = {
    "policy": ({"version"}, {"enclaves"}),
    "enclaves": (set(), {"enclave"}),
    "enclave": ({"path"}, {"profiles"}),
    "profiles": (set(), {"profile"}),
    "profile": ({"ns", "node"}, {"topics", "services"}),
    "topics": ({"publish", "subscribe"}, {"topic"}),
    "services": ({"reply", "request"}, {"service"}),
    "topic": (set(), set()),
    "service": (set(), set()),
}
ACCESS = ("publish", "subscribe", "reply", "request")


def policy(node: str) -> ElementTree.Element:
    return ElementTree.parse(ROOT / "config" / "security" / f"{node}.policy.xml").getroot()


def allowed(node: str) -> dict[str, set[str]]:
    """Kind of access → the absolute names that the policy allows; a name may end in a wildcard."""
    result: dict[str, set[str]] = {kind: set() for kind in ACCESS}
    for profile in policy(node).iter("profile"):
        for group in profile:
            for kind in ACCESS:
                if group.get(kind) == "ALLOW":
                    result[kind] |= {absolute(str(item.text), profile.attrib) for item in group}
    return result


def absolute(name: str, profile: dict[str, str]) -> str:
    """A name as SROS2 resolves it: of the root, of the node, or of its namespace."""
    if name.startswith("/"):
        return name
    return profile["ns"].rstrip("/") + "/" + name.replace("~", profile["node"], 1)


def test_every_policy_follows_the_schema_of_sros2_and_is_of_one_node() -> None:
    files = sorted((ROOT / "config" / "security").glob("*"))
    assert [file.name for file in files] == sorted(f"{node}.policy.xml" for node in NODES)
    for node in NODES:
        root = policy(node)
        assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
        for element in root.iter():
            attributes, children = SCHEMA[element.tag]
            assert set(element.attrib) <= attributes and {child.tag for child in element} <= children, element.tag
            assert bool(children) == bool(len(element)) and bool(children) != bool((element.text or "").strip())
        assert [profile.attrib for profile in root.iter("profile")] == [{"ns": "/", "node": node}]
        assert [enclave.get("path") for enclave in root.iter("enclave")] == [f"/sensebind/{node}"]


@pytest.fixture(scope="module")
def me() -> Iterator[Peer]:
    """A peer that publishes every sensor, and all nodes."""
    environment = ros_environment("sensebind_msgs", "rosbag2_interfaces")
    with ExitStack() as stack:
        result = stack.enter_context(peer(environment))
        publishers = [result.publisher(kind, topic) for topic, kind in SENSORS.items()]
        for name, values in NODES.items():
            stack.enter_context(running(name, environment=environment, values=values))
        result.wait_until(lambda: all(p.get_subscription_count() for p in publishers), 60, "the sensors' subscriptions")
        yield result


def used(me: Peer, node: str) -> dict[str, set[str]]:
    """Kind of access → the absolute names that the running node uses now."""
    found = {
        "publish": me.node.get_publisher_names_and_types_by_node(node, "/"),
        "subscribe": me.node.get_subscriber_names_and_types_by_node(node, "/"),
        "reply": me.node.get_service_names_and_types_by_node(node, "/"),
        "request": me.node.get_client_names_and_types_by_node(node, "/"),
    }
    return {kind: {name for name, _ in names} for kind, names in found.items()}


def test_a_policy_allows_what_its_node_does_and_nothing_that_it_never_does(me: Peer) -> None:
    for node in NODES:
        rules = allowed(node)
        # The image transports that the robot does not use.
        optional = {name for name in rules["subscribe"] if name.endswith(("image/*", "camera_info"))}
        expected = {(kind, name) for kind in ACCESS for name in rules[kind] - optional}

        def unused(node: str = node, expected: set[tuple[str, str]] = expected) -> set[tuple[str, str]]:
            now = used(me, node)
            return {rule for rule in expected if not any(fnmatchcase(name, rule[1]) for name in now[rule[0]])}

        me.spin_until(lambda: not unused(), 10)
        assert not unused(), (node, "allowed, but never used")
        for kind, names in used(me, node).items():
            denied = {name for name in names if not any(fnmatchcase(name, pattern) for pattern in rules[kind])}
            assert not denied, (node, kind, "used, but not allowed")
    assert {"/camera/image", "/camera/camera_info", "/imu", "/audio"} <= used(me, "embedder")["subscribe"]
