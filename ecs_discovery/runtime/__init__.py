"""The machine: threads, forks, sockets, files and where this task runs. Decides nothing about services.

Enters: what threads, forks, sockets and files need. Only here are clocks of the machine called; elsewhere a clock is an
argument.
"""
