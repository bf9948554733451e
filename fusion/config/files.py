"""Reads parameter files in ROS form (`/**: ros__parameters:`). A robot and the command line can share one file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.core.errors import ConfigError


class _RosYamlLoader(yaml.SafeLoader):
    """Keeps all keys as strings, as ROS does. In YAML 1.1 the key `on` is a boolean."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
        return super().construct_object(node, deep)


def read_parameter_file(path: str | Path, node: str) -> dict[str, Any]:
    """The parameters that a ROS parameter file sets for the node `node`, with flat names (`vision.hop`).

    Sections that name the node take precedence over sections for all nodes (`/**`). Raises `ConfigError`.
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
        raise ConfigError(f"parameter file '{path}' must contain '/**:' with 'ros__parameters:' inside")
    values: dict[str, Any] = {}
    for wanted in (("/**",), (node, f"/{node}", f"/**/{node}")):
        for section, body in document.items():
            if section not in wanted:
                continue
            if not isinstance(body, dict) or not isinstance(body.get("ros__parameters"), dict):
                raise ConfigError(f"'{section}' in '{path}' must contain 'ros__parameters:' with names and values")
            values.update(_flatten(body["ros__parameters"]))
    bodies = [body for body in document.values() if isinstance(body, dict)]
    if document and not values and not any("ros__parameters" in body for body in bodies):
        raise ConfigError(f"parameter file '{path}' has no 'ros__parameters:'; begin it with '/**:'")
    return values


def shipped_parameter_file(name: str) -> Path:
    """The path of a parameter file that is part of this package, for example ``starter.yaml``."""
    return Path(str(files("sensebind") / "config" / name))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
