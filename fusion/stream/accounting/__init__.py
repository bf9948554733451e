"""Whether all that was received is accounted for: the identity of the counters of a sensor."""
