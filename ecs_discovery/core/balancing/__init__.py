"""Who is chosen: nodes with their load and health, and the rules that pick one of them.

Enters: pure rules over nodes, with now and rng as arguments. Not: waiting, names, HTTP.
"""
