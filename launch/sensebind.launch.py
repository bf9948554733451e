"""Starts the embedder, the detector and, if asked for, the bridge. An empty argument leaves its default.

Unless the user has chosen a Fast DDS profile, the one of this package is set: its buffers hold an image.
"""

import os
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
from sensebind.nodes.support.transport import settings

TOPICS = {  # launch argument → relative topic name
    "camera": "camera/image",
    "camera_info": "camera/camera_info",
    "depth": "depth/image",
    "depth_info": "depth/camera_info",
    "thermal": "thermal/image",
    "audio": "audio",
    "imu": "imu",
}
ARGUMENTS = {
    "params_file": "ROS parameter file (default: starter.yaml of this package)",
    "namespace": "namespace of the nodes and of their relative topics",
    "space": "space to embed into, whatever the file says",
    "device": "cpu, cuda or auto, whatever the file says",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"topic that {topic} is remapped to")
        for name, topic in TOPICS.items()
    ]
    arguments += [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    arguments += [
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=["true", "false"], description="follow /clock"
        ),
        DeclareLaunchArgument(
            "bridge", default_value="false", choices=["true", "false"], description="start the bridge too"
        ),
    ]
    profile = [SetEnvironmentVariable(name, value) for name, value in settings(os.environ).items()]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Any]:
    given = {name: context.launch_configurations.get(name, "") for name in (*TOPICS, *ARGUMENTS)}
    share = get_package_share_directory("sensebind")
    parameters: list[Any] = [given["params_file"] or os.path.join(share, "config", "starter.yaml")]
    parameters.append({"use_sim_time": context.launch_configurations["use_sim_time"] == "true"})
    common = {"package": "sensebind", "namespace": given["namespace"], "output": "screen"}
    remappings = []
    for name, topic in TOPICS.items():
        if given[name]:
            remappings += [(topic, given[name]), (f"{topic}/compressed", f"{given[name]}/compressed")]
    own = {name: given[name] for name in ("space", "device") if given[name]}
    found = [
        LifecycleNode(
            executable="embedder",
            name="embedder",
            parameters=[*parameters, own] if own else parameters,
            remappings=remappings,
            **common,
        ),
        Node(executable="detector", name="detector", parameters=parameters, **common),
    ]
    if context.launch_configurations["bridge"] == "true":
        found.append(Node(executable="bridge", name="bridge", parameters=parameters, **common))
    return found
