"""How a call goes: its attempts, kinds of failure, budgets, deadlines, races and hedges.

Enters: rules about one call. Not: sockets, a library's exceptions.
"""
