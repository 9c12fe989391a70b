"""A world in virtual time: tasks, a registry, DNS and clients, for histories of hours that play in seconds."""
