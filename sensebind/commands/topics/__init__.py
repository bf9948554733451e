"""`sensebind topics`: shows which topics of a recording are sensors, and why."""

from sensebind.commands.topics.command import add_parser, run

__all__ = ["add_parser", "run"]
