"""Middleware settings for images: with Fast DDS's default buffers, nearly all of them are lost."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
SHARED_MEMORY = Path("/dev/shm")
KILTED_RMW_VERSION = 9  # major version of rmw_fastrtps_cpp


def fastdds_profile_path() -> str:
    """Path of the Fast DDS profile that the package ships."""
    return str(files("sensebind") / "config" / "fastdds.xml")


def fastdds_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The variables to add to the environment `base` so that images arrive; none if it names a profile already.

    Kilted and later read FASTDDS_DEFAULT_PROFILES_FILE, and warn if the earlier name is set.
    """
    if any(name in base for name in PROFILE_VARIABLES):
        return {}
    return {PROFILE_VARIABLES[_is_before_kilted(base)]: fastdds_profile_path()}


def remove_shared_memory() -> None:
    """Remove the shared memory of this process's Fast DDS participants, before a process ends by `_exit`: nothing else
    would. Only on Linux; otherwise it does nothing."""
    with suppress(OSError, ValueError):
        own = {
            int(fields[5].rpartition(":")[2])
            for fields in (line.split() for line in Path("/proc/locks").read_text().splitlines())
            if fields[1] == "FLOCK" and int(fields[4]) == os.getpid()
        }
        for lock in SHARED_MEMORY.glob("fastdds_*_el"):  # its owner holds a lock on it; the ports are shared
            segment = lock.with_name(lock.name.removesuffix("_el"))
            if lock.stat().st_ino in own and not segment.name.startswith("fastdds_port"):
                segment.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)


def _is_before_kilted(base: Mapping[str, str]) -> bool:
    if "ROS_DISTRO" in base:
        return base["ROS_DISTRO"] in ("humble", "iron", "jazzy")
    try:  # an environment of PyPI wheels, which set no ROS_DISTRO
        return int(version("ros-rmw-fastrtps-cpp").partition(".")[0]) < KILTED_RMW_VERSION
    except PackageNotFoundError:
        return False


def isolated_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment for processes that communicate only with each other: a random ROS domain on this machine."""
    result = dict(os.environ if base is None else base)
    result.update(fastdds_environment(result))
    # The ports of domains up to 101 are outside Linux's range of ephemeral ports.
    result.setdefault("ROS_DOMAIN_ID", str(1 + secrets.randbelow(101)))
    result.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return result
