"""Runs a recording through the pipeline, offline: with the same samples and results as the live nodes."""
