"""ImageBind (Girdhar et al., 2023, arXiv 2305.05665): the encoders, the checkpoint files, the space."""
