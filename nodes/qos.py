"""Qualities of service, one for each kind of topic."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy

# Best effort, as sensors publish, with room for what comes while Python is busy elsewhere: the five messages of the
# usual profile are 25 ms of an IMU at 200 Hz, and a sixth pushes out the first without a word.
SENSORS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=500,
    reliability=QoSReliabilityPolicy.BEST_EFFORT,
    durability=QoSDurabilityPolicy.VOLATILE,
)
IMAGES = QoSProfile(  # 2 s at 30 Hz
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=60,
    reliability=QoSReliabilityPolicy.BEST_EFFORT,
    durability=QoSDurabilityPolicy.VOLATILE,
)
VECTORS = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=10, reliability=QoSReliabilityPolicy.RELIABLE)
# For what a late subscriber must still be told.
LATCHED = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)
EVENTS = QoSProfile(
    history=QoSHistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=QoSReliabilityPolicy.RELIABLE,
    durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
)
