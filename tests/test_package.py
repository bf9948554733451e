"""The package: versions, links, executables, message definitions, parameter files and an installed copy."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import import_module, reload
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT
from sensebind import __version__
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.config.parameters import NODE_PARAMETERS, parameters_of_other_nodes, resolve_values

DEFINITIONS = sorted([*(ROOT / "sensebind_msgs" / "msg").iterdir(), *(ROOT / "sensebind_msgs" / "srv").iterdir()])


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.stem)
def test_every_field_of_every_message_has_a_comment(file: Path) -> None:
    for line in file.read_text().splitlines():
        if line.strip() and not line.startswith("#") and line != "---":
            assert "#" in line and line.split("#", 1)[1].strip(), line


def test_versions_and_licences_agree() -> None:
    for file in (ROOT / "package.xml", ROOT / "sensebind_msgs" / "package.xml"):
        tree = ElementTree.parse(file).getroot()
        assert tree.get("format") == "3"
        assert tree.findtext("version") == __version__ and tree.findtext("license") == "Apache-2.0"
    assert f'version="{__version__}"' in (ROOT / "setup.py").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_symbolic_links_point_to_the_source_folders() -> None:
    for name, target in (("fusion", "../fusion"), ("nodes", "../nodes"), ("config", "../config")):
        assert os.readlink(ROOT / "sensebind" / name) == target


@pytest.mark.parametrize("name", ["embedder", "detector", "bridge", "event_recorder", "player"])
def test_every_executable_has_an_entry_point(name: str) -> None:
    pytest.importorskip("rclpy")
    assert callable(import_module(f"sensebind.nodes.{name}").main)
    assert f"{name} = sensebind.nodes.{name}:main" in (ROOT / "setup.py").read_text()


def test_the_names_of_the_oldest_distribution_are_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Humble has `rclpy.qos_event` instead of `rclpy.event_handler`, and no service for log levels."""
    handlers = pytest.importorskip("rclpy.event_handler")
    from rclpy.node import Node

    from sensebind.nodes.support import rclpy_compat

    def constructor(self: Node, node_name: str, *, allow_undeclared_parameters: bool = False) -> None: ...

    monkeypatch.setitem(sys.modules, "rclpy.qos_event", handlers)
    monkeypatch.setitem(sys.modules, "rclpy.event_handler", None)
    monkeypatch.setattr(Node, "__init__", constructor)
    try:
        humble = reload(rclpy_compat)
        assert humble.LOGGER_SERVICE_ARGUMENTS == {}
        assert humble.UnsupportedEventTypeError is handlers.UnsupportedEventTypeError
    finally:
        monkeypatch.undo()
        reload(rclpy_compat)


def test_torch_is_pinned() -> None:
    assert "torch==" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("file", sorted((ROOT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_parameter_files_contain_only_known_parameters(file: Path) -> None:
    assert "ros__parameters" in next(iter(yaml.safe_load(file.read_text()).values()))
    for node in ("embedder", "detector"):
        resolve_values(NODE_PARAMETERS[node](), read_parameter_file(file, node), parameters_of_other_nodes(node))


def test_every_parameter_is_described_and_numbers_have_a_range() -> None:
    for node in NODE_PARAMETERS:
        for parameter in NODE_PARAMETERS[node]():
            assert parameter.description, parameter.name
            if type(parameter.default) in (int, float):
                assert parameter.bounds is not None, parameter.name
            parameter.check(parameter.default)


def test_an_installed_copy_contains_its_data_files(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(tmp_path)]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=False, capture_output=True)
    if not (copy / "setup.py").exists():
        pytest.skip("this is not a git checkout")
    done = subprocess.run([*pip, str(copy)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in (
        "config/fastdds.xml",
        "config/foxglove_layout.json",
        "config/starter.yaml",
        "fusion/models/starter/imagenet_classes.safetensors",
        "fusion/models/starter/audioset_classes.txt",
        "fusion/models/starter/object_classes.safetensors",
        "fusion/models/starter/weights/yamnet.safetensors",
        "fusion/models/starter/weights/object_detector.safetensors",
        "fusion/models/starter/weights/yamnet.md",
        "fusion/events/calibrations/starter.safetensors",
        "fusion/events/calibrations/starter_house.safetensors",
        "interfaces/sensebind_msgs/msg/Embedding.msg",
        "nodes/embedder.py",
        "commands/replay.py",
    ):
        assert (tmp_path / "sensebind" / name).is_file(), name
