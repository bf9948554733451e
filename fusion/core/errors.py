"""Errors that the user can correct: wrong parameters, files or data."""


class SensebindError(Exception):
    """Base class. The message names the topic, file or parameter and the remedy, so no traceback is needed."""


class ConfigError(SensebindError, ValueError):
    """A parameter or a parameter file is invalid."""


class RecipeError(SensebindError, ValueError):
    """The preprocessing in the files of a model cannot be followed. The message names the setting."""
