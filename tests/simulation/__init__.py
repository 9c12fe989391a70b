"""A world in virtual time for the very code that applications run: see docs/simulation.md."""
