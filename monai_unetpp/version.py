"""The version of the package, without further imports."""

__version__ = "0.2.0"
