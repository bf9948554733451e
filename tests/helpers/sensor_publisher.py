"""A sensor of each modality, all in a process of their own, whose faults of delivery are chosen while they run.

`python -m helpers.sensor_publisher [--clock]` publishes from the start and reads commands, one JSON object a line:

- ``{"fault": NAME, "sensor": SENSOR, "seconds": S}``: a fault of `DELIVERY_FAULTS` from now on, for S seconds.
- ``{"hold": true}`` / ``{"hold": false}``: publish nothing, or go on.
- ``{"clock": SHIFT}`` with `--clock`: the simulated clock jumps by SHIFT seconds. ``{"clock_pause": S}``: it and the
  sensors stand still for S seconds.
- ``{}``: nothing.

Each is answered by a line of JSON when it is done, a fault when it has ended: `at`, `time.monotonic()` of the first
messages after it; `stamp`, the stamps from then on (ns); `published`, messages on each topic so far; `stall`, the
longest time in s by which a message was published late since the answer before, because this process did not run.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION
from sensebind.fusion.io import messages
from sensebind.nodes.support.message_types import message_type
from sensebind.simulation.delivery_faults import Delivery, ScheduledFault, disturbed

RATES = {VISION: 10.0, DEPTH: 10.0, THERMAL: 9.0, AUDIO: 10.0, IMU: 100.0}  # Hz
TOPICS = {VISION: "camera/image", DEPTH: "depth/image", THERMAL: "thermal/image", AUDIO: "audio", IMU: "imu"}
TYPES = {
    **dict.fromkeys((VISION, DEPTH, THERMAL), messages.IMAGE_TYPE),
    AUDIO: "audio_common_msgs/msg/AudioDataStamped",
    IMU: messages.IMU_TYPE,
}
BLOCK = SECOND // 10  # ns of a message of sound, which is stamped with its start
SOUND_RATE = 8000  # Hz
SIZE = (48, 64)  # height and width of an image
QOS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=200, reliability=QoSReliabilityPolicy.BEST_EFFORT)
SIMULATION_BEGIN = 1000 * SECOND  # ns of /clock
EMBEDDER_VALUES: dict[str, Any] = {  # parameters of an embedder of these sensors
    "modalities": list(RATES),
    **{f"{sensor}.topic": TOPICS[sensor] for sensor in (VISION, DEPTH, THERMAL)},
    "audio.type": TYPES[AUDIO],
    "audio.sample_rate": SOUND_RATE,
    "audio.channels": 1,
    "audio.sample_format": "S16LE",
    "device": "cpu",
}


def contents() -> dict[str, Callable[[Delivery], Any]]:
    """Sensor → a function that makes the message of a delivery, without a stamp."""
    noise = np.random.default_rng(5)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    scene = 128 + 60 * np.sin(rows / 9 + columns / 13)[..., None] * np.array([1.0, 0.8, 0.6])
    images = [(scene + 6 * noise.standard_normal(scene.shape)).clip(0, 255).astype(np.uint8) for _ in range(7)]
    ranges = [(2000 + 8 * image[..., 0].astype(np.uint16)) for image in images]  # mm
    heat = [(29_000 + 10 * image[..., 1].astype(np.uint16)) for image in images]  # 0.01 K
    sounds = [noise.normal(0, 2000, SOUND_RATE // 10).astype("<i2").tobytes() for _ in range(7)]
    readings = noise.normal(0, 0.05, (97, 6)) + [0, 0, 9.81, 0, 0, 0]

    def image_of(frames: Sequence[np.ndarray], encoding: str) -> Callable[[Delivery], Any]:
        def image(delivery: Delivery) -> Any:
            step = round(1 / delivery.scale)
            pixels = np.ascontiguousarray(frames[delivery.item % len(frames)][::step, ::step])
            message = message_type(messages.IMAGE_TYPE)()
            message.height, message.width = pixels.shape[:2]
            message.encoding, message.step = encoding, pixels.strides[0]
            message.data = array("B", pixels.tobytes())
            return message

        return image

    def sound(delivery: Delivery) -> Any:
        message = message_type(TYPES[AUDIO])()
        message.audio.data = array("B", sounds[delivery.item % 7])
        return message

    def reading(delivery: Delivery) -> Any:
        message = message_type(TYPES[IMU])()
        values = readings[delivery.item % 97]
        for vector, part in ((message.linear_acceleration, values[:3]), (message.angular_velocity, values[3:])):
            vector.x, vector.y, vector.z = map(float, part)
        return message

    return {
        VISION: image_of(images, "rgb8"),
        DEPTH: image_of(ranges, "16UC1"),
        THERMAL: image_of(heat, "mono16"),
        AUDIO: sound,
        IMU: reading,
    }


class Sensors:
    """The publishers, the commands and the counts. `simulated`: publish /clock, whose time the stamps have."""

    def __init__(self, simulated: bool) -> None:
        rclpy.init()
        self._node = rclpy.create_node("sensors")
        self._publishers = {(sensor, 0): self._publisher(sensor) for sensor in RATES}
        self._clock = self._node.create_publisher(message_type("rosgraph_msgs/msg/Clock"), "/clock", 10)
        self._contents, self._simulated = contents(), simulated
        self._offset = 0 if not simulated else SIMULATION_BEGIN - self.now()  # ns from times of arrival to stamps
        self._frozen_until = 0  # ns; the simulated clock stands still
        self._held = False
        self._faults: list[ScheduledFault] = []
        self._published: Counter[str] = Counter()
        self._stall = 0.0
        self._commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @staticmethod
    def now() -> int:
        """Time of arrival in ns: the clock of the system."""
        return time.time_ns()

    def run(self) -> None:
        """Publish until the end of the standard input."""
        self._answer()
        for delivery in disturbed(self._due(), self._faults):
            self._publish(delivery)
        rclpy.try_shutdown()

    def _publisher(self, sensor: str) -> Any:
        return self._node.create_publisher(message_type(TYPES[sensor]), TOPICS[sensor], QOS)

    def _read(self) -> None:
        for line in sys.stdin:
            self._commands.put(json.loads(line))
        self._commands.put(None)

    def _due(self) -> Iterator[Delivery]:
        """The messages of all sensors as they become due, until the end of the input."""
        next_due, numbers = {sensor: self.now() for sensor in RATES}, Counter[str]()
        next_clock = 0
        while True:
            sensor = min(next_due, key=lambda s: next_due[s])
            due = next_due[sensor]
            while (left := due - self.now()) > 0:
                time.sleep(min(left / SECOND, 0.01))
                if self._simulated and self.now() >= next_clock:
                    next_clock = self.now() + SECOND // 50
                    self._publish_clock()
            self._stall = max(self._stall, (self.now() - due) / SECOND)
            if self._follow_commands() is None:
                return
            # After a time in which the process did not run, the sensors go on from now, as devices do.
            next_due[sensor] = max(due + round(SECOND / RATES[sensor]), self.now() - SECOND // 5)
            if self._held or due < self._frozen_until:
                continue
            stamp = due + self._offset - (BLOCK if sensor == AUDIO else 0)
            numbers[sensor] += 1
            yield Delivery(due, sensor, stamp, numbers[sensor])

    def _publish_clock(self) -> None:
        if self.now() < self._frozen_until:
            return
        message = message_type("rosgraph_msgs/msg/Clock")()
        message.clock.sec, message.clock.nanosec = divmod(self.now() + self._offset, SECOND)
        self._clock.publish(message)

    def _publish(self, delivery: Delivery) -> None:
        key = delivery.sensor, delivery.device
        if key not in self._publishers:
            return  # of a second publisher that has just ended
        message = self._contents[delivery.sensor](delivery)
        message.header.frame_id = f"{delivery.sensor}_{delivery.device}"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(delivery.stamp, SECOND)
        self._publishers[key].publish(message)
        self._published[TOPICS[delivery.sensor]] += 1

    def _follow_commands(self) -> bool | None:
        """Begin what was commanded, and answer for what has ended. None: the input has ended."""
        while self._faults and self._faults[0].end <= self.now():
            fault = self._faults.pop(0)
            self._end_second_publisher(fault)
            self._answer()
        if 0 < self._frozen_until <= self.now():
            self._frozen_until = 0
            self._answer()
        while not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return None
            self._begin(command)
        return True

    def _begin(self, command: dict[str, Any]) -> None:
        if "fault" in command:
            if command["fault"] == "two_publishers":
                self._begin_second_publisher(command["sensor"])
            begin = self.now()
            end = begin + round(command["seconds"] * SECOND)
            self._faults.append(ScheduledFault(command["fault"], command["sensor"], begin, end))
            return
        if "clock_pause" in command:
            pause = round(command["clock_pause"] * SECOND)
            self._frozen_until, self._offset = self.now() + pause, self._offset - pause
            return
        self._offset += round(command.get("clock", 0.0) * SECOND)
        self._held = command.get("hold", self._held)
        self._answer()

    def _begin_second_publisher(self, sensor: str) -> None:
        """Its messages must not be lost because it is not connected yet: nobody could know how many."""
        publisher = self._publishers[sensor, 1] = self._publisher(sensor)
        wanted, deadline = self._publishers[sensor, 0].get_subscription_count(), time.monotonic() + 5
        while publisher.get_subscription_count() < wanted and time.monotonic() < deadline:
            time.sleep(0.01)

    def _end_second_publisher(self, fault: ScheduledFault) -> None:
        if fault.name == "two_publishers":
            time.sleep(0.2)  # its last messages are fetched from shared memory
            self._node.destroy_publisher(self._publishers.pop((fault.sensor, 1)))

    def _answer(self) -> None:
        found = {"at": time.monotonic(), "stamp": self.now() + self._offset, "stall": self._stall}
        self._stall = 0.0
        print(json.dumps({**found, "published": self._published}), flush=True)


if __name__ == "__main__":
    Sensors("--clock" in sys.argv[1:]).run()
