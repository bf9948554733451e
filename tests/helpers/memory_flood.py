"""Floods an embedder, whose encoders are stalled, with large images, and prints its resident memory.

python tests/helpers/memory_flood.py --limit 1200 --seconds 20
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.ros_processes import Executable, parameter_arguments, peer, ros_environment
from sensebind.benchmarks.harness.resources import process_resources

STALLED = (  # each batch takes `stall` s, as on a GPU that hangs
    "import time; from sensebind.fusion.inference.batch_runner import BatchRunner; start = BatchRunner._start; "
    "BatchRunner._start = lambda *a: (time.sleep({stall}), start(*a))[1]; "
    "from sensebind.nodes.embedder import main; raise SystemExit(main())"
)


def main() -> int:
    """Returns 0 if the resident memory stayed within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=0, help="memory_limit_mb")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stall", type=float, default=6.0, help="seconds that each batch takes")
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(3840, 2160))
    args = parser.parse_args()
    from sensor_msgs.msg import Image

    environment = ros_environment("sensebind_msgs")
    names = [f"camera{number}" for number in range(args.cameras)]
    values = {"modalities": ["vision"], "device": "cpu", "vision.sensors": names}
    if args.limit:
        values["memory_limit_mb"] = args.limit
    command = [sys.executable, "-c", STALLED.format(stall=args.stall), "--ros-args", *parameter_arguments(values)]
    embedder = Executable(command, environment)
    with peer(environment) as me:
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics")
        try:
            embedder.wait_for_output("ready in", 60)
            publishers = [me.publisher("sensor_msgs/msg/Image", f"/{name}/image") for name in names]
            for publisher in publishers:
                me.wait_for_subscribers(publisher)
            before = process_resources(embedder.pid)["rss_mb"]
            width, height = args.size
            image = Image(height=height, width=width, step=3 * width, encoding="rgb8")
            image.data = os.urandom(3 * width) * height
            peak, sent, began = before, 0, time.monotonic()
            while (now := time.monotonic() - began) < args.seconds:
                image.data[0] = sent % 256  # a vector of equal images would be used again
                image.header.stamp = me.node.get_clock().now().to_msg()
                for publisher in publishers:
                    publisher.publish(image)
                sent += 1
                me.spin(max(0.01, sent / 30 - now))
                peak = max(peak, process_resources(embedder.pid)["rss_mb"])
            found = {s.name: s for _, array in diagnostics for s in array.status}
        finally:
            embedder.kill()
            print(embedder.output)
    for name, status in found.items():
        values = {v.key: v.value for v in status.values}
        shown = {k: v for k, v in values.items() if "_mb" in k or (v.isdecimal() and v != "0")}
        print(name, status.level, status.message, shown)
    rate = sent / args.seconds
    print(f"limit {args.limit} MB, {rate:.1f} images/s of {width}x{height}: {before:.0f} MB before, peak {peak:.0f} MB")
    return int(args.limit > 0 and peak > args.limit)


if __name__ == "__main__":
    sys.exit(main())
