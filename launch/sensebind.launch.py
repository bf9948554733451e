"""Start the embedder, the detector and, on request, the bridge and the event recorder. Empty arguments keep defaults.

The sections `embedder:`, `detector:`, … of the parameter file apply in any namespace, also one that an including launch
file pushes. Sets the Fast DDS profile of this package, whose buffers are large enough for images, unless the
environment names one.
"""

import os
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from launch import LaunchContext, LaunchDescription
from sensebind.fusion.config.files import shipped_parameter_file
from sensebind.fusion.io.topic_names import sibling_topic
from sensebind.nodes.support.parameter_files import make_node_files
from sensebind.nodes.support.transport import fastdds_environment

TOPICS = {  # launch argument → relative topic name
    "camera": "camera/image",
    "camera_info": "camera/camera_info",
    "depth": "depth/image",
    "depth_info": "depth/camera_info",
    "thermal": "thermal/image",
    "audio": "audio",
    "imu": "imu",
}
# Time between SIGINT and SIGTERM, and SIGTERM and SIGKILL. On a busy machine, an embedder that embeds its last windows
# and releases its model needs more than the 5 s of launch.
STOP_TIMEOUT = "20"  # s
INFO_TOPICS = {"camera_info": "camera", "depth_info": "depth"}  # argument → argument of the images that it belongs to
TEXTS = {  # launch argument → description
    "params_file": "path of the ROS parameter file; empty: config/starter.yaml of this package",
    "namespace": "namespace of the nodes and of their relative topics; empty: none",
    "space": "embedding space; overrides the parameter file",
    "weights": "weight file or folder of the space; overrides the parameter file",
    "device": "device of the encoders: cpu, cuda or auto; overrides the parameter file",
    "bridge_address": "address of the bridge, such as tcp://127.0.0.1:7501; overrides the parameter file",
    "snapshot_service": "snapshot service for the event recorder; overrides the parameter file",
}
CHOICES = {  # launch argument → default, allowed values, description
    "transport": ("", ["", "raw", "compressed"], "image transport of camera, depth and thermal; as for space"),
    "autostart": ("", ["", "true", "false"], "configure and activate the nodes; false: a lifecycle manager does it"),
    "use_respawn": ("false", ["true", "false"], "start a node again 2 s after its process ended"),
    "log_level": ("info", ["debug", "info", "warn", "error", "fatal"], "log level of the nodes"),
    "use_sim_time": ("false", ["true", "false"], "use the time of /clock"),
    "bridge": ("false", ["true", "false"], "also start the bridge"),
    "event_recorder": ("false", ["true", "false"], "also start the event recorder"),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"topic to use instead of {topic}")
        for name, topic in TOPICS.items()
    ]
    arguments += [DeclareLaunchArgument(name, default_value="", description=text) for name, text in TEXTS.items()]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, choices=choices, description=text)
        for name, (default, choices, text) in CHOICES.items()
    ]
    profile = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment(os.environ).items()]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Any]:
    given = {name: context.launch_configurations[name] for name in (*TOPICS, *TEXTS, *CHOICES)}
    pushed = context.launch_configurations.get("ros_namespace", "")
    namespace = make_namespace_absolute(prefix_namespace(pushed, given["namespace"]) or "/")
    logger = get_logger("sensebind.launch.py")
    if given["bridge_address"] and given["bridge"] != "true":
        logger.warning("'bridge_address' has no effect without bridge:=true")
    file = given["params_file"] or shipped_parameter_file("starter.yaml")
    files = make_node_files(file, overrides(given), namespace, logger.warning)
    respawn = {"respawn": True, "respawn_delay": 2.0} if given["use_respawn"] == "true" else {}
    return [
        LifecycleNode(
            package="sensebind",
            executable=name,
            name=name,
            namespace=given["namespace"],
            parameters=[path],
            remappings=remappings(given) if name == "embedder" else [],
            arguments=["--ros-args", "--log-level", given["log_level"]],
            output="screen",
            sigterm_timeout=STOP_TIMEOUT,
            sigkill_timeout=STOP_TIMEOUT,
            **respawn,
        )
        for name, path in files.items()
    ]


def overrides(given: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The nodes to start, and for each the parameters that launch arguments set."""
    common: dict[str, Any] = {"use_sim_time": given["use_sim_time"] == "true"}
    if given["autostart"]:
        common["autostart"] = given["autostart"] == "true"
    embedder = {name: given[name] for name in ("space", "weights", "device") if given[name]}
    if given["transport"]:
        embedder |= {f"{modality}.transport": given["transport"] for modality in ("vision", "depth", "thermal")}
    found = {"embedder": {**common, **embedder}, "detector": common}
    if given["bridge"] == "true":
        found["bridge"] = {**common, **({"address": given["bridge_address"]} if given["bridge_address"] else {})}
    if given["event_recorder"] == "true":
        own = {"snapshot_service": given["snapshot_service"]} if given["snapshot_service"] else {}
        found["event_recorder"] = {**common, **own}
    return found


def remappings(given: dict[str, str]) -> list[tuple[str, str]]:
    """(name in the embedder, topic) for each topic argument. Topics beside an image or a sound move with it."""
    topics = {name: topic for name in TOPICS if (topic := given[name])}
    for name, image in INFO_TOPICS.items():
        if given[image]:
            topics.setdefault(name, sibling_topic(given[image], "camera_info"))
    found = [(TOPICS[name], topic) for name, topic in topics.items()]
    if audio := given["audio"]:
        found += [
            ("audio_info", f"{audio}_info"),
            ("audio/info", f"{audio}/info"),
            ("info", sibling_topic(audio, "info")),
        ]
    return found
