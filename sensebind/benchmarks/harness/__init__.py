"""Code that benchmarks share: options, parts, processes, simulated sensors, times, resources, reports."""
