"""The driver for threads. The files have the same names as in `aio`."""
