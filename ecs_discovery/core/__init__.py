"""Decisions only: no sockets, no sleeping, no threads, no logging, no ambient clock or dice.

Time is an argument (`now`, monotonic seconds) and so are dice. What must wait or speak to the
network is returned as a value; the drivers act on it.
"""
