"""DNS: one lookup as steps without I/O (`steps`), driven for threads (`sync`) and asyncio (`aio`)."""
