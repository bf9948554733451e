"""The code that uses ROS: one module for each executable, and the modules that they share."""
