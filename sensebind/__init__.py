"""One space for all of a robot's senses: `sensebind.fusion` without ROS, `sensebind.nodes` with it."""

from sensebind.fusion.core import threads

__version__ = "0.1.0"

threads.settle()
