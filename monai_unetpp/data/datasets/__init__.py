"""Data sets: their cases, subjects and labels, and checks of all of them before work begins."""

__all__: list[str] = []
