"""Simulated robots that see, hear, feel heat and motion, with the truth beside what they record."""
