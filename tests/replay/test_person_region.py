"""A person at the left of a photograph is reported at the left, with a bearing to the left."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from helpers.camera_bag import PERSON_PROMPTS, person_at_the_left, record_photograph
from sensebind.fusion.core.events import Event, EventPhase
from sensebind.fusion.core.samples import VISION
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import Recording
from sensebind.replay.session import Settings, open_replay
from sensebind.report.replay_output import write_replay


def reports(path: Path, out: Path, label: str) -> list[Event]:
    """The reports on events of a label, from the output bag of a replay."""
    settings = Settings.of({"modalities": [VISION], "device": "cpu"}, PERSON_PROMPTS)
    with open_replay(path, settings.embedder) as replay:
        write_replay(replay, settings, settings.space(), out)
    with Recording(out / "outputs") as bag:
        events = [messages.event_from_message(message) for _, _, _, message in bag.messages(["/events"])]
    return [event for event in events if event.label == label and event.phase is not EventPhase.OFFSET]


@pytest.mark.parametrize("width", [480, 960])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_person_has_a_region_in_pixels_of_the_received_image_and_a_bearing(
    shared: Path, tmp_path: Path, width: int, mirrored: bool
) -> None:
    photograph = person_at_the_left(shared, width)
    shown: npt.NDArray[np.uint8] = photograph[:, ::-1] if mirrored else photograph
    record_photograph(tmp_path / "bag", np.ascontiguousarray(shown), 4.0)
    found = reports(tmp_path / "bag", tmp_path / "out", "person")
    assert found
    for event in found:
        (own,) = event.evidence
        assert own.region is not None and own.bearing is not None
        x, y, w, h = own.region
        assert x >= 0 and x + w <= photograph.shape[1] and y >= 0 and y + h <= photograph.shape[0]
        middle = (x + w / 2) / photograph.shape[1]
        assert middle > 0.6 if mirrored else middle < 0.4
        assert own.bearing < -0.1 if mirrored else own.bearing > 0.1
        assert h > 0.4 * photograph.shape[0], "the person is more than half as high as the photograph"
    (listed,) = json.loads((tmp_path / "out" / "summary.json").read_text())["events"]
    first = found[0].evidence[0]
    assert first.region is not None and first.bearing is not None
    assert listed["place_by_modality"]["vision"]["region"] == list(first.region)
    assert listed["place_by_modality"]["vision"]["bearing"] == pytest.approx(first.bearing, abs=1e-3)
    page = (tmp_path / "out" / "report.html").read_text()
    side = "right" if mirrored else "left"
    x, y, w, h = first.region
    assert f"vision at {x}, {y}, {w} × {h} px, {abs(math.degrees(first.bearing)):.0f}° {side}" in page


def test_without_camera_info_the_bearing_is_unknown(shared: Path, tmp_path: Path) -> None:
    record_photograph(tmp_path / "bag", person_at_the_left(shared), 4.0, camera_info=False)
    found = reports(tmp_path / "bag", tmp_path / "out", "person")
    assert found and all(e.region and e.bearing is None for event in found for e in event.evidence)
