"""The demo: a story of faults on loopback, played by a plain session and a wrapped session at once."""
