"""Reads and writes recordings, ROS messages, files and the wire format. Needs no ROS."""
