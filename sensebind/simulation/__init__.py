"""Simulated robots that see, hear, feel heat and motion, with the truth beside what they record."""

from sensebind.simulation.patrol import Truth, simulate

__all__ = ["Truth", "simulate"]
