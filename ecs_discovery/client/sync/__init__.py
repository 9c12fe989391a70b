"""The driver for threads. Modules that do the same as those of `aio` have the same name.

Here alone are own flights (`flights`) and default discoveries (`shared`).
"""
