"""What a client remembers while calls are open, and must have forgotten once there are none."""


def table_sizes(client):
    """How many entries a client's tables hold; 0 where nothing is open."""
    cores = [driver.core for driver in client._drivers.values()]
    sizes = 0
    for core in cores:
        sizes += len(core._calls) + len(core._watches) + len(core._lanes) + len(core._completed)
        sizes += sum(len(link.sent) + link.sent_bytes for link in core.links)
        sizes += sum(1 for _, _, call in core._deadlines if not call.done)
    return sizes
