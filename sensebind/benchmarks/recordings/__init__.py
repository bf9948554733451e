"""Measurements of the reading of recordings."""
