"""The configuration for diagnostic_aggregator finds each status of the nodes, with and without a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed here: see `sensebind doctor`")

from helpers.paths import ROOT
from sensebind.nodes.support.diagnostic_status import diagnostic_status

# The parameters of diagnostic_aggregator's plugins and their types, from its sources.
COMMON = {"type": str, "path": str}
PLUGINS = {
    "diagnostic_aggregator/AnalyzerGroup": {**COMMON, "analyzers": dict},
    "diagnostic_aggregator/GenericAnalyzer": {
        **COMMON, "find_and_remove_prefix": list, "remove_prefix": list, "startswith": list, "contains": list,
        "expected": list, "regex": list, "timeout": float, "num_items": int, "discard_stale": bool,
    },
}  # fmt: skip
AGGREGATOR = {"path": str, "pub_rate": float, "other_as_errors": bool, "history_depth": int, "critical": bool}


def parameters() -> dict[str, Any]:
    text = (ROOT / "config" / "diagnostic_aggregator.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["analyzers"]["ros__parameters"]
    return found


def analyzers(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All analyzers of a group that match statuses. Checks the names and types of their parameters."""
    for name, analyzer in group.items():
        if name in AGGREGATOR:
            assert type(analyzer) is AGGREGATOR[name], name
            continue
        known = PLUGINS[analyzer["type"]]
        for key, value in analyzer.items():
            assert type(value) is known[key], f"{name}.{key}"
        if "analyzers" in analyzer:
            yield from analyzers(analyzer["analyzers"])
        else:
            assert any(analyzer.get(rule) for rule in ("startswith", "contains", "expected", "regex")), name
            yield analyzer


def matches(analyzer: dict[str, Any], name: str) -> bool:
    """As GenericAnalyzer::match."""
    starts = any(name.startswith(text) for text in analyzer.get("startswith", []))
    return starts or any(text in name for text in analyzer.get("contains", []))


@pytest.mark.parametrize("namespace", ["", "/robot1", "/fleet/robot1"])
@pytest.mark.parametrize(
    ("node", "component", "path"),
    [
        ("embedder", "vision", "Sensors"),
        ("embedder", "rear_camera", "Sensors"),
        ("detector", "events", "Events"),
        ("event_recorder", "snapshots", "Event recorder"),
        ("bridge", "clients", "Bridge"),
    ],
)
def test_one_rule_matches_each_status(namespace: str, node: str, component: str, path: str) -> None:
    status = diagnostic_status(f"{namespace}/{node}", component, b"\x00", "OK", {}, hardware=component)
    assert [a["path"] for a in analyzers(parameters()) if matches(a, status.name)] == [path]
    robot = namespace.strip("/")
    assert status.name.startswith(robot) and status.hardware_id.startswith(robot)


def test_statuses_of_other_software_are_left_to_other_rules() -> None:
    names = ["camera_driver: Frequency Status", "/arms/left/motor", "controller_manager: Controllers Activity"]
    assert not [name for name in names for analyzer in analyzers(parameters()) if matches(analyzer, name)]
