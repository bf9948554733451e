"""Reads parameter files in ROS form (`/**: ros__parameters:`). A robot and the command line can share one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.core.atomic import write_text
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

    Sections that name the node take precedence over sections for all nodes (`/**`). If the file has neither, a section
    that names the node in a namespace is used, as in a dump of `/robot1/detector`. Raises `ConfigError`, also if there
    are several such sections.
    """
    document = _read_document(path)
    for name, body in document.items():
        if name.strip("/") in ("**", node, f"**/{node}") and not _sections({name: body}):
            raise ConfigError(f"'{name}' in '{path}' must contain 'ros__parameters:' with names and values")
    sections = _sections(document)
    names = {name.strip("/") for name, _ in sections}
    own = {name for name in names if name == node}
    if not own and "**" not in names:
        own = {name for name in names if name.endswith(f"/{node}") and not name.startswith("*")}
    if len(own) > 1:
        raise ConfigError(
            f"parameter file '{path}' has sections of several nodes '{node}': {', '.join(sorted(own))}; keep one"
        )
    wanted = {*own, f"**/{node}", f"*/{node}"}
    values: dict[str, Any] = {}
    for for_all in (True, False):
        for name, body in sections:
            if (name.strip("/") == "**") if for_all else (name.strip("/") in wanted):
                values.update(_flatten(body))
    if document and not sections:
        raise ConfigError(f"parameter file '{path}' has no 'ros__parameters:'; begin it with '/**:'")
    return values


def section_names(path: str | Path) -> set[str]:
    """The names of the sections of a parameter file, without slashes at the ends. Raises `ConfigError`."""
    return {name.strip("/") for name, _ in _sections(_read_document(path))}


def _read_document(path: str | Path) -> dict[str, Any]:
    """The contents of a parameter file. Raises `ConfigError`."""
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
    return document


def _sections(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """(name of the node, parameters) of each section with `ros__parameters`. A namespace may be a level of its own."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name, body in tree.items():
        full = f"{prefix}/{name}" if prefix else name
        if isinstance(body, Mapping) and isinstance(body.get("ros__parameters"), Mapping):
            found.append((full, body["ros__parameters"]))
        elif isinstance(body, Mapping) and "ros__parameters" not in body:
            found += _sections(body, full)
    return found


def write_parameter_file(path: str | Path, values: Mapping[str, Any], heading: Sequence[str] = ()) -> None:
    """Write values with flat names (`vision.hop`) as a parameter file for all nodes, also those in a namespace.

    `heading`: lines of comment. Raises `ConfigError` if the file cannot be written.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = tree
        for number, group in enumerate(groups):
            inner = place.setdefault(group, {})
            if not isinstance(inner, dict):  # a label that is the beginning of another label
                last = ".".join([*groups[number:], last])
                break
            place = inner
        if isinstance(place.get(last), dict):
            place, last = tree, name
        place[last] = value
    body = yaml.safe_dump({"/**": {"ros__parameters": tree}}, sort_keys=False, allow_unicode=True, width=120)
    text = "".join(f"# {line}\n" for line in heading) + body
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"parameter file '{path}' cannot be written: {error.strerror or error}") from error


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
