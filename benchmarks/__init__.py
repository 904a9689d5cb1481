"""Measurements for those who develop this package, started by ``python -m benchmarks`` in the root of a clone."""
