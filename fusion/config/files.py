"""Reads parameter files in ROS form (`/**: ros__parameters:`). A robot and the command line can share one file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.config.parameters import NODE_PARAMETERS
from sensebind.fusion.core.atomic import write_text
from sensebind.fusion.core.documents import DocumentError, read_yaml
from sensebind.fusion.core.errors import ConfigError

MADE_FROM = "made by sensebind.launch.py from "  # first line of a file that the launch file makes, with the original


class _RosYamlDumper(yaml.SafeDumper):
    """Quotes each string that ROS would read as a value of another type."""


# A number with an exponent needs no point in ROS (1e-3), as in YAML 1.2; in YAML 1.1 that is a string.
_RosYamlDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_RosYamlDumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def read_parameter_file(path: str | Path, node: str, namespace: str | None = None) -> dict[str, Any]:
    """The parameters that a ROS parameter file sets for the node `node`, with flat names (`vision.hop`).

    `namespace`: that of the node, for example ``/robot1``; None: not known, as in a replay. Later ones of these
    sections take precedence: `/**`; other wildcards that match the node; those with the bare name of the node, in any
    namespace; the section with its full name. If the namespace is not known and the file has no other section for the
    node, the one that names it in a namespace is used, as in a dump of `/robot1/detector`. Raises `ConfigError`, also
    if there are several such sections.
    """
    document = _read_document(path)
    for name, body in document.items():
        if name.strip("/") in ("**", node, f"**/{node}") and not _sections({name: body}):
            raise ConfigError(f"'{name}' in '{path}' must contain 'ros__parameters:' with names and values")
    sections = _sections(document)
    if document and not sections:
        raise ConfigError(f"parameter file '{path}' has no 'ros__parameters:'; begin it with '/**:'")
    found = [(rank, name, body) for name, body in sections if (rank := _precedence(name, node, namespace)) is not None]
    if namespace is None and not found:
        found = [(0, name, body) for name, body in sections if name.endswith(f"/{node}")]
        if len(found) > 1:
            names = ", ".join(sorted(name.strip("/") for _, name, _ in found))
            raise ConfigError(f"parameter file '{path}' has sections of several nodes '{node}': {names}; keep one")
    values: dict[str, Any] = {}
    for _, _, body in sorted(found, key=lambda section: section[0]):
        values.update(_flatten(body, path))
    return values


def unknown_sections(path: str | Path, nodes: Collection[str] = ()) -> list[str]:
    """A warning for each section of a parameter file that is of no node of this package, nor of `nodes`.

    Raises `ConfigError`.
    """
    known, warnings = sorted({*NODE_PARAMETERS, *nodes}), []
    for name, _ in _sections(_read_document(path)):
        last = name.rpartition("/")[2]
        if last not in known and last not in ("*", "**"):
            near = difflib.get_close_matches(last, known, 1)
            hint = f"Did you mean '{name.removesuffix(last)}{near[0]}'? " if near else ""
            warnings.append(
                f"parameter file '{path}': the section '{name}' is of no node of Sensebind and is not used. {hint}The "
                f"nodes are {', '.join(known)}; '/**' is for all"
            )
    return warnings


def lost_sections(path: str | Path, node: str, namespace: str | None, *, as_ros: bool = False) -> list[str]:
    """A warning if sections of a parameter file name `node`, and do not apply to it in `namespace`.

    Sections for the node in other namespaces are in order if another section applies. `namespace`: as in
    `read_parameter_file`; the rules of precedence too, unless `as_ros`: ROS itself applies a section with the bare name
    of a node to that in no namespace only. Raises `ConfigError`.
    """
    names = [name for name, _ in _sections(_read_document(path))]
    own = [name for name in names if name.rpartition("/")[2] == node]
    full = f"{(namespace or '').rstrip('/')}/{node}"
    if as_ros:
        applied = [name for name in names if _matches(name, full)]
        lost = own if not applied else [name for name in own if name.strip("/") == node and name not in applied]
        remedy = (
            f"rename it to '{full}', or to '/**/{node}' for any namespace, or start the node with "
            "sensebind.launch.py, which needs no change"
        )
    else:
        applied = [name for name in names if _precedence(name, node, namespace) is not None]
        lost = own if namespace is not None and not applied else []
        remedy = f"rename it to '{full}', or to '{node}' for any namespace"
        if namespace is None and applied:
            lost = [name for name in own if name not in applied]
            full, remedy = node, "name the namespace (--namespace of a replay), or move its values to '/**'"
    if not lost:
        return []
    sections = ", ".join(f"'{name}'" for name in lost)
    return [f"parameter file '{path}': the section {sections} does not apply to '{full}' and is not used: {remedy}"]


def _matches(section: str, full_name: str) -> bool:
    """Whether ROS applies a section to the node with this full name. `/*` stands for one level, `/**` for any."""
    levels = ["", *section.strip("/").split("/")]
    # A row of `**` is one: the time for a pattern of hundreds of them has no end.
    parts = [part for before, part in pairwise(levels) if not before == part == "**"]
    pattern = "".join(
        r"(/\w+)*" if part == "**" else r"/\w+" if part == "*" else "/" + re.escape(part) for part in parts
    )
    return re.fullmatch(pattern, full_name) is not None


def _precedence(section: str, node: str, namespace: str | None) -> int | None:
    """A larger number for a section that takes precedence; None: it does not apply to the node."""
    name = section.strip("/")
    if name == "**":
        return 0
    if "*" in name:
        full = f"/any/{node}" if namespace is None else f"{namespace.rstrip('/')}/{node}"
        return 1 if _matches(section, full) else None
    if name == node:
        return 2
    return 3 if namespace is not None and f"/{name}" == f"{namespace.rstrip('/')}/{node}" else None


def section_names(path: str | Path) -> set[str]:
    """The names of the sections of a parameter file, without slashes at the ends. Raises `ConfigError`."""
    return {name.strip("/") for name, _ in _sections(_read_document(path))}


def check_parameter_file(path: str | Path) -> None:
    """Raises `ConfigError` for a parameter file that ROS cannot read, or would read differently.

    ROS reads the file after this check, and names no key in its own errors.
    """
    if Path(path).exists() and not Path(path).is_file():  # of a pipe, ROS could read nothing after this check
        raise ConfigError(f"parameter file '{path}' is not a file: a folder, a pipe or a device cannot be used")
    _check_sections(path, _read_document(path))


def _check_sections(path: str | Path, tree: Mapping[str, Any], prefix: str = "") -> None:
    for name, body in tree.items():
        full = f"{prefix}/{name}" if prefix else name
        if not isinstance(body, Mapping):
            raise ConfigError(f"'{full}' in '{path}' must contain 'ros__parameters:' with names and values")
        if "ros__parameters" not in body:
            _check_sections(path, body, full)
        elif not isinstance(body["ros__parameters"], Mapping):
            raise ConfigError(f"'{full}' in '{path}' must contain 'ros__parameters:' with names and values")
        else:
            for parameter, value in _flatten(body["ros__parameters"], path).items():
                _check_value(path, parameter, value)


def _check_value(path: str | Path, name: str, value: Any) -> None:
    if not all(name.split(".")):
        raise ConfigError(f"parameter file '{path}' has a parameter without a name, or with an empty part: '{name}'")
    if not isinstance(value, list):
        return
    types = sorted({type(item).__name__ for item in value})
    if unusable := [kind for kind in types if kind not in ("bool", "int", "float", "str")]:
        raise ConfigError(
            f"parameter file '{path}': the list '{name}' contains a {unusable[0]}: "
            "use booleans, integers, floating-point numbers or texts"
        )
    if len(types) > 1:
        kinds = " and ".join(types)
        raise ConfigError(f"parameter file '{path}': the list '{name}' mixes values of the types {kinds}: use one type")


def files_with(name: str, paths: Iterable[str]) -> list[str]:
    """Those of the parameter files that set a parameter in any section. Files that cannot be read do not count."""
    found = []
    for path in paths:
        with suppress(ConfigError):
            if any(name in _flatten(body, path) for _, body in _sections(_read_document(path))):
                found.append(path)
    return found


def original_path(path: str | Path) -> str:
    """The file that the launch file made a parameter file from; `path` itself for any other file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            first = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return str(path)
    return first.removeprefix(f"# {MADE_FROM}") if first.startswith(f"# {MADE_FROM}") else str(path)


def _read_document(path: str | Path) -> dict[str, Any]:
    """The contents of a parameter file. Raises `ConfigError`."""
    try:
        document = read_yaml(path) or {}
    except FileNotFoundError as error:
        raise ConfigError(
            f"parameter file '{path}' does not exist: correct the path; a relative one begins at '{Path.cwd()}'"
        ) from error
    except DocumentError as error:
        raise ConfigError(f"parameter file {error}") from error
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
    document = {"/**": {"ros__parameters": tree}}
    body = yaml.dump(document, Dumper=_RosYamlDumper, sort_keys=False, allow_unicode=True, width=120)
    text = "".join(f"# {line}\n" for line in heading) + body
    try:
        write_text(path, text)
    except OSError as error:
        raise ConfigError(f"parameter file '{path}' cannot be written: {error.strerror or error}") from error


def shipped_parameter_file(name: str) -> Path:
    """The path of a parameter file that is part of this package, for example ``starter.yaml``."""
    return Path(str(files("sensebind") / "config" / name))


def _flatten(tree: Mapping[str, Any], path: str | Path, prefix: str = "") -> dict[str, Any]:
    """The values with flat names. Raises `ConfigError` for a name that is there flat and nested."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        full = f"{prefix}{name}"
        found = _flatten(value, path, f"{full}.") if isinstance(value, Mapping) else {full: value}
        if twice := sorted(found.keys() & flat.keys()):
            raise ConfigError(f"parameter file '{path}' sets '{twice[0]}' twice in one section: remove one")
        flat.update(found)
    return flat
