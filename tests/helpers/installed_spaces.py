"""Spaces of the tests as those of another package that is installed, for nodes in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from helpers.paths import ROOT


def with_space(folder: Path, environment: Mapping[str, str], name: str, loader: str) -> dict[str, str]:
    """The environment of a process that can load the space `name`. `folder`: for the files of the package. `loader`:
    module and function, such as ``helpers.toy_space:ToySpace.load``."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[sensebind.models]\n{name} = {loader}\n")
    paths = [str(folder), str(ROOT / "tests"), environment["PYTHONPATH"]]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}
