"""Checks of what other programs send to the nodes: one module for each type of message, and one place for the counts.

A message can be read only through the functions of this package, which raise `RefusedMessage` with a cause. They work
on the attributes of a message, so they need no ROS.
"""
