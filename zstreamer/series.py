"""Every series that a process of zstreamer shows Prometheus: its name, kind, labels and meaning.

docs/metrics.md lists them; a test compares that page with this file, and both with what is served.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Series(NamedTuple):
    """One series.

    Attributes:
        name: as Prometheus shows it: counters end in ``_total``.
        kind: its type.
        labels: names of its labels.
        words: what it means.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    words: str


MODEL: Final = ("model",)

BROKER: Final = (
    Series("zstreamer_broker_info", "gauge", ("release",), "1; the release that runs"),
    Series("zstreamer_draining", "gauge", (), "1 while the broker takes no new items"),
    Series("zstreamer_clients", "gauge", (), "Clients that are connected"),
    Series(
        "zstreamer_workers",
        "gauge",
        ("model", "state"),
        "Workers that are connected: warm, late (a batch takes suspiciously long), stalled "
        "(silent), booting, restarting, draining or broken",
    ),
    Series("zstreamer_model_ready", "gauge", MODEL, "1 where a warm worker answers, as `/readyz`"),
    Series("zstreamer_items_admitted_total", "counter", MODEL, "Items that were taken"),
    Series(
        "zstreamer_items_total",
        "counter",
        ("model", "outcome"),
        "Items that were taken and have ended: ok, cancelled, or the name of the error",
    ),
    Series(
        "zstreamer_items_refused_total",
        "counter",
        ("model", "reason"),
        "Items that were not taken: budget (too much work is ahead), queue_full, client_full, "
        "draining, no_worker, model_not_found, too_large, bad_request. `model` is empty where "
        "nobody has served that name",
    ),
    Series(
        "zstreamer_items_redispatched_total",
        "counter",
        MODEL,
        "Items that a worker had and that wait again, since it died, left or returned them",
    ),
    Series("zstreamer_input_bytes_total", "counter", MODEL, "Bytes of the inputs that were taken"),
    Series("zstreamer_output_bytes_total", "counter", MODEL, "Bytes of answers from workers"),
    Series("zstreamer_queue_items", "gauge", MODEL, "Items that no worker has yet"),
    Series(
        "zstreamer_queue_oldest_seconds",
        "gauge",
        MODEL,
        "Age of the item that has waited longest in the queue; 0 where none waits",
    ),
    Series("zstreamer_queue_bytes", "gauge", (), "Bytes of the items that no worker has yet"),
    Series("zstreamer_queue_limit_items", "gauge", (), "`--max-items`"),
    Series("zstreamer_window_items", "gauge", MODEL, "Items that workers hold, running or not"),
    Series("zstreamer_window_limit_items", "gauge", MODEL, "Items that warm workers may hold"),
    Series("zstreamer_running_items", "gauge", MODEL, "Items that run in a batch now"),
    Series(
        "zstreamer_queue_seconds",
        "histogram",
        MODEL,
        "Time of an item in the broker's queue, until a worker gets it",
    ),
    Series(
        "zstreamer_item_seconds",
        "histogram",
        MODEL,
        "Time of an item from its arrival at the broker until a worker's answer to it",
    ),
    Series(
        "zstreamer_bundle_items",
        "histogram",
        ("message",),
        "Items of one message: submit (from a client), work (to a worker), report (from a worker), "
        "answer (to a client)",
    ),
    Series(
        "zstreamer_batch_beta_seconds",
        "gauge",
        MODEL,
        "β of the batch time T(n) = β + α·n, mean of the warm workers",
    ),
    Series("zstreamer_batch_alpha_seconds", "gauge", MODEL, "α of it, seconds an item"),
    Series(
        "zstreamer_capacity_items_per_second",
        "gauge",
        MODEL,
        "Items a second that the warm workers answer in full batches; 0 where not known yet",
    ),
    Series(
        "zstreamer_wanted_workers",
        "gauge",
        MODEL,
        "Workers that the present load wants for the latency target; see autoscaling.md",
    ),
    Series(
        "zstreamer_model_failures_total",
        "counter",
        MODEL,
        "Ends of the model's processes, and starts that failed",
    ),
    Series(
        "zstreamer_workers_lost_total",
        "counter",
        MODEL,
        "Workers that went without a word",
    ),
    Series("zstreamer_worker_stalls_total", "counter", MODEL, "Times that a worker was silent"),
    Series(
        "zstreamer_worker_late_total",
        "counter",
        MODEL,
        "Times that a batch took suspiciously long",
    ),
    Series(
        "zstreamer_session_events_total",
        "counter",
        ("event",),
        "What happened to sessions: refused, malformed (a message was no message), deaf (refused "
        "too often), resets (did not read), stuck (a worker that reports nothing), failures (the "
        "broker's own); and to items: fenced, unwanted (answers that nobody waits for)",
    ),
    Series(
        "zstreamer_loop_turn_seconds",
        "histogram",
        (),
        "How long the broker's loop was busy between two waits: what comes meanwhile has to wait",
    ),
)
