"""The panels of the report page."""
