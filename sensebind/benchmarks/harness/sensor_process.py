"""One simulated sensor in its own process: it publishes at its rate and prints the times at which it published.

`python -m sensebind.benchmarks.harness.sensor_process MODALITY RATE SECONDS SUBSCRIBERS`. It prints `ready` when it has
matched SUBSCRIBERS subscribers. It starts to publish at the time in the line `<seconds since the epoch>` of standard
input. At the end it prints a line of JSON: {stamps, cpu_s, late_ms}. A stamp is the time at which `publish` was called,
in ns since the epoch.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data

from sensebind.benchmarks.harness.sensor_load import ENCODINGS, Sensor
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, Frame, Sample, Sound
from sensebind.fusion.io import messages
from sensebind.nodes.support.message_types import message_type

SUBSCRIBER_TIMEOUT = 30.0  # s to wait for the subscribers
TOPICS = {AUDIO: "audio", IMU: "imu", "vision": "camera/image", "depth": "depth/image", "thermal": "thermal/image"}
TYPES = {
    AUDIO: "audio_common_msgs/msg/AudioDataStamped",
    IMU: messages.IMU_TYPE,
    **dict.fromkeys(ENCODINGS, messages.IMAGE_TYPE),
}


def message_of(sample: Sample) -> tuple[Any, Callable[[int], None]]:
    """A message with the sample's content, and a function that sets its stamp (ns)."""
    message = message_type(TYPES[sample.modality])()
    message.header.frame_id = sample.frame_id
    if isinstance(sample.data, Frame):
        for name in ("height", "width", "step", "encoding"):
            setattr(message, name, getattr(sample.data, name))
        message.data = array("B", sample.data.data.tobytes())
    elif isinstance(sample.data, Sound):
        with np.errstate(invalid="ignore"):  # NaN, of a poisoned sound, becomes any number
            message.audio.data = array("B", sample.data.data.astype("<i2").tobytes())
    else:
        for vector, values in (
            (message.linear_acceleration, sample.data.values[:3]),
            (message.angular_velocity, sample.data.values[3:]),
        ):
            vector.x, vector.y, vector.z = map(float, values)

    def stamp(now: int) -> None:
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, SECOND)

    return message, stamp


def await_start(publishers: Mapping[str, Any], subscribers: int) -> str | None:
    """Print `ready` once each of `publishers` (topic → publisher) has so many `subscribers`. Returns the next line of
    standard input, which says when to start. None, with a line that names the topics, after `SUBSCRIBER_TIMEOUT`."""
    deadline = time.monotonic() + SUBSCRIBER_TIMEOUT
    while missing := [t for t, publisher in publishers.items() if publisher.get_subscription_count() < subscribers]:
        if time.monotonic() > deadline:
            print(f"fewer than {subscribers} subscribers of {', '.join(missing)}")
            return None
        time.sleep(0.02)
    print("ready", flush=True)
    return sys.stdin.readline()


def main() -> int:
    """Publish for SECONDS. Exit status 1 if subscribers are missing after `SUBSCRIBER_TIMEOUT`."""
    modality, rate, seconds, subscribers = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    sensor = Sensor(modality, rate)
    prepared = [message_of(sensor.sample(i, 0)) for i in range(7)]
    # A block of audio is stamped with its start and sent at its end.
    length = round(SECOND / rate) if modality == AUDIO else 0
    rclpy.init()
    node = rclpy.create_node(f"bench_{modality}")
    publisher = node.create_publisher(message_type(TYPES[modality]), TOPICS[modality], qos_profile_sensor_data)
    if (line := await_start({TOPICS[modality]: publisher}, subscribers)) is None:
        return 1
    start = float(line)
    cpu = time.process_time()
    stamps: list[int] = []
    late = 0.0
    for index in range(round(rate * seconds)):
        due = start + index / rate
        if (left := due - time.time()) > 0:
            time.sleep(left)
        late = max(late, time.time() - due)
        message, set_stamp = prepared[index % len(prepared)]
        now = time.time_ns()
        set_stamp(now - length)
        publisher.publish(message)
        stamps.append(now)
    cpu = time.process_time() - cpu
    time.sleep(1.0)  # best-effort subscribers fetch the last messages from shared memory
    print(json.dumps({"stamps": stamps, "cpu_s": cpu, "late_ms": 1e3 * late}), flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
