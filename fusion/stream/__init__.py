"""From samples to embeddings and events: windowing, queues, fusion of ticks, scheduling."""
