"""Windows to tensors, one module per modality: what each model was trained to see."""
