"""The report of an evaluation: its tables, plots, pictures and sentences."""
