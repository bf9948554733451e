"""The clocks of the sensors of a robot: which differ from the others, and which were set while the sensors ran."""
