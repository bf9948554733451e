"""Activity of embeddings in messages and on the wire: the same on the other side, and nothing hostile gets through."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest

from sensebind.fusion.core.embeddings import MAX_ACTIVITY_SHAPE, Activity, Embedding
from sensebind.fusion.core.samples import AUDIO, SECOND
from sensebind.fusion.events.proposals.intervals import MAX_HISTORY_FRAMES, updated_proposals
from sensebind.fusion.io import messages, wire

VALUES = np.arange(32, dtype=np.float32)
EMBEDDING = Embedding(AUDIO, 0, SECOND, "toy@1", 1.0, np.ones(4, np.float32) / 2)


class PlainMessages:
    """Messages without a library of ROS."""

    def make(self, name: str, /, **fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    def float_array(self, values: Any) -> Any:
        return np.asarray(values, np.float32)


def message(**fields: Any) -> SimpleNamespace:
    made = messages.embedding_message(PlainMessages(), EMBEDDING)
    return SimpleNamespace(**{**vars(made), **fields})


@pytest.mark.parametrize("period", [SECOND // 10, SECOND // 3 // 1000 * 1000, 0])
def test_activity_is_the_same_on_the_other_side(period: int) -> None:
    values = VALUES.reshape(-1, 8) if period else VALUES[None]
    sent = replace(EMBEDDING, activity=Activity(values, period))
    for found in (
        messages.embedding_from_message(messages.embedding_message(PlainMessages(), sent)),
        wire.decode(*wire.encode(sent)),
    ):
        assert isinstance(found, Embedding) and found.activity is not None
        assert found.activity.period == period and np.array_equal(found.activity.values, values)


HOSTILE = [
    (VALUES, 5, 0.1),  # no multiple
    (VALUES, 0, 0.1),
    (VALUES, 64, 0.1),
    (VALUES, 8, math.nan),
    (VALUES, 8, math.inf),
    (VALUES, 8, -1.0),
    (VALUES, 8, 3e38),
    (VALUES, 8, 1e-9),
    (VALUES, 8, 0.0),  # more than one frame at the same time
    (np.zeros(1_000_000, np.float32), 1, 0.1),
    (np.zeros(1_000_000, np.float32), 1_000_000, 0.0),
]


@pytest.mark.parametrize(("values", "features", "period"), HOSTILE)
def test_an_activity_that_does_not_fit_is_left_out_of_a_message(
    values: np.ndarray, features: int, period: float
) -> None:
    found = messages.embedding_from_message(
        message(activity=values, activity_features=features, activity_period=period)
    )
    assert found.activity is None


@pytest.mark.parametrize(("values", "features", "period"), [*HOSTILE, (VALUES, math.inf, 0.1), (VALUES, 8.5, 0.1)])
def test_an_activity_that_does_not_fit_is_an_error_on_the_wire(
    values: np.ndarray, features: float, period: float
) -> None:
    topic, payload = wire.encode(EMBEDDING)
    activity = {"values": values.tobytes(), "features": features, "period": period * SECOND}
    with pytest.raises(wire.WireError):
        wire.decode(topic, msgpack.packb({**msgpack.unpackb(payload), "activity": activity}))


def test_messages_of_older_versions_have_no_activity() -> None:
    old = message()
    for name in ("activity", "activity_features", "activity_period"):
        delattr(old, name)
    assert messages.embedding_from_message(old).activity is None
    topic, payload = wire.encode(EMBEDDING)
    fields = msgpack.unpackb(payload)
    del fields["activity"]
    found = wire.decode(topic, msgpack.packb(fields))
    assert isinstance(found, Embedding) and found.activity is None


def test_the_memory_of_a_detector_is_bounded_for_the_shortest_frames() -> None:
    activity = Activity.of_message(np.zeros(MAX_ACTIVITY_SHAPE[0] * 2, np.float32), 2, 0.001)
    state = None
    for number in range(200):
        state = updated_proposals(state, activity, (number + 1) * SECOND // 4)
    assert state is not None and len(state.ends) == len(state.frames) == MAX_HISTORY_FRAMES
