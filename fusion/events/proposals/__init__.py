"""Proposals: intervals in which the raw data of a modality change, and the names that phrases give them."""
