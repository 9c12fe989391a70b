"""What httpx and httpx2 have in common: one request over httpcore's connections, in threads and in tasks."""
