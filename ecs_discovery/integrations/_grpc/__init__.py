"""What the channels of gRPC in threads and in asyncio have in common, and the two."""
