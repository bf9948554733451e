"""Everything that knows ROS: one module per executable, and the messages."""
