"""Scripts that write the weight files that ship with the starter space."""

from sensebind.fusion.core.errors import SensebindError


class ConversionError(SensebindError):
    """A file cannot be converted. The message names it."""
