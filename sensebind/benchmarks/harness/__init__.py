"""What benchmarks share: parts, timing, figures, simulated robots, spaces."""
