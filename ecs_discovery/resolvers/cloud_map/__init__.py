"""Cloud Map: instances from `DiscoverInstances`, for threads (`sync`) and asyncio (`aio`).

Enters: one source. Not: how long an answer holds.
"""
