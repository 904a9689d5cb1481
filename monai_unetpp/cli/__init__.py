"""The console script ``monai-unetpp``: the only package that prints, with a file for every command.

Every command calls one function with the same arguments; slow imports are made only when needed.
"""

from monai_unetpp.cli.program import main, make_parser

__all__ = ["main", "make_parser"]
