"""How it is seen: what discoveries tell to systems that watch programs. What is not asked for costs nothing."""
