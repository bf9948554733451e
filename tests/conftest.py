"""Settings of a test run, and the folder of real data: tests that need it are skipped if it is missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from helpers.paths import SHARED
from helpers.ros_processes import random_domain

# No deadline for an example: its duration depends on the load of the machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell: processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes run the tests at the same time
    os.environ["ROS_DOMAIN_ID"] = str(random_domain())  # for processes that are started without `ros_environment`
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported; the other cores have work


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings, evaluation data and reference outputs, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder 'shared' with real data is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the small ImageBind, as PyTorch saves it."""
    import torch

    from helpers.small_imagebind import SIZES
    from sensebind.fusion.models.imagebind.network import ImageBind

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("imagebind") / "small.pth"
    torch.save(ImageBind(**SIZES).state_dict(), path)
    return path
