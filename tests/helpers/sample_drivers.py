"""The two ways to samples: a bag that is read, and messages that arrive at a live node."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from helpers.sensor_messages import START
from sensebind.fusion.config.parameters import embedder_parameters, resolve_values, sensor_options
from sensebind.fusion.core.samples import SECOND, Calibration, Frame, Reading, Sample, Sound
from sensebind.fusion.io.recordings import Recording, Topic
from sensebind.replay.reader import SampleReader

Logged = tuple[str, str, int, Any]  # topic, type, log time in ns, message
Result = tuple[Any, ...]


def at_times(items: Iterable[tuple[str, str, Any]], step: int = SECOND // 10) -> list[Logged]:
    """The messages with log times `step` ns apart; every third is late by a fifth of `step`."""
    return [
        (topic, kind, START + i * step + (step // 5 if i % 3 == 2 else 0), message)
        for i, (topic, kind, message) in enumerate(items)
    ]


def values_of(modalities: Sequence[str], **given: Any) -> dict[str, Any]:
    flat = {name.replace("__", "."): value for name, value in given.items()}
    return resolve_values(embedder_parameters(modalities), {"modalities": list(modalities), **flat})


def result_of(sample: Sample) -> Result:
    """The content of a sample as values that can be compared."""
    data = sample.data
    if isinstance(data, Frame):
        held: Result = (data.encoding, data.height, data.width, data.step, data.big_endian, data.compressed)
        return ("frame", sample.modality, sample.stamp, sample.frame_id, *held, data.data.tobytes())
    if isinstance(data, Sound):
        shape = (data.sample_rate, data.data.shape, str(data.data.dtype))
        return ("sound", sample.modality, sample.stamp, sample.frame_id, *shape, data.data.tobytes())
    assert isinstance(data, Reading)
    return ("reading", sample.modality, sample.stamp, sample.frame_id, data.values.tobytes())


def replayed(recording: Any, values: Mapping[str, Any], modalities: Sequence[str]) -> tuple[list[Result], SampleReader]:
    """Results of replay: samples, changes of calibration and errors, in order; and the reader."""
    reader, results = SampleReader(recording, values, tuple(modalities)), []

    def calibrated(modality: str, calibration: Calibration) -> None:
        assert reader.calibrations[modality] == calibration
        results.append(("calibration", modality, calibration))

    for item in reader.samples(on_calibration=calibrated):
        results.append(result_of(item) if isinstance(item, Sample) else ("error", item.modality, item.message))
    return results, reader


class Graph:
    """Stands in for a node: keeps the subscriptions and calls them as rclpy does."""

    def __init__(self, published: Mapping[str, str]) -> None:
        self.published, self.now = published, 0
        self.subscriptions: list[tuple[str, str, Any]] = []

    def resolve_topic_name(self, name: str) -> str:
        return name if name.startswith("/") else f"/{name}"

    def get_publishers_info_by_topic(self, name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(topic_type=self.published[name])] if name in self.published else []

    def count_publishers(self, name: str) -> int:
        return 1

    def get_clock(self) -> SimpleNamespace:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now))

    def create_subscription(self, kind: str, topic: str, callback: Any, qos: Any, **_: Any) -> SimpleNamespace:
        self.subscriptions.append((self.resolve_topic_name(topic), kind, callback))
        return SimpleNamespace(topic_name=self.resolve_topic_name(topic))

    def destroy_subscription(self, subscription: Any) -> None: ...

    def deliver(self, topic: str, kind: str, received: int, message: Any) -> None:
        self.now = received
        # A topic that is subscribed to with two QoS profiles is delivered once: a second copy would change nothing.
        for name, wanted, callback in dict.fromkeys(self.subscriptions):
            if (name, wanted) == (topic, kind):
                arguments = (message, {})[: len(inspect.signature(callback).parameters)]
                callback(*arguments)


def live(
    messages: Iterable[Logged], values: Mapping[str, Any], modalities: Sequence[str], published: Mapping[str, str]
) -> tuple[list[Result], Any]:
    """Results of the node's subscriptions for these messages, as in `replayed`; and the subscriptions."""
    pytest.importorskip("rclpy")
    from sensebind.nodes import subscriptions

    results: list[Result] = []
    graph = Graph(published)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscriptions, "message_type", lambda name: name)
        sensors = subscriptions.SensorSubscriptions(
            graph,
            values,
            lambda sample: results.append(result_of(sample)),
            lambda modality, calibration: results.append(("calibration", modality, calibration)),
            lambda modality, text: results.append(("error", modality, text)),
        )
        assert results[: len(modalities)] == [
            ("calibration", name, sensor_options(values, name).calibration) for name in modalities
        ]
        del results[: len(modalities)]
        for logged in messages:
            graph.deliver(*logged)
    return results, sensors


def without_topics(results: Iterable[Result], topics: Mapping[str, str]) -> list[Result]:
    """The results without the topic that the node puts before an error; the caller of the reader adds it in replay."""
    return [
        (kind, modality, rest[0].removeprefix(f"topic '{topics[modality]}': "))
        if kind == "error"
        else (kind, modality, *rest)
        for kind, modality, *rest in results
    ]


def write(folder: Path, messages: Iterable[Logged], types: Typestore) -> Path:
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for topic, kind, stamp, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=types)
            writer.write(connections[topic], stamp, types.serialize_cdr(message, kind))
    return folder


class Listed:
    """Stands in for a recording: messages in a list."""

    def __init__(self, messages: Sequence[Logged], *more: tuple[str, str]) -> None:
        self._messages = messages
        names = {topic: kind for topic, kind, *_ in messages} | dict(more)
        self.topics = [Topic(name, kind, 1) for name, kind in sorted(names.items())]

    def first_messages(self, topic: str, count: int) -> list[Any]:
        return [logged[3] for logged in self.messages([topic])][:count]

    def earliest_message(self, topic: str) -> tuple[int, Any] | None:
        return next(((stamp, message) for _, _, stamp, message in self.messages([topic])), None)

    def messages(self, topics: Sequence[str]) -> Iterator[Logged]:
        yield from (logged for logged in self._messages if logged[0] in topics)

    peek = messages


def by_rclpy(recording: Recording) -> list[Logged]:
    """The messages of a recording as objects of rclpy's classes. Skips the test if a type is not installed."""
    serialization = pytest.importorskip("rclpy.serialization")
    from sensebind.nodes.support.message_types import message_type

    result = []
    for topic, kind, stamp, data in recording.cdr_messages():
        try:
            result.append((topic, kind, stamp, serialization.deserialize_message(data, message_type(kind))))
        except ModuleNotFoundError as error:
            pytest.skip(str(error))
    return result
