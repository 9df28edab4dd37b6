"""The worker: an agent process that owns the sockets, and a child process that owns the model."""
