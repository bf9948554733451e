"""All fuzz targets, by name."""

from __future__ import annotations

from fuzz import file_targets, network_targets, sensor_targets

TARGETS = {target.name: target for part in (sensor_targets, file_targets, network_targets) for target in part.TARGETS}
