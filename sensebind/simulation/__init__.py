"""Simulated robots: recordings of all their sensors, and the ground truth."""
