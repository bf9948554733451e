"""The pipeline from samples to events: all code that runs on a robot, without ROS."""
