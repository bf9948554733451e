"""Spaces: one interface, several models."""
