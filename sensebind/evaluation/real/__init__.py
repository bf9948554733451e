"""Evaluation of events on recorded data: sounds in noise, falls, and recordings with nothing to detect."""
