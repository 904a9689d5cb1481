"""Operating points beyond the levels: grids of settings, depths chosen per window, and trade-offs."""
