"""Tools for measurements: quartiles, rounds, memory, energy, size, stages, and the environment."""

__all__: list[str] = []
