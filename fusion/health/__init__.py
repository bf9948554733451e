"""Checks of each sensor's raw data: dark, frozen, disconnected, miscalibrated, and the like."""
