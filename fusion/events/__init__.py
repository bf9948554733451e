"""Detection of events in a stream of embeddings. One module per detector."""
