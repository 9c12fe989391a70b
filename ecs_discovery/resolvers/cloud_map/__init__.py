"""Cloud Map: instances from `DiscoverInstances`, for threads (`sync`) and asyncio (`aio`)."""
