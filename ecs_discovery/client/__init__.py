"""Who drives the core: an engine that both worlds share, and a driver for each (`sync`, `aio`).

What both drivers need stands here and imports neither of them. `diff -r sync aio` shows awaits.
"""
