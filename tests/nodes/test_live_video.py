"""Cameras that publish H.264 in CompressedImage, NV12 and colours of 16 bits: the embedder publishes the vectors of a
replay."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.diagnostic_statuses import DIAGNOSTICS, newest
from helpers.ros_processes import parameter_arguments, peer, ros_environment, running
from sensebind.benchmarks.harness.video_packets import encode_video
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.replay.session import Settings, open_replay

START = 1_700_000_000 * SECOND
SECONDS, RATE, TOPIC = 6, 10, "/camera/image/compressed"
SENSORS = ("camera", "planes", "deep")
CONFIG = """
/**:
  ros__parameters:
    modalities: [vision]
    deadline: 30.0  # no window is dropped on a busy machine
    vision: {sensors: [camera, planes, deep]}
    camera: {transport: compressed}
"""


def record(path: Path) -> None:
    random = np.random.default_rng(0)
    places = np.mgrid[:120, :160]
    images = [
        np.clip(np.stack([places[1] + 3 * i, places[0] + 40, 128 + 0 * places[0]], axis=2) % 256
                + random.normal(0, 4, (120, 160, 3)), 0, 255).astype(np.uint8)
        for i in range(SECONDS * RATE)
    ]  # fmt: skip
    packets = encode_video(images, rate=RATE, keyframe_interval=RATE)
    with BagWriter(path) as bag:
        for number, packet in enumerate(packets[3:]):  # the recording begins between two keyframes
            stamp = START + number * SECOND // RATE
            header = messages.header_message(bag.message_factory, stamp, "camera")
            image = bag.message_factory.make(  # its format says nothing
                messages.COMPRESSED_IMAGE_TYPE, header=header, format="", data=np.frombuffer(packet, np.uint8)
            )
            bag.write(TOPIC, messages.COMPRESSED_IMAGE_TYPE, stamp, image)
            i420 = cv2.cvtColor(images[number], cv2.COLOR_RGB2YUV_I420)
            pairs = np.stack([i420[120:150].reshape(60, 80), i420[150:].reshape(60, 80)], axis=2)
            nv12 = np.concatenate([i420[:120], pairs.reshape(60, 160)])
            deep = images[number].astype(np.uint16) << 8
            for name, encoding, pixels in (("planes", "nv12", nv12), ("deep", "rgb16", deep)):
                raw = pixels.view(np.uint8).reshape(-1)
                own = bag.message_factory.make(
                    messages.IMAGE_TYPE, header=header, height=120, width=160, encoding=encoding, is_bigendian=0,
                    step=pixels.nbytes // len(pixels), data=raw,
                )  # fmt: skip
                bag.write(f"/{name}/image", messages.IMAGE_TYPE, stamp, own)


@pytest.mark.parametrize("space", ["starter"])
def test_the_embedder_decodes_video_planes_and_deep_colours_as_a_replay_does(tmp_path: Path, space: str) -> None:
    from sensebind.nodes.support.qos import EMBEDDING_QOS

    environment = ros_environment("sensebind_msgs")
    record(tmp_path / "bag")
    config = tmp_path / "video.yaml"
    config.write_text(CONFIG)
    settings = Settings.read(config)
    with open_replay(tmp_path / "bag", settings.embedder) as replay:
        outputs = list(replay.outputs(settings.pipeline(settings.space())))
    expected = {(o.sensor, o.tick): o.vector for o in outputs if isinstance(o, Embedding) and o.modality == "vision"}
    for name in SENSORS:
        assert sum(sensor == name for sensor, _ in expected) >= 2 * SECONDS - 4
    with peer(environment) as me:
        received = [me.subscribe(messages.EMBEDDING_TYPE, f"embeddings/{name}", EMBEDDING_QOS) for name in SENSORS]
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics", 100)
        file = ("--ros-args", "--params-file", str(config))
        with running("embedder", *file, environment=environment) as embedder:
            me.wait_until(lambda: me.node.count_subscribers(TOPIC) > 0, 60, "the embedder's subscription")
            options = parameter_arguments({"delay": 5.0, "wait_for": [TOPIC]})
            with running("player", str(tmp_path / "bag"), *options, environment=environment) as player:
                me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
            enough = len(expected) - len(SENSORS)
            if not me.spin_until(lambda: sum(map(len, received)) >= enough, 10):
                counts = {name: newest(diagnostics, f"embedder: {name}") for name in SENSORS}
                pytest.fail(f"{[len(own) for own in received]} of {len(expected)} vectors: {counts} {embedder.output}")
            lines = "\n".join(embedder.lines)
    assert "a packet of its h264 video before the first keyframe gives no image" in lines
    found = [messages.embedding_from_message(message) for own in received for _, message in own]
    assert {e.sensor for e in found} == set(SENSORS)
    assert all(e.vector @ expected[e.sensor, e.tick] > 0.9999 for e in found)
