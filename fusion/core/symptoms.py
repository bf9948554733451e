"""Names of what can be wrong with a sensor's data."""

# The names of all symptoms, the most telling first.
DARK, BLINDED, MUTED, SATURATED = "dark", "blinded", "muted", "saturated"
SWAPPED, MISCALIBRATED, FROZEN = "swapped", "miscalibrated", "frozen"
SYMPTOMS = (DARK, BLINDED, MUTED, SATURATED, SWAPPED, MISCALIBRATED, FROZEN)
