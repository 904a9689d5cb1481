"""What measuring and comparing share: quartiles, rounds, memory, size, stages, and the machine they are measured on."""

__all__: list[str] = []
