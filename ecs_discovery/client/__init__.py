"""Who drives the core: an engine that both worlds share, and a driver for each (`sync`, `aio`).

What both drivers need stands here and imports neither of them. Modules of `sync` and `aio` that do the same have the
same name, and stand in the same order.
"""
