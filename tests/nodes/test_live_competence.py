"""The detector gets the competence of each modality from the embedder, with the vectors of the phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.diagnostic_statuses import DIAGNOSTICS, OK, WARN, Status, newest, statuses
from helpers.own_spokes import write_own_spoke
from helpers.rocking_imu import record_rocking_imu
from helpers.ros_processes import parameter_arguments, peer, ros_environment, running

VALUES: dict[str, Any] = {"modalities": ["vision", "imu"], "device": "cpu"}
PROMPTS = {
    "prompts.person": ["a person nearby", "a person walking"],
    "prompts.bump": ["a person", "a bump"],
    "detectors": ["prompt"],
}
WARNING = "no modality with data can recognise the prompts person:"


def test_motion_alone_is_no_evidence_for_a_person_and_the_detector_warns_once(tmp_path: Path) -> None:

    from sensebind.fusion.io import messages
    from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS

    record_rocking_imu(tmp_path / "bag", 16.0)
    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    with (
        peer(environment) as me,
        running("embedder", environment=environment, values=VALUES),
        running("detector", environment=environment, values=PROMPTS) as detector,
    ):
        scores = me.subscribe(messages.PROMPT_SCORES, "prompt_scores", EMBEDDING_QOS)
        events = me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS)
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics")

        def found() -> list[Status]:
            return statuses(diagnostics, "detector: events")

        me.wait_until(lambda: newest(diagnostics, "detector: events").message == "2 prompts", 90, "readiness")
        assert found()[-1].level == OK, "no modality is known yet"
        options = parameter_arguments({"rate": 2.0, "delay": 2.0})
        with running("player", str(tmp_path / "bag"), *options, environment=environment) as player:
            me.wait_until(lambda: not player.is_running, 60, "the end of the recording")
        me.wait_until(lambda: any(WARNING in s.message for s in found()), 20, "the warning")
        me.spin(2.5)
        assert {s.level for s in found() if WARNING in s.message} == {WARN}
        (line,) = [line for line in detector.lines if WARNING in line]
        assert "the nearest for person: " in line and "the robot is carried by a person" in line, line
        healthy = [message for _, message in scores if message.prompts[0].modalities]
        assert len(healthy) > 20, "windows without a symptom of a faulty sensor"
        for message in healthy:
            own = {prompt.label: prompt.modalities[0] for prompt in message.prompts}
            assert {label: (m.modality, m.competence) for label, m in own.items()} == {
                "bump": ("imu", 1.0),
                "person": ("imu", 0.0),
            }
            assert own["person"].weight == 0.0 and own["bump"].weight > 0.4
        assert not [message for _, message in events if message.label == "person"]


def test_the_detector_warns_by_name_of_a_modality_whose_encoder_was_replaced_and_uses_the_rest(tmp_path: Path) -> None:
    spoke = write_own_spoke("imu", tmp_path / "my_imu.safetensors")
    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    values = {**PROMPTS, "prompt.calibration": "starter_house"}
    with (
        peer(environment),
        running("embedder", environment=environment, values={**VALUES, "spokes": [str(spoke)]}),
        running("detector", environment=environment, values=values) as detector,
    ):
        detector.wait_for_output("events from prompt", 90)
        found = [line for line in detector.lines if "starter_house.safetensors" in line]
        assert len(found) == 1 and "for imu is not used" in found[0] and "sensebind calibrate" in found[0], found
        assert "without a calibration" not in detector.output
