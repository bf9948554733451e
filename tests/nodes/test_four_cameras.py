"""Several sensors of a modality: the nodes publish what a replay of the same recording gives, each with its sensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.four_cameras import SENSORS, record_four_cameras, settings_file
from helpers.ros_processes import parameter_arguments, peer, ros_environment, running
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.io import messages
from sensebind.replay.session import Settings, open_replay

COVERED = "rear"  # the camera that is covered in the middle of the recording


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds with four cameras, two IMUs and a microphone array of four channels."""
    path = tmp_path_factory.mktemp("several") / "bag"
    record_four_cameras(path, seconds=8.0, covered=COVERED, covered_at=4.0)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return settings_file(tmp_path_factory.mktemp("config") / "sensors.yaml")


@pytest.fixture(scope="module")
def replayed(bag: Path, config: Path) -> tuple[list[Embedding], list[Event]]:
    settings = Settings.read(config)
    space = settings.space()
    with open_replay(bag, settings.embedder) as replay:
        outputs = list(replay.outputs(settings.pipeline(space, settings.events(space))))
    return [o for o in outputs if isinstance(o, Embedding)], [o for o in outputs if isinstance(o, Event)]


def test_each_sensor_has_its_own_windows_and_one_vector_is_fused_for_a_tick(
    replayed: tuple[list[Embedding], list[Event]],
) -> None:
    embeddings, _ = replayed
    ticks = {name: {e.tick for e in embeddings if e.source == name} for name in (*SENSORS, FUSED)}
    assert all(ticks.values())
    assert {e.source: e.modality for e in embeddings if e.modality != FUSED} == SENSORS
    whole = [e for e in embeddings if e.modality == FUSED and set(e.sources) == set(SENSORS)]
    assert whole
    for fused in whole:
        weights = dict(zip(fused.sources, fused.weights, strict=True))
        cameras = sum(weights[name] for name, modality in SENSORS.items() if modality == "vision")
        assert cameras == pytest.approx(weights["microphones"], rel=0.2)  # four cameras count as one microphone


def test_the_fault_names_the_covered_camera_and_the_others_go_on(
    replayed: tuple[list[Embedding], list[Event]],
) -> None:
    embeddings, events = replayed
    faults = {e.label for e in events if e.kind is EventKind.FAULT and e.phase is EventPhase.ONSET}
    assert faults == {f"fault:{COVERED}:dark"}
    last = max(e.tick for e in embeddings)
    for name, modality in SENSORS.items():
        if modality == "vision" and name != COVERED:
            assert not any(e.symptoms for e in embeddings if e.sensor == name)
    seen = [e for e in events if e.kind is EventKind.PROMPT and e.label == "cat" and e.phase is not EventPhase.OFFSET]
    assert seen and max(e.tick for e in seen) > last - 2 * 10**9
    supporting = {own.sensor for e in seen for own in e.evidence if own.supports}
    assert "front" in supporting and COVERED not in supporting


def test_live_and_replayed_vectors_and_events_are_the_same(
    bag: Path, config: Path, replayed: tuple[list[Embedding], list[Event]]
) -> None:
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    expected, expected_events = replayed
    file = ("--ros-args", "--params-file", str(config))
    with peer(environment) as me:
        received = [
            me.subscribe(messages.EMBEDDING_TYPE, f"embeddings/{name}", EMBEDDING_QOS) for name in (*SENSORS, FUSED)
        ]
        published = me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS)
        with running("embedder", *file, environment=environment):
            with running("detector", *file, environment=environment) as detector:
                detector.wait_for_output("events from", 90)
                options = parameter_arguments({"delay": 4.0})
                with running("player", str(bag), *options, environment=environment) as player:
                    me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
                me.spin_until(lambda: sum(map(len, received)) >= len(expected) - 1, 20)
                me.spin(2.5)
            me.spin_until(lambda: len(published) >= len(expected_events), 20)
    got = {_key(e): e.vector for group in received for _, m in group for e in [messages.embedding_from_message(m)]}
    wanted = {_key(e): e.vector for e in expected}
    last = FUSED, max(tick for _, tick in wanted)  # fused when the node stops
    assert got.keys() | {last} == wanted.keys()
    assert not {key: vector @ wanted[key] for key, vector in got.items() if vector @ wanted[key] < 0.9999}
    events = [messages.event_from_message(message) for _, message in published]
    assert [_report(e) for e in events] == [_report(e) for e in expected_events]


def _key(embedding: Embedding) -> tuple[str, int]:
    return embedding.source, embedding.tick


def _report(event: Event) -> tuple[Any, ...]:
    return event.id, event.phase, [(e.modality, e.sensor, e.frame_id, e.supports) for e in event.evidence]
