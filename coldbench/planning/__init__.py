"""The grid of runs, what it costs, and what of it is done; imports no torch."""
