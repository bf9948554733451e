"""The subcommand: its arguments, and what it does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "topics",
        help="show which topics of a recording are sensors, and why",
        description="Show each topic of a recording that may be a sensor: its encoding, messages, rate, time and "
        "frame, what a replay takes it for if the parameter file names no topics and no sensors, and the reason. Reads "
        "a few messages of each topic.",
    )
    parser.add_argument("recording", type=Path, help="bag: a folder, or an .mcap, .db3 or .bag file")
    parser.add_argument(
        "--namespace", metavar="NS", help="the robot's namespace: only its topics are shown, if the recording has any"
    )


def run(args: argparse.Namespace) -> int:
    """Print the topics. Exit status 1 if none is a sensor. Raises `RecordingError`."""
    from sensebind.commands.topics.listing import listing
    from sensebind.fusion.config.parameters import RESERVED_SENSOR_NAMES
    from sensebind.fusion.io.recordings import Recording
    from sensebind.fusion.io.topic_selection import TopicSelection
    from sensebind.replay.namespaces import RobotRecording

    with Recording(args.recording) as recording:
        robot = RobotRecording(recording, args.namespace or "")
        selection = TopicSelection(robot)
        sensors = selection.sensors(RESERVED_SENSOR_NAMES)
        print(listing(recording.start, robot.topics, selection, sensors))
    return 0 if sensors else 1
