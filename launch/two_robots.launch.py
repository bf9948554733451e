"""An example: two robots on one computer, each in a namespace of its own, with its own parameters and bridge.

Both read `params_file`. Sections like `/robot2/detector:` in it are for one robot, all others are for both.
"""

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, ThisLaunchFileDir
from launch_ros.actions import PushRosNamespace

from launch import LaunchDescription

ROBOTS = {"robot1": "tcp://127.0.0.1:7501", "robot2": "tcp://127.0.0.1:7502"}  # namespace → address of the bridge


def generate_launch_description() -> LaunchDescription:
    file = DeclareLaunchArgument("params_file", default_value="", description="path of the ROS parameter file for both")
    groups = [
        GroupAction(
            [
                PushRosNamespace(namespace),
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource([ThisLaunchFileDir(), "/sensebind.launch.py"]),
                    launch_arguments={
                        "params_file": LaunchConfiguration("params_file"),
                        "camera": "front/image_raw",  # relative: /robot1/front/image_raw and /robot2/front/image_raw
                        "bridge": "true",
                        "bridge_address": address,
                    }.items(),
                ),
            ]
        )
        for namespace, address in ROBOTS.items()
    ]
    return LaunchDescription([file, *groups])
