"""What reports share: tables, figures, overlays and Markdown."""
