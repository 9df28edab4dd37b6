"""The client: one pure core, and drivers for threads, gevent and asyncio."""
