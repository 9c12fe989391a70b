"""Decisions only: no sockets, no sleeping, no threads, no logging, no ambient clock or rng.

Time is an argument (`now`, monotonic seconds) and so are rng. What must wait or speak to the
network is returned as a value; the drivers act on it.
"""
