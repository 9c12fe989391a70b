"""httpx in asyncio. Its files have the same names as the files of `sync`."""
