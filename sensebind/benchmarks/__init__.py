"""What things cost, measured: one module for each `sensebind bench`."""
