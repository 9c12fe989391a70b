"""httpx in threads. Its files have the same names as the files of `aio`; only threads share a socket."""
