"""Parameters, and what is made from them: windows, pipelines, detectors."""
