"""Checks the raw data of each sensor for symptoms of a fault, for example dark, frozen or miscalibrated."""
