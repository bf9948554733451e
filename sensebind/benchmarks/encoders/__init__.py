"""The spaces that benchmarks measure: loading, synthetic weights, correct vectors, time of a batch by stage."""
