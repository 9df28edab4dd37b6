"""A cluster behind the doors that are measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.bench.web_models import BATCH, TARGETS
from tests.helpers.cluster import Cluster


@contextlib.contextmanager
def cluster(model: str, workers: int, batch_size: int = BATCH, **settings: object) -> Iterator[str]:
    """A broker on loopback TCP and so many warm workers; yields its address.

    settings: as for `Cluster.worker`.
    """
    with Cluster(tcp=True) as started:
        started.worker(TARGETS[model], model=model, num=workers, batch_size=batch_size, **settings)
        started.wait_up()
        started.wait_warm(workers, model)
        yield started.address
