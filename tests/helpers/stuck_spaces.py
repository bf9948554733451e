"""A space that is installed as a package and never returns at a chosen moment, for nodes in processes of their own.

environment = with_stuck_space(tmp_path, ros_environment("sensebind_msgs"))
with running("embedder", environment=environment, values={"space": "stuck", "weights": "load"}): …
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from helpers.installed_spaces import with_space
from helpers.toy_space import ToySpace
from sensebind.fusion.core.samples import IMU, TEXT
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.resampling import resample_readings

SECONDS_PER_WINDOW = 0.3  # s that the space needs for each window with `weights: slow`


class StuckSpace(ToySpace):
    """A space of an IMU. `weights` is the moment at which it prints ``stuck at <moment>`` and is stuck for ever: load,
    embed or text. ``slow``: it is slow instead."""

    def __init__(self, stuck_at: str) -> None:
        super().__init__([IMU])
        self._stuck_at = stuck_at
        self._reach("load")

    @classmethod
    def load(
        cls, *, modalities: Iterable[str] | None = None, device: str = "cpu", weights: str = "", dtype: str = "auto"
    ) -> StuckSpace:
        return cls(weights)

    def preparation(self, modality: str) -> Callable[[Window], torch.Tensor]:
        return prepare_readings

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        if modality != TEXT:
            self._reach("embed")
            if self._stuck_at == "slow":
                time.sleep(SECONDS_PER_WINDOW * len(batch))
        return super().embed(modality, batch)

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        self._reach("text")
        return super().embed_text(texts)

    def _reach(self, moment: str) -> None:
        if moment == self._stuck_at:
            os.write(2, f"stuck at {moment}\n".encode())
            wait_for_ever()


def prepare_readings(window: Window) -> torch.Tensor:
    return torch.from_numpy(resample_readings(window, 25, 6).ravel())


def wait_for_ever() -> None:
    """As in a library: without the interpreter lock, and no signal ends it."""
    mutex = ctypes.create_string_buffer(64)  # zeros: unlocked
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def with_stuck_space(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in which the space ``stuck`` is installed. `folder`: for the package's files."""
    return with_space(folder, environment, "stuck", "helpers.stuck_spaces:StuckSpace.load")
