"""A long run at more load than the device carries, with faults: what grows, what is lost, what recovers."""
