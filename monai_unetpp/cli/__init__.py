"""The console script ``monai-unetpp``: the only room that prints, with a file for every command.

Every command calls one function with the same arguments; what takes long to import is imported when it is needed.
"""

from monai_unetpp.cli.program import main, make_parser

__all__ = ["main", "make_parser"]
