"""Windows to vectors on a device.

An engine is what a scheduler serves: `engine` embeds windows of sensors, `row_engine` embeds rows that other processes
have prepared. Both give their rows to one `batch_runner`, which forms batches. It runs them through the space itself,
or through a runner: `cuda` (GPU graphs), or `remote_runner` (the device of another process).
"""
