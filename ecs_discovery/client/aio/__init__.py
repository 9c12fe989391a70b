"""The driver for asyncio. The files have the same names as in `sync`."""
