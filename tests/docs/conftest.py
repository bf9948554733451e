"""The recording that the pages and the examples use."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.python_process import run_python


@pytest.fixture(scope="package")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of docs/python.md, made with the command of that page: a piano, then drums."""
    folder = tmp_path_factory.mktemp("survey")
    simulate = ["simulate", "--survey", "2", "--seed", "1", "-o", "survey"]
    run_python("-m", "sensebind.cli", *simulate, folder=folder)
    return folder / "survey"
