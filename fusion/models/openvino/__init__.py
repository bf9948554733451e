"""Encoders compiled by OpenVINO for a processor. Optional."""
