"""The starter space: image and text encoders with weights from Python packages, and its own spokes."""
