"""The whole on one machine.

ThreadedStreamer   caller ─> threaded.Batches ─> a thread of this process that runs predict
Streamer           caller ─> Client ─> private broker ─> workers, over Unix sockets
"""
