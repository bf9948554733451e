"""Scripts that write the weight files that ship with the starter space."""
