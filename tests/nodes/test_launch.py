"""The launch files, run by the real `launch`. It is part of a ROS installation and on no package index."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not installed here: it is part of a ROS installation")

from helpers.paths import ROOT
from helpers.ros_processes import Executable, peer, ros_environment
from helpers.ros_services import NodeServices
from sensebind.fusion.config.parameters import embedder_parameters, resolve_values, sensor_options

LAUNCH_FILE = ROOT / "launch" / "sensebind.launch.py"
LAUNCH = """
import sys
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch import LaunchDescription, LaunchService

arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""
PARAMETERS = """
/**:
  ros__parameters:
    modalities: [imu]
    prompts: {person: [a person]}
    autostart: false
embedder:
  ros__parameters:
    imu: {hop: 25e-2, topic: imu/data}
detector:
  ros__parameters:
    detectors: [prompt]
    prompts: {dog: [a dog, "on"], unused: []}
    prompt.background: []
/robot2/detector:
  ros__parameters:
    prompts: {forklift: [a forklift]}
"""


def install(prefix: Path) -> dict[str, str]:
    """An environment with the package installed in `prefix`, as far as `launch` needs it: its index and executables."""
    (prefix / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (prefix / "share" / "ament_index" / "resource_index" / "packages" / "sensebind").touch()
    programs = prefix / "lib" / "sensebind"
    programs.mkdir(parents=True)
    for name in ("embedder", "detector", "bridge", "event_recorder"):
        program = programs / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nfrom sensebind.nodes.{name} import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
    others = os.environ.get("AMENT_PREFIX_PATH", sys.prefix)
    return {"AMENT_PREFIX_PATH": f"{prefix}:{others}", "ROS_LOG_DIR": str(prefix / "log")}


@contextmanager
def launched(tmp_path: Path, file: Path, *arguments: str) -> Iterator[Executable]:
    environment = ros_environment("sensebind_msgs", **install(tmp_path / "prefix"))
    process = Executable([sys.executable, "-c", LAUNCH, str(file), *arguments], environment)
    try:
        yield process
        assert process.stop(timeout=30) == 0, process.output
        assert "Traceback" not in process.output, process.output
    finally:
        process.kill()


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    file = tmp_path / "robot.yaml"
    file.write_text(PARAMETERS)
    return file


def launch_module() -> Any:
    spec = spec_from_file_location("sensebind_launch_file", LAUNCH_FILE)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_launch_file_describes_its_arguments() -> None:
    description = launch_module().generate_launch_description()
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert {
        "params_file", "namespace", "space", "weights", "device", "transport", "depth_transport", "autostart",
        "use_respawn", "log_level", "bridge", "bridge_address", "event_recorder", "use_sim_time",
        "camera", "camera_info", "depth", "depth_info", "thermal", "audio", "imu",
    } <= arguments.keys()  # fmt: skip
    assert all(argument.description for argument in arguments.values())


def test_the_calibration_moves_with_its_images_unless_it_is_given() -> None:
    module = launch_module()

    def remappings(**given: str) -> dict[str, str]:
        return dict(module.remappings({name: given.get(name, "") for name in module.TOPICS}))

    assert remappings() == {}
    assert remappings(camera="/front/image_raw", depth="aligned/image/compressedDepth") == {
        "camera/image": "/front/image_raw", "camera/camera_info": "/front/camera_info",
        "depth/image": "aligned/image/compressedDepth", "depth/camera_info": "aligned/camera_info",
    }  # fmt: skip
    assert remappings(camera="image_raw", camera_info="/info")["camera/camera_info"] == "/info"
    assert remappings(camera="image_raw")["camera/camera_info"] == "camera_info"
    assert remappings(audio="/mic/audio")["audio/info"] == "/mic/audio/info"
    assert remappings(audio="/audio/audio_stamped")["audio_info"] == "/audio/audio_info", "of audio_capture"


def test_the_transport_of_every_message_of_images_can_be_given() -> None:
    module = launch_module()

    def transports(**given: str) -> dict[str, str]:
        names = (*module.TOPICS, *module.TEXTS, *module.CHOICES)
        found = module.overrides({name: given.get(name, "") for name in names})["embedder"]
        return {name.partition(".")[0]: own for name, own in found.items() if name.endswith(".transport")}

    assert transports() == {}
    for name in ("raw", "compressed"):
        assert transports(transport=name) == dict.fromkeys(("vision", "depth", "thermal"), name)
    for name in ("ffmpeg", "foxglove"):  # there is no video of depth
        assert transports(transport=name) == dict.fromkeys(("vision", "thermal"), name)
    assert transports(transport="ffmpeg", depth_transport="compressedDepth")["depth"] == "compressed"
    assert transports(depth_transport="compressedDepth") == {"depth": "compressed"}
    for choices in (module.TRANSPORTS, module.DEPTH_TRANSPORTS.values()):
        for choice in choices:  # each is a value of the parameter
            modality = "depth" if choices is not module.TRANSPORTS else "vision"
            values = resolve_values(embedder_parameters([modality]), {f"{modality}.transport": choice})
            assert sensor_options(values, modality).transport == choice


def test_all_parameters_of_a_file_apply_in_a_namespace(tmp_path: Path, parameters: Path) -> None:
    arguments = (
        f"params_file:={parameters}", "namespace:=robot1", "camera:=/front/image_raw", "transport:=compressed",
        "device:=cpu", "space:=starter", "bridge:=true", "log_level:=warn",
        f"bridge_address:=ipc://{tmp_path}/bridge", "event_recorder:=true",
    )  # fmt: skip
    with launched(tmp_path, LAUNCH_FILE, *arguments) as process, peer(process.environment) as me:
        embedder, detector = NodeServices(me, "/robot1/embedder"), NodeServices(me, "/robot1/detector")
        names = ("modalities", "imu.hop", "vision.transport", "device", "autostart", "use_sim_time")
        assert embedder.get(*names) == [["imu"], 0.25, "compressed", "cpu", False, False]
        names = (
            "prompts.person",
            "prompts.dog",
            "prompts.unused",
            "prompts.forklift",
            "detectors",
            "prompt.background",
        )
        assert detector.get(*names) == [["a person"], ["a dog", "on"], [], None, ["prompt"], []]
        assert NodeServices(me, "/robot1/bridge").get("address") == [f"ipc://{tmp_path}/bridge"]
        assert NodeServices(me, "/robot1/event_recorder").state() == "unconfigured"
        assert detector.change_state("configure") and detector.change_state("activate")
        assert NodeServices(me, "/robot1/bridge").change_state("configure")
        assert "publishing on" not in process.output, "the log level is that of the argument"
        assert "[WARN]" not in process.output, process.output


def test_two_robots_have_their_own_namespaces_parameters_and_bridges(tmp_path: Path, parameters: Path) -> None:
    file = ROOT / "launch" / "two_robots.launch.py"
    with launched(tmp_path, file, f"params_file:={parameters}") as process, peer(process.environment) as me:
        for robot, forklift, address in (
            ("robot1", None, "tcp://127.0.0.1:7501"),
            ("robot2", ["a forklift"], "tcp://127.0.0.1:7502"),
        ):
            detector = NodeServices(me, f"/{robot}/detector")
            names = ("prompts.person", "prompts.dog", "prompts.forklift")
            assert detector.get(*names) == [["a person"], ["a dog", "on"], forklift]
            assert NodeServices(me, f"/{robot}/bridge").get("address") == [address]
            assert NodeServices(me, f"/{robot}/embedder").get("imu.hop", "imu.topic") == [0.25, "imu/data"]


def test_a_missing_file_stops_the_launch_and_an_unused_section_is_reported(tmp_path: Path) -> None:
    missing = tmp_path / "no.yaml"
    environment = ros_environment("sensebind_msgs", **install(tmp_path / "prefix"))
    process = Executable([sys.executable, "-c", LAUNCH, str(LAUNCH_FILE), f"params_file:={missing}"], environment)
    try:
        assert process.wait() == 1 and f"parameter file '{missing}' does not exist" in process.output
    finally:
        process.kill()
    file = tmp_path / "robot.yaml"
    file.write_text(
        "embeder: {ros__parameters: {autostart: false}}\n/robot2/detector: {ros__parameters: {autostart: false}}\n"
    )
    environment = {**environment, "ROS_LOG_DIR": str(tmp_path / "log")}
    arguments = (f"params_file:={file}", "namespace:=robot1", "autostart:=false")
    process = Executable([sys.executable, "-c", LAUNCH, str(LAUNCH_FILE), *arguments], environment)
    try:
        process.wait_for_output(f"'{file}': the section 'embeder' is of no node of Sensebind")
        process.wait_for_output("Did you mean 'embedder'?")
        process.wait_for_output("'/robot2/detector' does not apply to '/robot1/detector'")
        with peer(environment) as me:
            detector = NodeServices(me, "/robot1/detector")
            assert detector.change_state("configure")
            process.wait_for_output(
                "no label has a phrase, so no event that you name is reported: set 'prompts.<label>'"
            )
            assert str(file) in process.output.split("no label has a phrase")[1]
        assert process.stop() == 0
    finally:
        process.kill()
