"""Middleware settings with which images arrive: Fast DDS's default buffers lose nearly all of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib.resources import files

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def fastdds_profile_path() -> str:
    """Path of the Fast DDS profile that the package ships."""
    return str(files("sensebind") / "config" / "fastdds.xml")


def fastdds_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment `base` for images to arrive; nothing where it names a profile already.

    Kilted and later read FASTDDS_DEFAULT_PROFILES_FILE, and warn of the name that was read before.
    """
    if any(name in base for name in PROFILE_VARIABLES):
        return {}
    old = base.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    return {PROFILE_VARIABLES[old]: fastdds_profile_path()}


def isolated_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for processes that are to meet each other and nobody else: a random domain, this machine."""
    result = dict(os.environ if base is None else base)
    result.update(fastdds_environment(result))
    # Domains up to 101 leave their ports clear of Linux's ephemeral ones.
    result.setdefault("ROS_DOMAIN_ID", str(1 + secrets.randbelow(101)))
    result.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return result
