"""The machine: threads, forks, sockets, files and where this task runs. Decides nothing about services."""
