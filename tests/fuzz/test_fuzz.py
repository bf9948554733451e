"""No input of any entry point crashes it, hangs it or makes it work without limit: a short run of each fuzz target."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.target import Tally
from fuzz.targets import LEFT_OUT, TARGETS

INPUTS = 6  # of each target; run `python -m tests.fuzz all` for more
FOUND = sorted((Path(__file__).parent / "found").glob("*.bin"))  # inputs that once failed: TARGET-….bin


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Wrong inputs are logged; here nobody reads it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_makes_an_entry_point_fail(name: str) -> None:
    tally = Tally()

    @seed(1)
    @settings(
        max_examples=INPUTS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(TARGETS[name].strategy)
    def attempt(data: bytes) -> None:
        tally.try_input(TARGETS[name], data)

    attempt()
    assert tally.inputs >= INPUTS // 2  # Hypothesis leaves out inputs that it has tried


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.first_checks])
def test_bytes_of_no_meaning_do_not_count_as_having_passed_the_first_check(name: str) -> None:
    tally = Tally()
    tally.try_input(TARGETS[name], b"\xff\0{?,?\n?,?\n")
    assert (tally.refused, tally.reached) == (1, 0), tally.places


@pytest.mark.skipif(bool(LEFT_OUT), reason=f"left out: {LEFT_OUT}")
def test_every_target_of_the_nodes_is_there() -> None:
    assert {"detector", "bridge", "embed_text", "parameters"} <= TARGETS.keys()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_an_input_that_once_failed_is_refused_or_read(path: Path) -> None:
    Tally().try_input(TARGETS[path.stem.rpartition("-")[0]], path.read_bytes())
