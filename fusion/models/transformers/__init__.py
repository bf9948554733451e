"""Spaces from models of the package transformers: `space: transformers:<folder or owner/model>`."""
