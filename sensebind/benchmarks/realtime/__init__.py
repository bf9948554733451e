"""Robots that run in real time, in this process or in worker processes."""
