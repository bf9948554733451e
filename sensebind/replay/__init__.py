"""A recording through the pipeline, offline: the same samples and results as the live nodes."""
