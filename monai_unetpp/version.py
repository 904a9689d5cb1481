"""The version of the package, readable without importing anything."""

__all__ = ["__version__"]

__version__ = "0.2.0"
