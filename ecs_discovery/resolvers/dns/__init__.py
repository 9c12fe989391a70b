"""DNS: one lookup as steps without I/O (`steps`), driven for threads (`sync`) and asyncio (`aio`).

Enters: one source. Not: caching across lookups.
"""
