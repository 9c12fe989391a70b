"""What exists: which questions a target becomes, and what the answers add up to.

Enters: questions, answers, how long they hold. Not: who is chosen.
"""
