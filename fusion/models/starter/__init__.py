"""The starter space: image and text encoders with weights that packages carry, and its own spokes."""
