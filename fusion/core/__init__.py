"""What all rooms share: samples, windows, embeddings, events, the contract of a space. Imports no other room."""
