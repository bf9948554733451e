"""`sensebind doctor --security`: who can reach the running nodes, and who can read the keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.command_line import sensebind
from helpers.ros_processes import ros_environment, running

LOCAL = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_SECURITY_ENABLE": "", "ROS_SECURITY_KEYSTORE": ""}


def findings(folder: Path, *arguments: object, **variables: str) -> tuple[int, str]:
    """Exit status and output."""
    done = sensebind("doctor", "--security", *arguments, folder=folder, variables={**LOCAL, **variables})
    assert not done.stderr
    return done.returncode, done.stdout


def test_the_port_of_a_running_bridge_and_the_middleware_are_listed(tmp_path: Path) -> None:
    pytest.importorskip("psutil", reason="the extra 'security' is not installed")
    environment = ros_environment("sensebind_msgs")
    with running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}) as bridge:
        bridge.wait_for_output("publishing on tcp://127.0.0.1:")
        port = bridge.output.partition("publishing on tcp://127.0.0.1:")[2].split()[0]
        status, output = findings(tmp_path)
    label = f"ok   bridge, process {bridge.pid}:"
    assert status == 0 and f"{label} tcp 127.0.0.1:{port}\n" in output and f"{label} udp of the middleware" in output


def test_a_socket_that_every_user_may_write_to_is_a_failure(tmp_path: Path) -> None:
    pytest.importorskip("psutil", reason="the extra 'security' is not installed")
    socket = tmp_path / "bridge.socket"
    environment = ros_environment("sensebind_msgs")
    with running("bridge", environment=environment, values={"address": f"ipc://{socket}"}) as bridge:
        bridge.wait_for_output("publishing on ipc://")
        assert f"ok   bridge, process {bridge.pid}: socket {socket}" in findings(tmp_path)[1]
        os.chmod(socket, 0o777)
        status, output = findings(tmp_path)
    assert status == 1 and f"FAIL bridge, process {bridge.pid}: socket {socket}" in output
    assert f"chmod o-w '{socket}'" in output


def test_a_secret_key_that_others_can_read_is_a_failure_and_the_default_folder_is_found(tmp_path: Path) -> None:
    assert sensebind("keys", "--out", tmp_path / "keys", "--client", "dashboard").returncode == 0
    status, output = findings(tmp_path)
    assert status == 0 and output.count("ok   key: keys/") == 2
    secret = tmp_path / "keys" / "bridge.key_secret"
    secret.chmod(0o640)
    status, output = findings(tmp_path, "--keys", tmp_path / "keys")
    assert status == 1 and f"FAIL key: {secret} (-rw-r-----)" in output and f"chmod 600 '{secret}'" in output
    secret.chmod(0o600)
    (tmp_path / "keys").chmod(0o777)
    status, output = findings(tmp_path)
    assert status == 1 and "FAIL keys: others can replace the files of 'keys'" in output


def test_a_folder_that_is_no_folder_of_keys_is_not_searched_to_its_end(tmp_path: Path) -> None:
    from sensebind.commands.doctor import security

    for number in range(3):
        (tmp_path / f"{number}.key_secret").touch(0o600)
    assert security.secret_files(tmp_path) == (sorted(tmp_path.iterdir()), True)
    status, output = findings(tmp_path, "--keys", "/")
    assert status == 1 and f"'/' has more than {security.MAX_ENTRIES} files and folders" in output


def test_a_keystore_of_sros2_is_checked_too_and_permissive_security_is_a_failure(tmp_path: Path) -> None:
    private = tmp_path / "store" / "private"
    private.mkdir(parents=True)
    (private / "ca.key.pem").touch(0o600)
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": str(tmp_path / "store")}
    status, output = findings(tmp_path, **secure)
    assert status == 1 and "export ROS_SECURITY_STRATEGY=Enforce" in output
    status, output = findings(tmp_path, **secure, ROS_SECURITY_STRATEGY="Enforce")
    assert status == 0 and f"ok   key: {private / 'ca.key.pem'}" in output
    (private / "ca.key.pem").chmod(0o644)
    assert findings(tmp_path, **secure, ROS_SECURITY_STRATEGY="Enforce")[0] == 1


def test_who_can_publish_is_said_for_each_discovery_range(tmp_path: Path) -> None:
    assert "domain 0, SROS2 is off: this computer can publish" in findings(tmp_path, ROS_DOMAIN_ID="0")[1]
    status, output = findings(tmp_path, ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET")
    assert status == 0 and "every computer of the network can publish to the nodes" in output
    assert "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST" in output


def test_wrong_use_is_named(tmp_path: Path) -> None:
    status, output = findings(tmp_path, "--keys", tmp_path / "nowhere")
    assert status == 1 and f"'{tmp_path / 'nowhere'}' is not a folder" in output
    done = sensebind("doctor", "--keys", tmp_path)
    assert done.returncode == 2 and "--keys needs --security" in done.stderr
