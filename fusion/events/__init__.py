"""Events: something that begins, lasts and ends, told from a stream of embeddings. One module per detector."""
