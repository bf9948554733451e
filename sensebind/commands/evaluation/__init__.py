"""Parts of `sensebind evaluate`."""
