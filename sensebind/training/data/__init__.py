"""Training data of spokes: pairs from recordings, sounds, motion, activities."""
