"""What the programs need of the operating system and of Python; nothing here knows an item.

interpreter   which Python to start, and what it must be able to import
bootstrap     the child's first lines: an import path with the standard library first
process       starts a child that ends with its owner, and hands it a configuration
slots         keeps N processes alive, and ends them in the end
signals       requests to stop, as a descriptor for a poll loop
descriptors   whether more files and sockets may be opened
cpus          how many cores there are, and who has to give way
native        locks and threads of the system, below gevent's patches
waiter        waits for another thread, as a thread or as a greenlet
logs          what log lines look like
exitcodes     what the exit codes of all programs mean
"""
