"""A camera that publishes H.264 in CompressedImage: the embedder publishes the vectors of a replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.ros_processes import parameter_arguments, peer, ros_environment, running
from sensebind.benchmarks.harness.video_packets import encode_video
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.replay.session import Settings, open_replay

START = 1_700_000_000 * SECOND
SECONDS, RATE, TOPIC = 6, 10, "/camera/image/compressed"
PARAMETERS = {"modalities": ["vision"], "vision.transport": "compressed"}


def record(path: Path) -> None:
    random = np.random.default_rng(0)
    places = np.mgrid[:120, :160]
    images = (
        np.clip(np.stack([places[1] + 3 * i, places[0] + 40, 128 + 0 * places[0]], axis=2) % 256
                + random.normal(0, 4, (120, 160, 3)), 0, 255).astype(np.uint8)
        for i in range(SECONDS * RATE)
    )  # fmt: skip
    packets = encode_video(images, rate=RATE, keyframe_interval=RATE)
    with BagWriter(path) as bag:
        for number, packet in enumerate(packets[3:]):  # the recording begins between two keyframes
            stamp = START + number * SECOND // RATE
            header = messages.header_message(bag.message_factory, stamp, "camera")
            image = bag.message_factory.make(
                messages.COMPRESSED_IMAGE_TYPE, header=header, format="h264", data=np.frombuffer(packet, np.uint8)
            )
            bag.write(TOPIC, messages.COMPRESSED_IMAGE_TYPE, stamp, image)


@pytest.mark.parametrize("space", ["starter"])
def test_the_embedder_decodes_video_as_a_replay_does(tmp_path: Path, space: str) -> None:
    from sensebind.nodes.support.qos import EMBEDDING_QOS

    environment = ros_environment("sensebind_msgs")
    record(tmp_path / "bag")
    config = tmp_path / "video.yaml"
    config.write_text("/**: {ros__parameters: {modalities: [vision], vision: {transport: compressed}}}")
    settings = Settings.read(config)
    with open_replay(tmp_path / "bag", settings.embedder) as replay:
        outputs = list(replay.outputs(settings.pipeline(settings.space())))
    expected = {o.tick: o.vector for o in outputs if isinstance(o, Embedding) and o.modality == "vision"}
    assert len(expected) >= 2 * SECONDS - 4
    with peer(environment) as me:
        received = me.subscribe(messages.EMBEDDING_TYPE, "embeddings/vision", EMBEDDING_QOS)
        file = ("--ros-args", "--params-file", str(config))
        with running("embedder", *file, environment=environment) as embedder:
            me.wait_until(lambda: me.node.count_subscribers(TOPIC) > 0, 60, "the embedder's subscription")
            options = parameter_arguments({"delay": 3.0})
            with running("player", str(tmp_path / "bag"), *options, environment=environment) as player:
                me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
            me.wait_until(lambda: len(received) >= len(expected) - 1, 30, "the vectors")
            lines = "\n".join(embedder.lines)
    assert "a packet of its h264 video before the first keyframe gives no image" in lines
    found = [messages.embedding_from_message(message) for _, message in received]
    assert all(e.vector @ expected[e.tick] > 0.9999 for e in found)
