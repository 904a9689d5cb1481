"""Tools for measurements: quartiles, rounds, memory, energy, size, stages, and the environment."""
