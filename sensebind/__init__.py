"""One space for all of a robot's senses: `sensebind.fusion` without ROS, `sensebind.nodes` with it."""

import os

__version__ = "0.1.0"

# OpenMP's threads sleep while they wait, and do not spin: on a robot's busy computer a spinning thread takes the core
# that the other one needs, and everything is ten times slower. PyTorch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
