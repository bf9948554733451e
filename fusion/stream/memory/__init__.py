"""The memory of samples and windows: their sizes, and the parts of `memory_limit_mb`."""
