"""The version of the package, without further imports."""

__all__ = ["__version__"]

__version__ = "0.2.0"
