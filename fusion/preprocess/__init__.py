"""Converts windows to the tensors that the models were trained with, with one module for each modality."""
