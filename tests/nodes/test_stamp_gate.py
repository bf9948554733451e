"""One wrong stamp is not a jump of the clock; a clock that has really jumped is followed within two seconds."""

from __future__ import annotations

from sensebind.fusion.core.samples import SECOND
from sensebind.nodes.tick_assembler import CONFIRMATION, StampGate

NOW = 1_700_000_000


def accepted(gate: StampGate, ticks: list[tuple[float, float]]) -> list[bool]:
    """Pass (stamp in s, time of arrival in s)."""
    return [gate.accept(round(tick * SECOND), at) for tick, at in ticks]


def test_wrong_stamps_between_right_ones_are_refused_however_many_they_are() -> None:
    gate = StampGate()
    for number in range(1000):
        right, wrong = (NOW + 0.5 * number, 0.5 * number), (10 + number, 0.5 * number + 0.1)
        assert accepted(gate, [right, wrong, (2**31 - 10, wrong[1])]) == [True, False, False]


def test_a_simulation_that_starts_again_at_zero_is_followed_after_two_seconds() -> None:
    gate = StampGate()
    assert accepted(gate, [(7200.0, 0.0), (7200.5, 0.5)]) == [True, True]
    found = accepted(gate, [(0.5 * n, 1.0 + 0.5 * n) for n in range(10)])
    assert found.index(True) == CONFIRMATION / 0.5 and all(found[found.index(True) :])


def test_a_first_stamp_that_is_wrong_does_not_lock_the_right_ones_out() -> None:
    gate = StampGate()
    assert accepted(gate, [(10.0, 0.0)]) == [True]
    found = accepted(gate, [(NOW + 0.5 * n, 0.1 + 0.5 * n) for n in range(10)])
    assert not found[0] and all(found[5:])


def test_a_pause_of_hours_and_jumps_of_minutes_are_no_wrong_stamps() -> None:
    gate = StampGate()
    ticks = [(NOW, 0.0), (NOW + 20_000, 20_000.0), (NOW + 19_000, 20_001.0), (NOW + 22_000, 20_002.0)]
    assert all(accepted(gate, ticks))
