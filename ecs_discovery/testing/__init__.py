"""Tools to try programs that use ecs_discovery, and this package itself.

`lab`: real sockets, real time. `simulation`: no sockets, virtual time.
"""
