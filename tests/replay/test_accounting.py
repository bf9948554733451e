"""Everything that a real recording has is accounted for: used, or counted by its cause."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.toy_space import ToySpace
from sensebind.fusion.core.samples import AUDIO, IMU, VISION
from sensebind.fusion.stream.accounting.identity import unaccounted
from sensebind.replay.session import Settings, open_with_sensors

RECORDINGS = ROOT.parent / "shared" / "recordings"


def counted_independently(folder: Path) -> Counter[str]:
    """Topic → messages, by SQLite itself, or by the reader of rosbags: neither is the reader of a replay."""
    counts: Counter[str] = Counter()
    for file in folder.glob("*.db3"):
        with sqlite3.connect(f"file:{file}?immutable=1", uri=True) as database:
            query = "SELECT name, count(*) FROM messages JOIN topics ON topics.id = topic_id GROUP BY name"
            counts.update(dict(database.execute(query)))
    if counts:
        return counts
    from rosbags.rosbag2.storage_mcap import McapReader

    for file in folder.glob("*.mcap"):
        reader = McapReader(file)
        reader.open()
        counts.update(connection.topic for connection, _, _ in reader.messages(reader.connections))
        reader.close()
    return counts


@pytest.mark.parametrize("name", ["gopro_drone", "euroc_stereo_imu", "auv", "rov_imu"])
def test_all_messages_of_a_real_recording_are_used_or_counted_by_cause(name: str) -> None:
    if not (RECORDINGS / name).exists():
        pytest.skip("the shared recordings are not here")
    published = counted_independently(RECORDINGS / name)
    settings = Settings.of({"modalities": [VISION, AUDIO, IMU]})
    with open_with_sensors(RECORDINGS / name, settings) as (found, replay):
        pipeline = found.pipeline(ToySpace([VISION, AUDIO, IMU]))
        list(replay.outputs(pipeline))
        losses, topics, statistics = replay.losses(pipeline), dict(replay.topics), pipeline.statistics()
        unused = {topic.name: topic.message_count for topic in losses.unused_topics}
        side = replay.reader.read_topics - set(topics.values())
    assert topics and not losses.recording
    for sensor, topic in topics.items():
        own = losses.sensors[sensor]
        assert own.messages == published[topic], topic
        assert own.messages == own.samples + sum(own.messages_lost.values()), "each is a sample, or counted"
        assert not unaccounted(own.accounts) and not any(line.waiting for line in own.accounts), own.accounts
        assert own.accounts[0].total == published[topic]
        embedded = statistics[sensor].counts["embedded"]
        without = sum(count for cause, count in own.windows_lost.items() if cause != "unfused")
        assert own.windows == embedded + without, "each window is embedded, or counted"
    assert set(topics.values()) | side | unused.keys() == published.keys()
    assert all(published[topic] == count for topic, count in unused.items())
