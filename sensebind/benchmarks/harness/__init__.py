"""Code that benchmarks share: parts, timing, reports, simulated robots, spaces."""
