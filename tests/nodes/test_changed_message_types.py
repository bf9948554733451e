"""A sensor is used again when its topic has messages of another type: of another driver, or after a wrong publisher."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from helpers.sample_drivers import Graph, values_of
from helpers.sensor_messages import AUDIO_DATA, RAW_AUDIO, START, raw_audio, sound
from sensebind.fusion.core.samples import AUDIO, Sample
from sensebind.fusion.stream.accounting.identity import accounts

STRING = "std_msgs/msg/String"


class ChangingGraph(Graph):
    """The graph of a node whose publishers come and go."""

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(info=lambda text, **_: None)

    def destroy_subscription(self, subscription: Any) -> None:
        self.subscriptions = [own for own in self.subscriptions if own[0] != subscription.topic_name]


def test_another_type_on_the_topic_is_followed_and_no_message_is_lost_from_the_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("rclpy")
    from sensebind.nodes import subscriptions

    monkeypatch.setattr(subscriptions, "message_type", lambda name: name)
    graph, samples, errors = ChangingGraph({"/mic": STRING}), list[Sample](), list[str]()
    sensors = subscriptions.SensorSubscriptions(
        graph,  # type: ignore[arg-type]
        values_of([AUDIO], audio__topic="/mic"),
        samples.append,
        lambda sensor, calibration: None,
        lambda sensor, text: errors.append(text),
    )
    assert len(errors) == 1 and STRING in errors[0]

    def play(kind: str, *messages: Any) -> None:
        graph.published = {"/mic": kind}
        sensors.follow_types()
        for message in messages:
            graph.deliver("/mic", kind, START, message)

    play(AUDIO_DATA, sound(), sound())  # they wait for their format
    play(RAW_AUDIO, raw_audio(), raw_audio())
    graph.published = {}
    sensors.follow_types()  # the driver ends, and starts again
    play(RAW_AUDIO, raw_audio())
    assert len(samples) == 3 and len(errors) == 1
    counts = sensors.message_counts(AUDIO)
    assert (counts["arrived"], counts["decoded"], counts["unfinished"], counts["messages_waiting"]) == (5, 3, 2, 0)
    assert not accounts(counts, published=5)[1].unaccounted
