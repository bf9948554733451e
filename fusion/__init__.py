"""The line from samples to events. Knows numpy and torch; knows no ROS."""
