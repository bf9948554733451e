"""Spokes: small encoders that are trained to match a frozen hub, and a hub with its spokes as one space."""
