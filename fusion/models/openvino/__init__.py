"""Encoders compiled by OpenVINO for the processor (optional)."""
