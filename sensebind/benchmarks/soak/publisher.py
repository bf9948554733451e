"""The sensors of a soak over DDS: one process that publishes the messages of all sensors, disturbed by the faults.

`python -m sensebind.benchmarks.soak.publisher JSON` with the fields of `SensorRun`. It prints `ready` when each topic
has a subscriber, starts at the time in the line `<ns since the epoch>` of standard input, and at the end prints a line
of JSON: sensor → number of messages that it published.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rclpy
from rclpy.qos import qos_profile_sensor_data

from sensebind.benchmarks.harness.sensor_load import IMAGE_COUNT, MESSAGE_RATES, Sensor, sensors
from sensebind.benchmarks.harness.sensor_process import TOPICS, TYPES, await_start, message_of
from sensebind.benchmarks.soak.deliveries import Message, deliveries, halved, poisoned
from sensebind.benchmarks.soak.faults import NODE_FAULTS, POISON, FaultPlan, plan_faults
from sensebind.fusion.core.samples import SECOND, Frame
from sensebind.nodes.support.message_types import message_type
from sensebind.simulation.delivery_faults import Delivery, disturbed

CLOSING_PAUSE = 2.0  # s before the last message of each sensor, which shows whether those before it arrived
Prepared = tuple[Any, Callable[[int], None]]  # see `message_of`


@dataclass(frozen=True, slots=True)
class SensorRun:
    """What to publish: the sensors at `factor` times their rates, for `seconds`, and the faults."""

    modalities: Sequence[str]
    factor: float
    seconds: float
    every: float
    seed: int

    def plan(self, start: int) -> FaultPlan:
        """The faults of a run that starts at `start` (ns)."""
        return plan_faults(self.modalities, NODE_FAULTS, self.seconds, self.every, self.seed, start)

    def sensors(self) -> list[Sensor]:
        """The sensors."""
        return sensors(self.modalities, {m: self.factor * rate for m, rate in MESSAGE_RATES.items()})


class SensorMessages:
    """The messages of one sensor: a few that are prepared, and used in turn."""

    def __init__(self, sensor: Sensor) -> None:
        samples = [sensor.sample(number, 0) for number in range(IMAGE_COUNT)]
        self._usual = [message_of(sample) for sample in samples]
        self._second = [message_of(replace(sample, frame_id="second")) for sample in samples]
        self._half = [
            message_of(replace(sample, data=halved(sensor.modality, number)))
            for number, sample in enumerate(samples)
            if isinstance(sample.data, Frame)
        ]
        self._poison: list[Prepared] = []
        for number in range(12):
            try:
                self._poison.append(message_of(replace(samples[0], data=poisoned(samples[0].data, number))))
            except ValueError:  # the message type has no room for it
                continue

    def choose(self, delivery: Delivery, poison: bool) -> Prepared:
        """The message of a delivery."""
        usual = self._half if delivery.scale < 1 and self._half else self._second if delivery.device else self._usual
        chosen = self._poison if poison else usual
        return chosen[delivery.item.index % len(chosen)]


def main() -> int:
    """Publish. Exit status 1 if a topic has no subscriber."""
    run = SensorRun(**json.loads(sys.argv[1]))
    own = run.sensors()
    prepared = {sensor.modality: SensorMessages(sensor) for sensor in own}
    rclpy.init()
    node = rclpy.create_node("soak_sensors")
    publishers = {
        m: node.create_publisher(message_type(TYPES[m]), TOPICS[m], qos_profile_sensor_data) for m in run.modalities
    }
    if (line := await_start({TOPICS[m]: publisher for m, publisher in publishers.items()}, 1)) is None:
        return 1
    start = int(line)
    plan = run.plan(start)
    sent: Counter[str] = Counter()

    def publish(sensor: str, message: Prepared, stamp: int) -> None:
        content, set_stamp = message
        set_stamp(stamp)
        publishers[sensor].publish(content)
        sent[sensor] += 1

    for delivery in disturbed(deliveries([own], run.seconds, start), plan.deliveries, run.seed):
        if (left := (delivery.arrival - time.time_ns()) / SECOND) > 0:
            time.sleep(left)
        poison = plan.active(time.time_ns(), POISON)
        is_poison = poison is not None and poison.sensor == delivery.sensor
        publish(delivery.sensor, prepared[delivery.sensor].choose(delivery, is_poison), delivery.stamp)
    time.sleep(CLOSING_PAUSE)
    for sensor in own:
        last = Delivery(0, sensor.modality, 0, Message(0, sensor, 0))
        publish(sensor.modality, prepared[sensor.modality].choose(last, False), time.time_ns())
    time.sleep(1.0)  # best-effort subscribers fetch the last messages from shared memory
    print(json.dumps(sent), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
