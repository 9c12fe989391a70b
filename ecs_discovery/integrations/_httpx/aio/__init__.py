"""httpx in asyncio. Its files stand beside those of `sync`, in the same order."""
