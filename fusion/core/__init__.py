"""Samples, windows, embeddings, events, the base class of spaces, parameters, errors. Imports no other package."""
