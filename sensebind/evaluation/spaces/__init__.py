"""Evaluation of spaces: retrieval between modalities, and sounds by name."""
