"""The driver for threads. Modules that do the same as those of `aio` have the same name.

Here alone are groups of lookups (`lookup_group`) and default discoveries (`shared`).
"""
