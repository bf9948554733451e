"""Report of a run: the table of figures on the terminal, and the JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensebind.benchmarks.harness import environment
from sensebind.fusion.core.atomic import write_text


def print_figures(figures: Mapping[str, Any], indent: str = "") -> None:
    """Print a table: one line for each figure, groups indented."""
    width = max([34, *(len(name) + 2 for name in figures)])
    for name, value in figures.items():
        if isinstance(value, Mapping) and all(not isinstance(v, Mapping | list) for v in value.values()):
            print(f"{indent}{name:<{width}}" + "  ".join(f"{k} {_format_value(v)}" for k, v in value.items()))
        elif isinstance(value, Mapping):
            print(f"{indent}{name}")
            print_figures(value, indent + "  ")
        elif isinstance(value, list):
            for item in value:
                print(
                    f"{indent}{name:<{width}}"
                    + "  ".join(f"{k} {_format_value(v)}" for k, v in item.items() if not isinstance(v, Mapping))
                )
        else:
            print(f"{indent}{name:<{width}}{_format_value(value)}")


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_conditions(bench: str, figures: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """`figures` with the conditions of the run."""
    return {**environment.run_conditions(bench, device), "figures": dict(figures)}


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, and create its folder. NaN and infinity become null. Raises `OSError`."""
    write_text(path, json.dumps(_nan_to_null(content), indent=1, allow_nan=False) + "\n")


def _nan_to_null(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _nan_to_null(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_nan_to_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
