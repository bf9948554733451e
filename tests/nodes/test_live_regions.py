"""The nodes report the regions and bearings of a replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.camera_bag import PERSON_PROMPTS, person_at_the_left, record_photograph
from helpers.ros_processes import parameter_arguments, peer, ros_environment, running
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, EventPhase
from sensebind.fusion.core.samples import VISION
from sensebind.replay.session import Settings, open_replay

EMBEDDER = {"modalities": [VISION], "device": "cpu"}


def test_live_regions_and_bearings_are_those_of_a_replay(shared: Path, tmp_path: Path) -> None:
    from sensebind.fusion.io import messages
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

    record_photograph(tmp_path / "bag", person_at_the_left(shared), 6.0)
    settings = Settings.of(EMBEDDER, PERSON_PROMPTS)
    with open_replay(tmp_path / "bag", settings.embedder) as replay:
        space = settings.space()
        outputs = list(replay.outputs(settings.pipeline(space, settings.events(space))))
    objects = {o.tick: o.objects for o in outputs if isinstance(o, Embedding) and o.modality == VISION}
    reports = [o for o in outputs if isinstance(o, Event) and o.phase is not EventPhase.OFFSET]
    assert reports and all(event.label == "person" for event in reports)

    environment = ros_environment("sensebind_msgs")
    with (
        peer(environment) as me,
        running("embedder", environment=environment, values=EMBEDDER),
        running("detector", environment=environment, values=PERSON_PROMPTS) as detector,
    ):
        events = me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS)
        embeddings = me.subscribe(messages.EMBEDDING_TYPE, "embeddings/vision", EMBEDDING_QOS)
        detector.wait_for_output("events from")
        options = parameter_arguments({"rate": 1.0, "delay": 3.0, "wait_for": ["/camera/image"]})
        with running("player", str(tmp_path / "bag"), *options, environment=environment) as player:
            me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
        me.spin_until(lambda: len(embeddings) >= len(objects) - 1 and len(events) >= len(reports), 20)
    live = [messages.embedding_from_message(message) for _, message in embeddings]
    assert len(live) >= len(objects) - 1
    for embedding in live:
        assert [(o.name, o.region) for o in embedding.objects] == [(o.name, o.region) for o in objects[embedding.tick]]
    of_replay = {event.tick: own for event in reports for own in event.evidence}
    found = [messages.event_from_message(message) for _, message in events]
    compared = [(own, of_replay[e.tick]) for e in found if e.tick in of_replay for own in e.evidence]
    assert len(compared) >= 3
    for own, expected in compared:
        assert own.region == expected.region and own.region is not None
        assert own.bearing == pytest.approx(expected.bearing) and own.bearing is not None and own.bearing > 0
