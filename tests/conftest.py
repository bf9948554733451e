"""Finds the folder of real data, and skips tests that need it if it is missing."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# No deadline for an example: its duration depends on the load of the machine.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings, evaluation data and reference outputs, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder 'shared' with real data is not beside this checkout")
    return SHARED
