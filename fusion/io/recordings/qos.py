"""The one property of a topic's offered QoS that a reader of recordings needs: whether it is latched."""

from __future__ import annotations

from typing import Any

from sensebind.fusion.core.documents import DocumentError, parse_yaml

TRANSIENT_LOCAL = ("1", "transient_local")  # rosbag2's versions write numbers or names


def is_latched(profiles: Any) -> bool:
    """Whether any profile is transient local: its publisher kept messages for late subscribers.

    `profiles` is YAML or its value, as rosbag2 or a person wrote it: a list of profiles, or one profile. False if it is
    anything else, because QoS is no reason to refuse a recording.
    """
    if isinstance(profiles, str):
        if "durability" not in profiles:
            return False
        try:
            profiles = parse_yaml(profiles)
        except DocumentError:
            return False
    found = [profiles] if isinstance(profiles, dict) else profiles
    if not isinstance(found, list):
        return False
    return any(isinstance(own, dict) and str(own.get("durability")).lower() in TRANSIENT_LOCAL for own in found)
