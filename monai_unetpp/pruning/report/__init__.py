"""The report of an evaluation: its tables, plots, pictures and sentences."""

__all__: list[str] = []
