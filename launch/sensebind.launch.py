"""Start the embedder, the detector and, with `bridge:=true`, the bridge. An empty argument keeps the default.

Sets the Fast DDS profile of this package, whose buffers are large enough for images, unless the environment names one.
"""

import os
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription
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
ARGUMENTS = {
    "params_file": "path of the ROS parameter file; empty: config/starter.yaml of this package",
    "namespace": "namespace of the nodes and of their relative topics; empty: none",
    "space": "embedding space; overrides the parameter file; empty: as in the file",
    "device": "device of the encoders: cpu, cuda or auto; overrides the parameter file; empty: as in the file",
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"topic to use instead of {topic}; empty: {topic}")
        for name, topic in TOPICS.items()
    ]
    arguments += [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    arguments += [
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", choices=["true", "false"], description="use the time of /clock"
        ),
        DeclareLaunchArgument(
            "bridge", default_value="false", choices=["true", "false"], description="also start the bridge"
        ),
    ]
    profile = [SetEnvironmentVariable(name, value) for name, value in fastdds_environment(os.environ).items()]
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
