"""Channels for threads."""
