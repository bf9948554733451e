"""Embedding spaces: several models with one interface."""
