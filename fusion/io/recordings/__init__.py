"""Recordings: reads bags (MCAP, SQLite, ROS 1) and writes MCAP bags, without a ROS installation.

`recording` reads a whole recording. `folder` finds its files, and `mcap_file`, `sqlite_file` and `ros1_file` read one
file each. rosbags converts messages and writes bags.
"""

from sensebind.fusion.io.recordings.bag_file import RecordingError
from sensebind.fusion.io.recordings.bag_writer import LATCHED_QOS, BagWriter, require_writable_bag
from sensebind.fusion.io.recordings.message_types import HEADER_TYPE, RosbagsMessageFactory, typestore
from sensebind.fusion.io.recordings.recording import (
    DAMAGED,
    FILES,
    MISSING,
    UNREADABLE,
    ForeignTopic,
    Recording,
    RecordingLoss,
    Selection,
    Topic,
    duration,
)

__all__ = [
    "DAMAGED",
    "FILES",
    "HEADER_TYPE",
    "LATCHED_QOS",
    "MISSING",
    "UNREADABLE",
    "BagWriter",
    "ForeignTopic",
    "Recording",
    "RecordingError",
    "RecordingLoss",
    "RosbagsMessageFactory",
    "Selection",
    "Topic",
    "duration",
    "require_writable_bag",
    "typestore",
]
