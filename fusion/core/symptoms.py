"""Names of the symptoms of a faulty sensor."""

# All symptoms, the clearest first.
DARK, BLINDED, MUTED, SATURATED = "dark", "blinded", "muted", "saturated"
SWAPPED, MISCALIBRATED, FROZEN = "swapped", "miscalibrated", "frozen"
SYMPTOMS = (DARK, BLINDED, MUTED, SATURATED, SWAPPED, MISCALIBRATED, FROZEN)
