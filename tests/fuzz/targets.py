"""All fuzz targets, by name."""

from __future__ import annotations

from fuzz import command_targets, file_targets, network_targets, sensor_targets, weight_targets
from fuzz.target import Target

PARTS = [sensor_targets, file_targets, weight_targets, network_targets, command_targets]
LEFT_OUT: dict[str, str] = {}  # target → why this installation cannot run it
try:
    from fuzz import node_targets
except ModuleNotFoundError as error:
    LEFT_OUT["detector, bridge, embed_text, parameters"] = f"{error.name} is not installed here"
else:
    PARTS.append(node_targets)
TARGETS: dict[str, Target] = {target.name: target for part in PARTS for target in part.TARGETS}
