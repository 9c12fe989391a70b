"""One request over its attempts, for any HTTP library. An integration adds what is its library's own, nothing else."""
