"""A user-defined modality, from a topic with numbers to vectors that match prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.patrols import SECONDS_PER_ROOM, patrol_scenario
from sensebind.cli import main
from sensebind.fusion.config import build
from sensebind.fusion.config import parameters as config
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import Recording, RosbagsMessageFactory
from sensebind.fusion.io.sensor_messages.numeric_fields import numeric_sample_converter
from sensebind.fusion.models import registry
from sensebind.replay.driver import process_recording
from sensebind.replay.reader import SampleReader
from sensebind.simulation.messages import SIMULATION_START, LoggedMessage
from sensebind.simulation.recorder import GroundTruthEvent, SimulatedScenario, record

ENOSE_RESPONSES = {"person": (1, 0, 0, 1), "cat": (0, 1, 0, 1), "coffee": (0, 0, 1, 0), "rocket": (1, 1, 0, 0)}
PROMPTS = {"person": "an astronaut", "cat": "a cat", "coffee": "a cup of coffee", "rocket": "a rocket launch"}
ENOSE_PARAMETERS = {
    "embedder": {
        "ros__parameters": {
            "modalities": ["vision", "smell"],
            "smell": {"topic": "/enose", "fields": ["data"], "rate": 4.0, "window": 2.0},
        }
    }
}


def enose_messages(scenario: SimulatedScenario) -> Iterator[LoggedMessage]:
    """Messages of an electronic nose: four cells at 10 Hz with a time constant of 0.6 s and a constant offset."""
    types, noise = RosbagsMessageFactory(), np.random.default_rng(scenario.seed)
    state, offset = np.zeros(4), noise.normal(0, 0.1, 4)
    truth = scenario.truth()
    for number in range(round(scenario.duration * 10)):
        t = number / 10
        present = next((item.label for item in truth if item.onset <= t < item.offset), None)
        state += 0.15 * ((np.array(ENOSE_RESPONSES[present]) if present else 0) - state)
        values = (state + offset + 0.03 * noise.standard_normal(4)).astype(np.float32)
        layout = types.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        message = types.make("std_msgs/msg/Float32MultiArray", layout=layout, data=values)
        yield SIMULATION_START + round(t * SECOND), "/enose", "std_msgs/msg/Float32MultiArray", message


def patrol(path: Path, seed: int) -> list[GroundTruthEvent]:
    """A patrol whose boards are there as long as the robot is in their room."""
    scenario = patrol_scenario(seed)
    boards = [event for event in scenario.events if event.in_ground_truth]
    rooms = [(start, start + SECONDS_PER_ROOM - 0.3) for start, _ in scenario.places]
    events = [replace(b, onset=start + 0.2, offset=end) for b, (start, end) in zip(boards, rooms, strict=True)]
    scenario = replace(scenario, events=tuple(events))
    return record(scenario, path, frame_rate=4.0, extra=enose_messages(scenario))


def test_a_custom_modality_bound_to_vision_matches_unseen_prompts(
    tmp_path: Path,
) -> None:
    bags = [tmp_path / f"one{seed}" for seed in (1, 3, 4)]
    for seed, bag in zip((1, 3, 4), bags, strict=True):
        patrol(bag, seed)
    truth = patrol(tmp_path / "two", 2)
    file, spoke = tmp_path / "smell.yaml", tmp_path / "smell.safetensors"
    file.write_text(yaml.safe_dump(ENOSE_PARAMETERS))
    command = ["align", *map(str, bags), "--modality", "smell", "--config", str(file), "-o", str(spoke)]
    assert main([*command, "--block", "9", "--epochs", "20", "--patience", "20"]) == 0

    ENOSE_PARAMETERS["embedder"]["ros__parameters"]["spokes"] = [str(spoke)]
    file.write_text(yaml.safe_dump(ENOSE_PARAMETERS))
    given = read_parameter_file(file, "embedder")
    modalities = config.modalities_of(given)
    values = config.embedder_values(given)
    space = registry.load_space("starter", modalities=modalities, spokes=values["spokes"])
    phrases = space.embed_text(list(PROMPTS.values())).numpy()
    correct = []
    with Recording(tmp_path / "two") as recording:
        for output in process_recording(
            SampleReader(recording, values, modalities), build.make_pipeline(values, space)
        ):
            if isinstance(output, Embedding) and output.modality == "smell":
                t = (output.tick - SIMULATION_START) / SECOND
                present = [item.label for item in truth if item.onset + 2 <= t <= item.offset]
                if present:
                    correct.append(list(PROMPTS)[int((phrases @ output.vector).argmax())] == present[0])
    assert len(correct) >= 20
    assert np.mean(correct) >= 0.6  # chance 0.25


def test_a_user_defined_modality_without_fields_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"smell\.fields"):
        config.modalities_of({"modalities": ["vision", "smell"]})
    with pytest.raises(ConfigError, match="lower-case letters"):
        config.modalities_of({"modalities": ["Smell!"], "Smell!.fields": ["data"]})


def message(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**fields)


def test_fields_are_paths_and_their_numbers_are_concatenated() -> None:
    force = message(x=1.0, y=2.0, z=3.0)
    cells = [message(voltage=4.0), message(voltage=5.0)]
    touch = message(wrench=message(force=force), ranges=np.array([6.0, np.inf, 8.0, 9.0]), cells=cells)
    read = numeric_sample_converter("touch", ["wrench.force.x", "ranges[1:3]", "cells[1].voltage"], fill=-1.0)
    sample = read(touch, 5 * SECOND)
    assert sample.data.values.tolist() == [1.0, -1.0, 8.0, 5.0]
    assert sample.stamp == 5 * SECOND  # a message without a header has the time of arrival


def test_the_stamp_of_a_header_is_used() -> None:
    header = message(stamp=message(sec=7, nanosec=5), frame_id="nose")
    sample = numeric_sample_converter("smell", ["data"])(message(header=header, data=[1, 2]), 99)
    assert (sample.stamp, sample.frame_id) == (7 * SECOND + 5, "nose")


@pytest.mark.parametrize("field", ["data.", "[0]", "data[]", "da ta", ""])
def test_an_invalid_path_is_rejected(field: str) -> None:
    with pytest.raises(ValueError, match="field"):
        numeric_sample_converter("smell", [field])


@given(field=st.sampled_from(["nothing", "data[9]", "text", "data.x"]))
def test_an_error_names_the_field_that_a_message_lacks(field: str) -> None:
    with pytest.raises(EncodingError, match="field"):
        numeric_sample_converter("smell", [field])(message(data=[1.0], text="words"), 1)
