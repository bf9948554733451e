"""What is wrong with the stamps of a sensor, in sentences that name what mends it: for diagnostics and for reports."""

from __future__ import annotations

from collections.abc import Mapping

GPS_EPOCH = 315964800.0  # s, from 1970: the start of GPS time in 1980; it is ahead of UTC by less than a minute
MIN_DIFFERENCE = 0.5  # s from the stamps of other sensors; a clock that is nearer does not differ


def stamp_warnings(
    sensor: str, counts: Mapping[str, int], behind_others: float | None, fusion_timeout: float
) -> list[str]:
    """What is wrong with the stamps and the clock of a sensor. `counts`: those of `SensorStatistics`, so far or of the
    last second. `behind_others` (s): as there. `fusion_timeout` (s): the parameter."""
    samples, behind = counts.get("samples", 0), behind_others or 0.0
    found = []
    if unstamped := counts.get("unstamped"):
        found.append(
            f"{unstamped} of {samples} messages have no stamp in their header and were dropped: make the driver set "
            f"the stamp, or set {sensor}.stamps: received to use the times at which they were received"
        )
    duplicates = counts.get("duplicate", 0)
    if duplicates > samples / 2 and not counts.get("windows"):
        found.append(
            f"{duplicates} of {samples} messages have the stamp of another and were dropped: make the driver set the "
            f"stamps, or set {sensor}.stamps: received to use the times at which they were received"
        )
    if (clock := counts.get("clock")) and abs(behind) < MIN_DIFFERENCE:  # its clock does not differ now
        found.append(
            f"{clock} of {samples} samples had stamps far from those of the other sensors and were dropped: "
            f"synchronise the clocks, or set {sensor}.stamps: received"
        )
    elif clock:
        found.append(f"{clock} of {samples} samples: {clock_text(sensor, behind)}")
    elif (unfused := counts.get("unfused")) and behind > fusion_timeout / 2:
        found.append(_late_text(sensor, behind, unfused, fusion_timeout))
    if spread := counts.get("burst"):
        found.append(
            f"{spread} of {samples} readings have the stamp of the reading before them, as from a buffer of the "
            "device: they were spread evenly up to the next stamp. Make the driver stamp each reading"
        )
    return found


def clock_text(sensor: str, behind: float) -> str:
    """What a sensor whose clock differs means, and what mends it. `behind` (s): how far its stamps are behind those of
    the others; negative: ahead."""
    hint = ""
    if 36.5 < -behind < 37.5:
        hint = " (37 s: its stamps are TAI, not UTC)"
    elif abs(behind - GPS_EPOCH) < 60:
        hint = " (its stamps count from 1980, as the time of GPS does)"
    elif behind > 1e8:
        hint = " (they may count from the start of the device)"
    return (
        f"its clock differs: its stamps are {abs(behind):.3f} s {'behind' if behind > 0 else 'ahead of'} those of the "
        f"other sensors{hint}, so its samples are not used. Synchronise the clocks, or set {sensor}.time_offset: "
        f"{behind:.3f}, or {sensor}.stamps: received"
    )


def _late_text(sensor: str, behind: float, unfused: int, fusion_timeout: float) -> str:
    """What windows that came too late to be fused mean, and what mends it. `behind` (s): as in `clock_text`."""
    return (
        f"{unfused} windows were not fused: its messages arrive {behind:.2f} s later after their stamps than those of "
        f"the other sensors, and fusion waits {fusion_timeout:g} s. If the stamps are right, set fusion_timeout: "
        f"{behind + 0.5:.1f} or more; if they are wrong, {sensor}.time_offset: {behind:.3f}"
    )
