"""Spaces from models of the package transformers: `space: transformers:<folder or Hub id>`."""
