"""The driver for asyncio. Modules that do the same as those of `sync` have the same name.

Here alone are `transports`, and `watch` of an attempt (`attempt`).
"""
