"""ImageBind (Girdhar et al., 2023, arXiv 2305.05665): its encoders, its checkpoint, the space."""
