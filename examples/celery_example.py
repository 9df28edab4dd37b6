"""Celery tasks that ask a cluster: the processes of a Celery worker embed `zstreamer.Client`.

    redis-server
    zstreamer broker
    zstreamer worker examples.bert_model:ManagedBertModel --num 2
    celery -A examples.celery_example worker --concurrency 4
    python -m examples.celery_example "Happy birthday to [MASK]."           # ["you"]

Celery keeps and repeats tasks that may take hours; the model stays in one place, and its batches
hold the items of all tasks and of the web servers. Celery's own processes load no torch.

``CELERY_BROKER`` says where Celery's broker is (redis://localhost:6379/0), ``ZSTREAMER_BROKER``
where zstreamer's is (tcp://127.0.0.1:7787), and ``ZSTREAMER_MODEL`` which model to ask (default).
"""

from __future__ import annotations

import json
import os
import sys

from celery import Celery, Task

from zstreamer import Client, errors

CELERY_BROKER = os.environ.get("CELERY_BROKER", "redis://localhost:6379/0")

app = Celery("examples.celery_example", broker=CELERY_BROKER, backend=CELERY_BROKER)

# It connects at the first call of each process, so Celery may fork after this.
client = Client(
    os.environ.get("ZSTREAMER_BROKER", "tcp://127.0.0.1:7787"),
    model=os.environ.get("ZSTREAMER_MODEL", "default"),
)


@app.task(bind=True, max_retries=10)  # type: ignore[untyped-decorator]  # Celery has no types
def fill(task: Task, sentences: list[str]) -> list[object]:
    """Return an answer for each sentence; below the priority of callers who wait."""
    try:
        return client.predict(sentences, priority=-1)
    except errors.ZStreamerError as error:
        if not error.retryable:  # trying again cannot help
            raise
        wait = error.retry_after if isinstance(error, errors.Overloaded) else 5.0
        raise task.retry(exc=error, countdown=wait) from None


if __name__ == "__main__":
    print(json.dumps(fill.delay(sys.argv[1:]).get(timeout=60)))
