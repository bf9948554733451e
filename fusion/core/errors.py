"""The errors that are about what the user gave, not about this program."""


class SensebindError(Exception):
    """Its message names the topic, file or parameter and says what to do: nobody needs a traceback for it."""


class ConfigError(SensebindError, ValueError):
    """A parameter or a parameter file that cannot be used."""
