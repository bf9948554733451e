"""Samples to embeddings and events over time: windowing, queues, fusion of ticks, scheduling."""
