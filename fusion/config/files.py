"""Parameter files, in the form that ROS reads (`/**: ros__parameters:`), so a robot and the command line share one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.core.errors import ConfigError


class _RosYamlLoader(yaml.SafeLoader):
    """Keys stay strings, as for ROS: YAML 1.1 would make a boolean of the key `on`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
        return super().construct_object(node, deep)


def read_parameter_file(path: str | Path, node: str) -> dict[str, Any]:
    """The flat parameters (`vision.hop`) that a ROS parameter file gives to the node called `node`.

    Sections for all nodes (`/**`) come first, then those that name the node. Raises `ConfigError`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"parameter file '{path}' cannot be read: {error}") from error
    try:
        document = yaml.load(text, _RosYamlLoader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"parameter file '{path}' is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"parameter file '{path}' must hold '/**:' with 'ros__parameters:' inside")
    values: dict[str, Any] = {}
    for wanted in (("/**",), (node, f"/{node}", f"/**/{node}")):
        for section, body in document.items():
            if section not in wanted:
                continue
            if not isinstance(body, dict) or not isinstance(body.get("ros__parameters"), dict):
                raise ConfigError(f"'{section}' in '{path}' must hold 'ros__parameters:' with names and values")
            values.update(_flatten(body["ros__parameters"]))
    bodies = [body for body in document.values() if isinstance(body, dict)]
    if document and not values and not any("ros__parameters" in body for body in bodies):
        raise ConfigError(f"parameter file '{path}' has no 'ros__parameters:'; begin it with '/**:'")
    return values


def shipped_parameter_file(name: str) -> Path:
    """The path of a parameter file that the package ships, such as ``starter.yaml``."""
    return Path(str(files("sensebind") / "config" / name))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
