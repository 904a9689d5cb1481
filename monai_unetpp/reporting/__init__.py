"""What reports share: tables, figures, overlays and Markdown."""

__all__: list[str] = []
