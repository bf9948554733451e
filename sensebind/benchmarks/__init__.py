"""Measurements of time and memory: one module for each `sensebind bench`."""
