"""Finds message classes of the ROS installation by name."""

from __future__ import annotations

from array import array
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt


@cache
def message_type(name: str) -> Any:
    """The class of ``pkg/msg/Type`` or ``pkg/srv/Type``. Raises `ModuleNotFoundError` if it is not installed."""
    package, kind, short = name.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), short)
    except (ImportError, AttributeError) as error:
        raise ModuleNotFoundError(
            f"message type '{name}' is not installed: install or build the ROS package '{package}'", name=package
        ) from error


class RosMessageFactory:
    """Implements `messages.Types` for rclpy."""

    def make(self, name: str, /, **fields: Any) -> Any:
        return message_type(name)(**fields)

    def float_array(self, values: npt.ArrayLike) -> array[float]:
        # rclpy accepts an array.array of the right type as it is, and checks anything else element by element.
        return array("f", np.asarray(values, np.float32).tobytes())
