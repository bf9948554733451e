"""One space for all of a robot's senses: `sensebind.fusion` without ROS, `sensebind.nodes` with it."""

__version__ = "0.1.0"
