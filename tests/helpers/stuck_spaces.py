"""A space that is installed as a package and never returns at a chosen moment, for nodes in processes of their own.

with running("embedder", environment=with_stuck_space(tmp_path, environment), values={"space": "stuck", "weights": "load"})
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from helpers.paths import ROOT
from helpers.toy_space import ToySpace

STUCK_AT = ("load", "embed", "text", "slow", "never")  # values of `weights`
MOMENTS_PER_WINDOW = 0.2  # s that the space needs for each window with `weights: slow`


class StuckSpace(ToySpace):
    """Prints ``stuck at …`` and then works for ever, in a call of a library that handles no signal (`time.sleep` of
    Python would)."""

    def __init__(self, modalities: Iterable[str], stuck_at: str) -> None:
        super().__init__(modalities)
        self._stuck_at = stuck_at
        self._reach("load")

    @classmethod
    def load(cls, *, modalities=None, device="cpu", weights="", dtype="auto") -> StuckSpace:
        return cls([m for m in modalities or () if m != "text"], weights)

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        if modality != "text":
            self._reach("embed")
            if self._stuck_at == "slow":
                time.sleep(MOMENTS_PER_WINDOW * len(batch))
        return super().embed(modality, batch)

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        self._reach("text")
        return super().embed_text(texts)

    def _reach(self, moment: str) -> None:
        if moment == self._stuck_at:
            os.write(2, f"stuck at {moment}\n".encode())
            import ctypes

            while True:
                ctypes.CDLL(None).usleep(10**9)


def with_stuck_space(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in which the space ``stuck`` is installed. `folder`: for the package's files."""
    info = folder / "stuck-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stuck\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sensebind.models]\nstuck = helpers.stuck_spaces:StuckSpace.load\n")
    return {**environment, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests"), environment["PYTHONPATH"]])}
