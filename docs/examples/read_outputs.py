"""Print the events in the output bag of a replay: `python3 read_outputs.py out/outputs`. Needs no ROS."""

import sys

from sensebind import Recording

with Recording(sys.argv[1]) as recording:
    for *_, event in recording.messages(["/events"]):
        if event.phase == event.OFFSET:
            onset = event.onset.sec + event.onset.nanosec / 1e9 - recording.start / 1e9
            offset = event.offset.sec + event.offset.nanosec / 1e9 - recording.start / 1e9
            print(f"{event.label}: {onset:.1f} s to {offset:.1f} s")
