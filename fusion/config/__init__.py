"""Parameters and parameter files; builds windows, pipelines and detectors from parameter values."""
