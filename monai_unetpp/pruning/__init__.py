"""Score every level, measure its cost, decide how shallow is good enough, explain and write the result."""
