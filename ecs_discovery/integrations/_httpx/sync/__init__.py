"""httpx in threads. Its files stand beside those of `aio`, in the same order."""
