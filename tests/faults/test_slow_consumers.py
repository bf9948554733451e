"""A client that reads too slowly loses messages, which it and the diagnostics count; nobody else loses any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from helpers import poison_messages as poison
from helpers.diagnostic_statuses import DIAGNOSTICS, WARN, Status, newest
from helpers.fault_runs import WireReader
from helpers.ros_processes import peer, ros_environment, running
from sensebind.fusion.core.samples import SECOND, VISION
from sensebind.fusion.io import messages

COUNT = 1500  # messages of 8 kB: more than the buffers of the system and of the bridge hold
RECEIVED = "embedding/vision"


@pytest.mark.slow  # the quick sibling is in tests/nodes/test_bridge.py: the publisher alone
def test_a_client_that_reads_one_message_a_second_costs_no_other_client_a_message(tmp_path: Path) -> None:
    from sensebind.nodes.support.message_types import RosMessageFactory
    from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS

    environment, make = ros_environment("sensebind_msgs", "diagnostic_msgs"), RosMessageFactory()
    address = f"ipc://{tmp_path}/wire"
    vector = np.full(2048, 2048**-0.5, np.float32)
    with (
        peer(environment) as me,
        running("bridge", environment=environment, values={"address": address, "client_queue_size": 50}) as bridge,
    ):
        bridge.wait_for_output("publishing on", 60)
        fast, slow = WireReader(address), WireReader(address, period=1.0)
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics", 100)

        def status() -> Status:
            return newest(diagnostics, "bridge: clients")

        def values() -> Mapping[str, str]:
            return status().values

        publisher = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{VISION}", EMBEDDING_INPUT_QOS)
        me.wait_for_subscribers(publisher)
        me.wait_until(lambda: status().count("clients") == 2, 30, "two clients")
        for number in range(COUNT):
            message = poison.good_embedding(make, VISION, poison.START + number * SECOND // 100, number)
            message.vector = make.float_array(vector)
            publisher.publish(message)
            me.spin(0.002)
        me.wait_until(lambda: status().count(RECEIVED) == COUNT, 30, f"{COUNT} messages, not {status()}")
        me.wait_until(lambda: len(fast.messages) == COUNT, 30, "all messages at the fast client")
        assert not fast.gaps() and values()["lost"] == "0"
        assert int(values()["queue_full"]) >= 1
        ends = [int(values()[f"embeddings/{VISION}: {end}"]) for end in ("used.forwarded", "dropped.queue_full")]
        assert sum(ends) == COUNT and ends[1] == int(values()["queue_full"])
        assert status().level == WARN and "a client reads too slowly" in status().message
        slow.period = 0.0  # it reads what waits for it, and what is sent then
        for number in range(COUNT, COUNT + 100):
            publisher.publish(poison.good_embedding(make, VISION, poison.START + number * SECOND // 100, number))
            me.spin(0.01)
        last = COUNT + 99
        me.wait_until(lambda: slow.messages[-1][2] == last, 30, "the newest message at the slow client")
        missing = slow.gaps()[RECEIVED]
        assert missing > 0 and len(slow.messages) + missing + slow.messages[0][2] == COUNT + 100
        fast.close()
        slow.close()
