"""Finds message classes of the ROS installation by name.

The names of types come from recordings and from other programs. So a name imports nothing but a package of messages
that is installed in the ROS environment: no other Python package, and none in the current folder.
"""

from __future__ import annotations

import os
import re
import sys
from array import array
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TYPE_NAME = re.compile(r"(?P<package>[a-z][a-z0-9_]*)/(?P<kind>msg|srv|action)/(?P<short>[A-Z][A-Za-z0-9_]*)")
INDEX = Path("share/ament_index/resource_index/rosidl_interfaces")  # has a file for each package of messages


@cache
def message_type(name: str) -> Any:
    """The class of ``pkg/msg/Type`` or ``pkg/srv/Type``. Raises `ModuleNotFoundError` if it is not installed in the ROS
    environment."""
    parts = TYPE_NAME.fullmatch(name)
    if parts is None:
        raise ModuleNotFoundError(f"{name[:200]!r} is no message type: its form is package/msg/Type")
    package = parts["package"]
    try:
        _import_package(package)
        return getattr(import_module(f"{package}.{parts['kind']}"), parts["short"])
    except (ImportError, AttributeError) as error:
        raise ModuleNotFoundError(
            f"message type '{name}' is not installed: install or build the ROS package '{package}'", name=package
        ) from error


def _import_package(package: str) -> None:
    """Import a package of messages from the ROS environment. Raises `ImportError` if it is not there."""
    prefixes = [prefix for prefix in _prefixes() if (prefix / INDEX / package).is_file()]
    if (loaded := sys.modules.get(package)) is not None:
        spec = getattr(loaded, "__spec__", None)
    else:
        found = [path for path in sys.path if path and any(_is_inside(path, prefix) for prefix in prefixes)]
        spec = PathFinder.find_spec(package, found)
    if not isinstance(spec, ModuleSpec) or not _is_in_one(spec, prefixes):
        raise ImportError(f"the ROS environment has no messages of '{package}'")
    if loaded is None and spec.loader is not None:
        sys.modules[package] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[package]
            raise


def _is_in_one(spec: ModuleSpec, prefixes: list[Path]) -> bool:
    """Whether a package lies in one of these prefixes."""
    places = list(spec.submodule_search_locations or ())
    return bool(places) and all(any(_is_inside(place, prefix) for prefix in prefixes) for place in places)


def _is_inside(path: str, prefix: Path) -> bool:
    """Whether a path lies in a folder, as it is written or with its links followed: both are usual in workspaces."""
    return Path(path).absolute().is_relative_to(prefix) or Path(path).resolve().is_relative_to(prefix.resolve())


def _prefixes() -> list[Path]:
    """The folders in which ROS packages are installed: those of AMENT_PREFIX_PATH, and that of rclpy, which its wheels
    do not name there."""
    found = [Path(part) for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if os.path.isabs(part)]
    rclpy = find_spec("rclpy")
    if rclpy is not None and rclpy.origin is not None:
        found += [parent for parent in Path(rclpy.origin).parents if (parent / INDEX).is_dir()]
    return found


class RosMessageFactory:
    """Implements `messages.Types` for rclpy."""

    def make(self, name: str, /, **fields: Any) -> Any:
        return message_type(name)(**fields)

    def float_array(self, values: npt.ArrayLike) -> array[float]:
        # rclpy accepts an array.array of the right type as it is, and checks anything else element by element.
        return array("f", np.asarray(values, np.float32).tobytes())
