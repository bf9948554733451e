"""Windows to vectors on a device: batches, memory, CUDA graphs."""
