"""Every parameter is declared once. Its ROS description, check and row in the docs follow from the declaration."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import ROOT
from sensebind.fusion.config.build import make_window_specs
from sensebind.fusion.config.detectors import make_detectors
from sensebind.fusion.config.files import (
    lost_sections,
    read_parameter_file,
    unknown_sections,
    write_parameter_file,
)
from sensebind.fusion.config.parameters import (
    DETECTOR_TYPES,
    NODE_PARAMETERS,
    BridgeNodeOptions,
    DetectorNodeOptions,
    EmbedderNodeOptions,
    PlayerNodeOptions,
    detector_values,
    embedder_values,
    modality_parameters,
    parameters_of_other_nodes,
    resolve_values,
    sensor_options,
)
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import USER_DEFINED, Parameter, options_with_values, parameters_of
from sensebind.fusion.core.samples import SENSOR_MODALITIES, Calibration, to_ns
from sensebind.fusion.core.space import TrainedWindow
from sensebind.fusion.core.windows import WindowOptions, WindowSpec
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.inference.options import EngineOptions
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.models.registry import SpaceOptions
from sensebind.fusion.stream.options import StreamOptions
from sensebind.replay.session import Settings

OPTIONS = [
    *(detector.default_options for detector in DETECTOR_TYPES.values()),
    LifecycleOptions(),
    SensorOptions("depth"),
    WindowOptions(),
    SpaceOptions(),
    StreamOptions(),
    EngineOptions(),
    EmbedderNodeOptions(),
    DetectorNodeOptions(),
    BridgeNodeOptions(),
    PlayerNodeOptions(),
]
NUMBERS = [
    (options, field.name, parameter)
    for options in OPTIONS
    for field in dataclasses.fields(options)
    for parameter in [field.metadata.get("parameter")]
    if parameter is not None and type(parameter.default) in (int, float)
]


def embed_text(phrases: list[str]) -> Any:
    return np.eye(len(phrases), dtype=np.float32)


# Declarations


def test_without_given_values_every_part_has_its_default_options() -> None:
    values = detector_values({"prompts.dog": ["a dog"]})
    made = make_detectors(values, embed_text)
    assert [type(detector) for detector in made] == list(DETECTOR_TYPES.values())
    for detector in made:
        assert detector.options == type(detector).default_options
    values = embedder_values({})
    for modality in SENSOR_MODALITIES:
        assert sensor_options(values, modality) == SensorOptions(modality)
    assert options_with_values(SpaceOptions(), values) == SpaceOptions()
    assert options_with_values(StreamOptions(), values) == StreamOptions()
    specs = make_window_specs(values, dict.fromkeys(SENSOR_MODALITIES, TrainedWindow(2.0, 2)))
    assert specs["depth"] == WindowSpec("depth", to_ns(2.0), to_ns(WindowOptions().hop), frames=2)


def test_a_parameter_sets_only_the_field_that_declares_it_and_only_for_its_modality() -> None:
    values = embedder_values(
        {"depth.unit": 0.5, "thermal.unit": 0.25, "depth.focal_width": 320, "audio.sample_rate": 8000}
    )
    assert sensor_options(values, "depth").calibration == Calibration(depth_unit=0.5, focal_width=320)
    assert sensor_options(values, "thermal").calibration == Calibration(thermal_unit=0.25)
    assert sensor_options(values, "audio").audio_format.sample_rate == 8000.0
    assert sensor_options(values, "vision") == SensorOptions("vision")


@pytest.mark.parametrize("node", NODE_PARAMETERS)
def test_every_parameter_has_one_declaration_and_a_valid_default(node: str) -> None:
    parameters = NODE_PARAMETERS[node]()
    names = [parameter.name for parameter in parameters]
    assert len(set(names)) == len(names)
    for parameter in parameters:
        assert not parameter.description.endswith("."), parameter
        assert parameter.check(parameter.default) == parameter.default


def test_a_sensor_has_the_parameters_of_its_modality() -> None:
    names = {m: {p.name.removeprefix(f"{m}.") for p in modality_parameters(m)} for m in (*SENSOR_MODALITIES, "smell")}
    assert {"transport", "frames", "camera_info_topic"} <= names["vision"] and "unit" not in names["vision"]
    assert {"unit", "baseline", "focal_length"} <= names["depth"] and {"unit", "offset"} <= names["thermal"]
    assert {"type", "sample_rate"} <= names["audio"] and not {"frames", "transport"} & names["audio"]
    assert {"fields", "fill", "rate", "type"} <= names["smell"] and USER_DEFINED not in names
    assert {"topic", "hop", "lateness"} <= set.intersection(*names.values())


# Checks of values


@given(st.sampled_from(NUMBERS), st.floats(0.0, 1.0), st.sampled_from([-1, 1]))
def test_a_number_out_of_range_is_refused_with_its_name_in_python_and_in_a_file(
    found: tuple[Any, str, Parameter], inside: float, side: int
) -> None:
    options, name, parameter = found
    assert parameter.bounds is not None
    low, high = parameter.bounds
    kind = type(parameter.default)
    value = kind(low + inside * (high - low))
    assert dataclasses.replace(parameter, name=name).check(value) == value
    outside = kind(low - 1 - inside) if side < 0 else kind(high + 1 + inside)
    shown = parameter.name or name
    with pytest.raises(ConfigError, match=rf"parameter '{shown}' must be .* to .*, not"):
        dataclasses.replace(options, **{name: outside})
    with pytest.raises(ConfigError, match=rf"parameter 'front\.{shown}' must be .* to .*, not"):
        options_with_values(options, {f"front.{shown}": outside}, "front.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision.hop": float("nan")}, "'vision.hop' must be 0.001 to 3600 s, not nan"),
        ({"vision.hop": "0.5"}, "'vision.hop' must be a number, not '0.5'"),
        ({"vision.hop": True}, "'vision.hop' must be a number, not True"),
        ({"vision.hop": 10**400}, "'vision.hop' must be 0.001 to 3600 s, not 1000"),
        ({"batch_size": 2.0}, "'batch_size' must be a whole number, not 2.0"),
        ({"autostart": 1}, "'autostart' must be a boolean, not 1"),
        ({"modalities": "vision"}, "'modalities' must be a list of strings, not 'vision'"),
        ({"spokes": [1]}, r"'spokes' must be a list of strings, not \[1\]"),
        ({"vision.transport": "zip"}, "'vision.transport' must be one of raw, compressed, ffmpeg, foxglove, not 'zip'"),
        ({"vision.hopp": 0.5}, "no parameter 'vision.hopp'; did you mean 'vision.hop'"),
        ({"vision.unit": 0.5}, "no parameter 'vision.unit'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_the_allowed_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embedder_values(values)


def test_whole_numbers_and_numpy_numbers_are_accepted() -> None:
    assert embedder_values({"vision.hop": 1, "batch_size": np.int64(4)})["vision.hop"] == 1.0
    assert type(embedder_values({"vision.hop": np.float32(0.25)})["vision.hop"]) is float
    assert LifecycleOptions(onset_threshold=np.float64(0.7), min_duration=2).onset_threshold == 0.7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"novelty.habituation": 20.0},
            r"'novelty\.\*': habituation must be at most warm_up, and 20 s is more than 10 s",
        ),
        (
            {"disagreement.time_constant": 5.0},
            r"'disagreement\.\*': warm_up must be at most time_constant, and 10 s is more than 5 s",
        ),
        (
            {"fault.onset_threshold": 0.96},
            r"'fault\.\*': onset_threshold must be at most 0.95, the score of every fault, and it is 0.96",
        ),
        (
            {"novelty.offset_threshold": 0.7},
            r"'novelty\.\*': offset_threshold must be at most onset_threshold, and 0.7 is more than 0.6",
        ),
        (
            {"prompt.immediate_onset_threshold": 0.5},
            r"'prompt\.\*': immediate_onset_threshold must be at least onset_threshold",
        ),
        ({"prompt.background": ["one"]}, r"'prompt\.\*': background needs at least 8"),
        ({"fault.causes": ["dark", "tired"]}, "'fault.causes' must be some of dark, .*, not 'tired'"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_the_name_of_their_detector(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_detectors(detector_values({"prompts.dog": ["a dog"], **values}), embed_text)


@pytest.mark.parametrize("kind", ["prompt", "novelty", "disagreement"])
def test_an_offset_threshold_may_be_as_low_as_its_range_allows(kind: str) -> None:
    values = detector_values({"prompts.dog": ["a dog"], "detectors": [kind], f"{kind}.offset_threshold": 0.01})
    (detector,) = make_detectors(values, embed_text)
    assert detector.options.support <= 0.01 and detector.options.prior <= 0.005


# Tables in the documentation


def tables() -> ModuleType:
    specification = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "parameter_tables.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_tables_in_the_documentation_are_up_to_date() -> None:
    writer = tables()
    for page in writer.PAGES:
        text = page.read_text(encoding="utf-8")
        assert writer.update_tables(text) == text, f"{page.name}: run `make docs`"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- parameters bridge -->\ntext\n<!-- parameters bridge -->\n<!-- end -->", "a mark has the wrong form"),
        ("<!-- parameters  bridge -->\n<!-- end -->", "a mark has the wrong form"),
        ("<!-- parameters bridgee -->\n<!-- end -->", "'bridgee' is not one of embedder"),
        ("<!-- parameters detector noveltyy -->\n<!-- end -->", r"detector has no parameters 'noveltyy\.\*'"),
    ],
)
def test_a_wrong_mark_of_a_table_in_a_page_is_an_error(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables().update_tables(page)


def test_the_parameters_page_contains_every_parameter_of_every_executable() -> None:
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    lifecycle = {p.name for p in parameters_of(LifecycleOptions())}
    missing = []
    for node in NODE_PARAMETERS:
        for parameter in NODE_PARAMETERS[node]():
            first, _, name = parameter.name.partition(".")
            if first in SENSOR_MODALITIES:
                shown = f"`<modality>.{name}`"
            else:
                shown = f"`<detector>.{name}`" if name in lifecycle else f"`{parameter.name}`"
            missing += [] if shown in page else [shown]
    assert not missing


# Files


OLD = """
/**:
  ros__parameters:
    patience: 2.0
    queue_size: 8
embedder:
  ros__parameters:
    vision: {camera_info: /front/camera_info}
    idle: 0.25
detector:
  ros__parameters:
    prompt: {on: 0.7, off: 0.3, trust: 0.25}
    fault: {on: 0.8, silence: 3.0}
    fault.onset_threshold: 0.9
"""


def test_names_of_the_previous_version_work_with_a_warning_that_gives_the_new_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(OLD)  # on and off are names, as in ROS; in YAML 1.1 they are booleans
    settings = Settings.read(file)
    found = {
        "prompt.onset_threshold": 0.7, "prompt.offset_threshold": 0.3, "prompt.baseline_weight": 0.25,
        "fault.timeout": 3.0, "tick_timeout": 2.0,
    }  # fmt: skip
    assert {name: settings.detector[name] for name in found} == found
    assert settings.detector["fault.onset_threshold"] == 0.9, "the new name takes precedence"
    found = {
        "vision.camera_info_topic": "/front/camera_info", "idle_timeout": 0.25, "fusion_timeout": 2.0, "queue_size": 8,
    }  # fmt: skip
    assert {name: settings.embedder[name] for name in found} == found
    assert "'prompt.on' is now called 'prompt.onset_threshold'" in caplog.text
    assert "'patience' is now called 'fusion_timeout'" in caplog.text
    bridge = resolve_values(
        NODE_PARAMETERS["bridge"](), read_parameter_file(file, "bridge"), parameters_of_other_nodes("bridge")
    )
    assert bridge["client_queue_size"] == 8


DUMP = """
/robot1/detector:
  ros__parameters:
    detectors: [prompt]
    prompt: {onset_threshold: 0.7, onset_thresholds: {person: 0.5}, background: []}
    prompts: {person: [a person], gone: null}
    qos_overrides: {/clock: {subscription: {depth: 1}}}
    start_type_description_service: true
    use_sim_time: false
    vision: {hop: 0.25}
"""


def test_a_dump_of_a_running_node_is_a_parameter_file(tmp_path: Path) -> None:
    file = tmp_path / "dump.yaml"
    file.write_text(DUMP)
    found = Settings.read(file)
    assert found.prompts == {"person": ["a person"]} and found.embedder["vision.hop"] == 0.5, "of the other node"
    assert found.changed_values() == {
        "detectors": ["prompt"], "prompts.person": ["a person"],
        "prompt.onset_threshold": 0.7, "prompt.onset_thresholds.person": 0.5,
    }  # fmt: skip
    file.write_text(DUMP.replace("\n  ", "\n    ").replace("/robot1/detector:", "robot1:\n  detector:"))
    assert Settings.read(file) == found, "the namespace may be a level of its own"
    file.write_text(DUMP.replace("background", "foreground"))
    with pytest.raises(ConfigError, match=r"no parameter 'prompt\.foreground'"):
        Settings.read(file)
    file.write_text(DUMP + DUMP.replace("robot1", "robot2"))
    with pytest.raises(ConfigError, match="several nodes 'detector': robot1/detector, robot2/detector"):
        Settings.read(file)
    file.write_text("/**: {ros__parameters: {prompts: {dog: [a dog]}}}\n" + DUMP)
    assert set(Settings.read(file).prompts) == {"dog"}, "a section of a node in a namespace is for that node"
    file.write_text(DUMP.replace("detector:", "listener:"))
    with pytest.raises(ConfigError, match="sections for robot1/listener only"):
        Settings.read(file)


ROBOTS = """
/**: {ros__parameters: {modalities: [imu], prompts: {dog: [a dog]}, imu.hop: 1e-1}}
"*/embedder": {ros__parameters: {imu.hop: 0.2}}
robot1: {embedder: {ros__parameters: {imu.hop: 0.4}}}
embedder: {ros__parameters: {imu.hop: 0.3, queue_size: 8}}
/robot1/detector: {ros__parameters: {prompts: {cat: [a cat]}}}
/robot2/detector: {ros__parameters: {prompts: {car: [a car]}}}
"""


def test_the_more_specific_section_takes_precedence_in_its_namespace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "robots.yaml"
    file.write_text(ROBOTS)
    for namespace, hop, labels in (
        ("/robot1", 0.4, {"dog", "cat"}),
        ("robot2", 0.3, {"dog", "car"}),
        ("/a/b", 0.3, {"dog"}),
        ("", 0.3, {"dog"}),
    ):
        found = Settings.read(file, namespace=namespace)
        assert (found.embedder["imu.hop"], found.embedder["queue_size"]) == (hop, 8)
        assert set(found.prompts) == labels
    assert not caplog.text, "sections of other robots are in order"
    assert Settings.read(file).embedder["imu.hop"] == 0.3 and set(Settings.read(file).prompts) == {"dog"}
    assert "'robot1/embedder' does not apply to 'embedder'" in caplog.text
    assert "'/robot1/detector', '/robot2/detector' does not apply" in caplog.text and "--namespace" in caplog.text
    file.write_text("/**: {ros__parameters: {imu.hop: 1e-1}}")
    assert Settings.read(file).embedder["imu.hop"] == 0.1, "a number, as in ROS"


def test_a_section_of_hundreds_of_wildcards_is_read_at_once(tmp_path: Path) -> None:
    """As a pattern, it would be tried in more ways than can be counted."""
    file = tmp_path / "wildcards.yaml"
    file.write_text(f"? '{'**/' * 2000}detector'\n: {{ros__parameters: {{a: 1}}}}\n? '{'**/' * 2000}x'\n: {{}}\n")
    assert read_parameter_file(file, "detector") == {"a": 1}
    assert lost_sections(file, "detector", "/robot1") == []


def test_a_section_that_would_be_dropped_in_silence_gives_a_warning_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "robots.yaml"
    file.write_text("detectr: {ros__parameters: {a: 1}}\nnav: {camera: {ros__parameters: {a: 1}}}")
    wrong, foreign = unknown_sections(file)
    assert str(file) in wrong and "'detectr'" in wrong and "Did you mean 'detector'?" in wrong
    assert "'nav/camera' is of no node of Sensebind" in foreign and "Did you mean" not in foreign
    assert len(unknown_sections(file, {"camera"})) == 1, "a node of another name is known to itself"
    file.write_text("detector: {ros__parameters: {a: 1}}")
    assert not lost_sections(file, "detector", "/robot1"), "the launch file and a replay apply it in any namespace"
    (lost,) = lost_sections(file, "detector", "/robot1", as_ros=True)
    assert "'detector' does not apply to '/robot1/detector'" in lost and "'/**/detector'" in lost
    assert not lost_sections(file, "detector", "/", as_ros=True)
    file.write_text("/robot2/detector: {ros__parameters: {a: 1}}")
    assert "'/robot2/detector'" in lost_sections(file, "detector", "/robot1")[0]
    file.write_text("/**/detector: {ros__parameters: {a: 1}}\n/robot2/detector: {ros__parameters: {a: 2}}")
    for as_ros in (True, False):
        assert not lost_sections(file, "detector", "/robot1", as_ros=as_ros)
    with pytest.raises(ConfigError, match="'nowhere.yaml' does not exist: correct the path"):
        unknown_sections("nowhere.yaml")


def test_a_written_parameter_file_is_read_with_the_same_values(tmp_path: Path) -> None:
    values = {
        "space": "toy", "vision.hop": 0.25, "detectors": [], "prompts.a b": ["on", "yes: no"], "prompts.a": ["a"],
        "prompts.a.b": ["ä"], "prompts.a.b.c": ["c"], "prompt.onset_thresholds.a.b": 0.5,
    }  # fmt: skip
    for ordered in (values, dict(reversed(values.items()))):
        write_parameter_file(tmp_path / "new" / "p.yaml", ordered, ["from: a test", "of parameter files"])
        for node in ("embedder", "detector"):
            assert read_parameter_file(tmp_path / "new" / "p.yaml", node) == values


def test_a_threshold_for_a_label_without_phrases_is_refused_with_the_nearest_label() -> None:
    values = detector_values({"prompts.person": ["a person"], "prompt.onset_thresholds.persn": 0.5})
    with pytest.raises(ConfigError, match="label without 'prompts.persn'; did you mean 'person'"):
        make_detectors(values, embed_text)
    with pytest.raises(ConfigError, match=r"'prompt\.onset_thresholds\.person' must be 0\.01 to 0\.99"):
        detector_values({"prompts.person": ["a person"], "prompt.onset_thresholds.person": 1.5})
    values = detector_values({"prompts.person": [], "prompts.dog": ["a dog"], "prompt.onset_thresholds.person": 0.5})
    assert make_detectors(values, embed_text)[0].options.onset_thresholds == {"person": 0.5}


def test_no_old_name_is_a_current_name() -> None:
    for node, parameters in NODE_PARAMETERS.items():
        current = {p.name for p in parameters()}
        old = [p.formerly for p in parameters() if p.formerly]
        assert not current & set(old) and len(old) == len(set(old)), node


def test_changed_settings_are_checked() -> None:
    settings = Settings.of({})
    assert settings.with_detector({"novelty.onset_threshold": 0.7}).detector["novelty.onset_threshold"] == 0.7
    for wrong in ({"novelty.onset_thresholds": 0.7}, {"novelty.onset_threshold": 7}):
        with pytest.raises(ConfigError, match=r"novelty\.onset_threshold"):
            settings.with_detector(wrong)
