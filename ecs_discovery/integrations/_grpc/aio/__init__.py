"""Channels for asyncio."""
