"""Messages carry all fields, and messages of Sensebind 0.1.0 can still be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, DetectedObject, Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import Recording, RosbagsMessageFactory, typestore
from sensebind.fusion.io.wire import decode, encode

TICK = 1_700_000_000 * SECOND
START = TICK - SECOND // 2
# sensebind_msgs of version 0.1.0.
OLD = {
    "sensebind_msgs/msg/Embedding": """std_msgs/Header header
string modality
builtin_interfaces/Time window_start
string space
float32 coverage
float32[] vector
string[] sources
float32[] weights
string[] symptoms
""",
    "sensebind_msgs/msg/ModalityEvidence": """string modality
float32 score
bool supports
builtin_interfaces/Time window_start
builtin_interfaces/Time window_end
""",
    "sensebind_msgs/msg/CrossModalEvent": """uint8 PROMPT=0
std_msgs/Header header
string id
uint8 kind
string label
uint8 phase
builtin_interfaces/Time onset
builtin_interfaces/Time offset
float32 score
string space
ModalityEvidence[] evidence
""",
}
EMBEDDING = Embedding("vision", START, TICK, "toy@1", 0.75, l2_normalize([1.0, 2.0, 2.0]), "camera", symptoms=("dark",))
EVENT = Event(
    "prompt/dog/1",
    EventKind.PROMPT,
    "dog",
    EventPhase.ONSET,
    START,
    0,
    TICK,
    0.75,
    "toy@1",
    (Evidence("audio", 0.25, False, START, TICK), Evidence("vision", 0.5, True, START, TICK)),
)


def message_factories() -> Iterator[tuple[str, Callable[[], messages.MessageFactory]]]:
    yield "rosbags", RosbagsMessageFactory

    def ros() -> messages.MessageFactory:
        pytest.importorskip("rclpy")
        from sensebind.nodes.support.message_types import RosMessageFactory

        return RosMessageFactory()

    yield "rclpy", ros


@pytest.fixture(params=dict(message_factories()).values(), ids=dict(message_factories()))
def types(request: pytest.FixtureRequest) -> messages.MessageFactory:
    made: messages.MessageFactory = request.param()
    return made


def assert_same(found: Embedding, expected: Embedding) -> None:
    assert np.array_equal(found.vector, expected.vector)
    assert replace(found, vector=expected.vector) == expected


# --- fields


def test_an_embedding_message_carries_the_embedding_its_sensor_and_its_number(types: messages.MessageFactory) -> None:
    fused = replace(EMBEDDING, modality=FUSED, sources=("audio", "vision"), weights=(0.25, 0.75))
    objects = (DetectedObject("Person", 0.75, (0, 20, 30, 40), 0.5), DetectedObject("Dog", 0.5, (1, 2, 3, 4)))
    for sent in (replace(EMBEDDING, sensor="front"), replace(EMBEDDING, objects=objects), fused):
        message = messages.embedding_message(types, sent, 7)
        assert message.sequence == 7
        assert_same(messages.embedding_from_message(message), sent)
        decoded = decode(*encode(sent))
        assert isinstance(decoded, Embedding)
        assert_same(decoded, sent)


def test_an_embedding_on_the_wire_names_its_encoder_and_an_event_does_not() -> None:
    encoder = {msgpack.unpackb(encode(EMBEDDING, 0, name)[1])["encoder"] for name in ("", "own-vision@1")}
    assert encoder == {"", "own-vision@1"}
    assert "encoder" not in msgpack.unpackb(encode(EVENT)[1])


def test_an_event_message_carries_all_of_the_evidence(types: messages.MessageFactory) -> None:
    evidence = Evidence(
        "vision", 0.5, True, START, TICK, 0.25, 0.75, True, "front", "front_optical", (10, 20, 30, 40), -0.5
    )
    sent = replace(EVENT, kind=EventKind.UNKNOWN, predecessor="prompt/cat/1", evidence=(*EVENT.evidence, evidence))
    message = messages.event_message(types, sent, 7)
    assert message.sequence == 7
    assert messages.event_from_message(message) == sent
    assert decode(*encode(sent)) == sent


def test_the_constants_of_the_message_are_those_of_the_code() -> None:
    constants = typestore().types[messages.EVENT_TYPE]
    for kind in (*EventKind, *EventPhase):
        assert getattr(constants, kind.name) == kind


def test_the_space_message_names_the_sensors_and_their_windows(types: messages.MessageFactory) -> None:
    specs = {m: WindowSpec(m, SECOND, SECOND // 4) for m in ("vision", "gas")}
    message = messages.space_message(types, ToySpace(), specs, TICK)
    assert messages.stamp_to_ns(message.header.stamp) == TICK
    assert [(s.name, s.modality, s.window_length, s.hop) for s in message.sensors] == [
        ("vision", "vision", 1.0, 0.25),
        ("gas", "gas", 1.0, 0.25),
    ]
    assert [s.topic for s in message.sensors] == ["embeddings/vision", ""], "no encoder, no topic"
    assert list(message.logit_biases) == [0.0] * len(message.modalities)


def test_the_space_message_names_the_encoder_of_each_modality(types: messages.MessageFactory) -> None:
    class Replaced(ToySpace):
        def encoder_id(self, modality: str) -> str:
            return f"own-{modality}@1" if modality == "vision" else super().encoder_id(modality)

    message = messages.space_message(types, Replaced(), {}, TICK)
    expected = {"text": "toy@0", "vision": "own-vision@1", "audio": "toy@0", "imu": "toy@0"}
    assert messages.encoders_from_message(message) == expected
    older = SimpleNamespace(id="toy@0", modalities=["text", "audio"])
    assert messages.encoders_from_message(older) == {"text": "toy@0", "audio": "toy@0"}


def test_the_competence_messages_have_the_competences_and_near_phrases(types: messages.MessageFactory) -> None:
    competences = {"imu": np.array([0.0, 1.0], np.float32)}
    sent = messages.competence_messages(types, competences, {"imu": [["a bump", "a fall"], []]})
    received = messages.competences_from_messages(sent)
    assert received.keys() == {"imu"} and received["imu"].tolist() == [0.0, 1.0]
    assert messages.nearest_from_messages(sent) == {"imu": [["a bump", "a fall"], []]}


def test_the_scores_message_has_each_prompt_with_each_modality(types: messages.MessageFactory) -> None:
    scores = {"dog": Score(0.75, EVENT.evidence, similarities=(0.125, 0.5)), "cat": Score(0.0)}
    message = messages.scores_message(types, TICK, "toy@1", scores, 3)
    assert [(p.label, p.score) for p in message.prompts] == [("cat", 0.0), ("dog", 0.75)]
    found = [(m.modality, m.similarity, m.score, m.weight, m.competence) for m in message.prompts[1].modalities]
    assert found == [("audio", 0.125, 0.25, 1.0, 1.0), ("vision", 0.5, 0.5, 1.0, 1.0)]


# --- messages of version 0.1.0


@pytest.fixture
def old_bag(tmp_path: Path) -> Path:
    """An output bag, with the message definitions of version 0.1.0."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for name, text in OLD.items():
        types.register(get_types_from_msg(text, name))
    old: Any = types.types

    def time(stamp: int) -> Any:
        return old["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)

    def header(frame_id: str = "") -> Any:
        return old["std_msgs/msg/Header"](stamp=time(TICK), frame_id=frame_id)

    e = EMBEDDING
    nothing = np.array([], np.float32)
    embedding = old[messages.EMBEDDING_TYPE](
        header(e.frame_id), e.modality, time(e.start), e.space, e.coverage, e.vector, [], nothing, list(e.symptoms)
    )
    evidence = [
        old[messages.EVIDENCE](v.modality, v.score, v.supports, time(v.start), time(v.tick)) for v in EVENT.evidence
    ]
    event = old[messages.EVENT_TYPE](
        header(), EVENT.id, 0, EVENT.label, 0, time(START), time(0), EVENT.score, EVENT.space, evidence
    )
    with Writer(tmp_path / "old", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for topic, name, message in (
            ("/embeddings/vision", messages.EMBEDDING_TYPE, embedding),
            ("/events", messages.EVENT_TYPE, event),
        ):
            connection = bag.add_connection(topic, name, typestore=types)
            bag.write(connection, TICK, types.serialize_cdr(message, name))
    return tmp_path / "old"


def test_an_output_bag_of_the_first_version_can_be_read(old_bag: Path) -> None:
    with Recording(old_bag) as recording:
        found = {name: message for _, name, _, message in recording.messages()}
        assert not recording.unreadable_counts
    assert_same(messages.embedding_from_message(found[messages.EMBEDDING_TYPE]), EMBEDDING)
    assert messages.event_from_message(found[messages.EVENT_TYPE]) == EVENT


def test_messages_of_the_first_version_are_played_as_messages_of_this_one(old_bag: Path) -> None:
    with Recording(old_bag) as recording:
        found = {name: typestore().deserialize_cdr(data, name) for _, name, _, data in recording.cdr_messages()}
        assert not recording.unreadable_counts
    assert_same(messages.embedding_from_message(found[messages.EMBEDDING_TYPE]), EMBEDDING)
    event = messages.event_from_message(found[messages.EVENT_TYPE])
    assert (event.id, event.kind, event.onset, event.score) == (EVENT.id, EVENT.kind, EVENT.onset, EVENT.score)
    assert [(e.modality, e.score, e.supports) for e in event.evidence] == [
        ("audio", 0.25, False),
        ("vision", 0.5, True),
    ]


def test_a_client_of_this_version_decodes_messages_of_a_bridge_of_the_first() -> None:
    added = {"sequence", "sensor", "predecessor", "objects"}
    in_evidence = {"weight", "competence", "coincides", "sensor", "frame_id", "region", "bearing"}
    for sent in (EMBEDDING, EVENT):
        topic, payload = encode(sent, 5)
        fields = msgpack.unpackb(payload)
        assert (fields["version"], fields["sequence"]) == (2, 5)
        old = {name: value for name, value in fields.items() if name not in added} | {"version": 1}
        for evidence in old.get("evidence", ()):
            for name in in_evidence:
                del evidence[name]
        found = decode(topic, msgpack.packb(old))
        if isinstance(sent, Embedding):
            assert isinstance(found, Embedding)
            assert_same(found, sent)
        else:
            assert found == sent
