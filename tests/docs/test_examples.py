"""The examples in docs/examples run as they are, on the outputs of a replay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.python_process import run_python
from helpers.ros_processes import Executable, parameter_arguments, ros_environment, running
from sensebind import Recording

EXAMPLES = ROOT / "docs" / "examples"
PROMPTS = "detector: {ros__parameters: {prompts: {piano: [a piano], drums: [drums]}}}"


@pytest.fixture(scope="module")
def replayed(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output bag of a replay: an unknown sound at first, then drums."""
    folder = tmp_path_factory.mktemp("replayed")
    (folder / "prompts.yaml").write_text(PROMPTS)
    replay = ["replay", str(survey), "--config", "prompts.yaml", "--out", "out"]
    run_python("-m", "sensebind.cli", *replay, folder=folder)
    return folder / "out" / "outputs"


def run_example(name: str, *arguments: str) -> str:
    """The output of an example that ends by itself."""
    return run_python(str(EXAMPLES / name), *arguments, folder=ROOT)


def test_the_events_of_a_replay_are_read_with_their_times(replayed: Path) -> None:
    lines = run_example("read_outputs.py", str(replayed)).splitlines()
    assert {line.partition(" s to ")[0] for line in lines} == {"unknown: 3.5", "drums: 3.5"}


def test_the_outputs_of_a_replay_are_played_to_late_subscribers_as_the_nodes_publish_them(replayed: Path) -> None:
    with Recording(replayed) as recording:
        latched = {topic.name for topic in recording.topics if topic.latched}
    assert latched == {"/events", "/embedding_space"}


def test_a_text_query_finds_the_moments_of_a_phrase(replayed: Path) -> None:
    lines = run_example("text_query.py", str(replayed), "drums", "audio").splitlines()
    seconds = [float(line.split(" s:")[0]) for line in lines]
    assert len(seconds) == 5 and min(seconds) > 5.5


def test_the_subscriber_and_the_client_without_ros_print_what_is_published(replayed: Path) -> None:
    environment = ros_environment()
    with running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}) as bridge:
        bridge.wait_for_output("tcp://127.0.0.1:")
        address = "tcp://127.0.0.1:" + bridge.output.split("tcp://127.0.0.1:")[1].split()[0].rstrip(".,;")
        subscriber = Executable([sys.executable, str(EXAMPLES / "subscriber.py")], environment)
        client = Executable([sys.executable, str(EXAMPLES / "zmq_client.py"), address], environment)
        try:
            player = [sys.executable, "-m", "sensebind.nodes.player", str(replayed)]
            played = Executable([*player, *parameter_arguments({"rate": 5.0, "delay": 3.0})], environment)
            for process in (subscriber, client):
                process.wait_for_output("drums", 60)
            assert played.wait() == 0
        finally:
            for process in (subscriber, client):
                process.kill()
    assert "drums: score " in subscriber.output and "supported by " in subscriber.output
    assert "2080 numbers from [" in subscriber.output
    assert "ONSET drums" in client.output and "embedding/vision at " in client.output
