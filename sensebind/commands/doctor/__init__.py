"""`sensebind doctor`: checks the installation, or who can reach this robot's perception."""

from sensebind.commands.doctor.command import add_parser, run

__all__ = ["add_parser", "run"]
