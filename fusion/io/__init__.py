"""Bytes and messages from and to the outside: recordings, ROS messages, files, the wire format. Needs no ROS."""
