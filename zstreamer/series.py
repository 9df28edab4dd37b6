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
TENANT: Final = ("tenant",)

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
        "tenant (a limit of its tenant), draining, no_worker, model_not_found, too_large, "
        "bad_request. `model` is empty where nobody has served that name",
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
        "zstreamer_batch_items",
        "histogram",
        MODEL,
        "Items of a batch, as workers tell; this and the next three while somebody scrapes, some "
        "seconds late",
    ),
    Series(
        "zstreamer_batches_closed_total",
        "counter",
        ("model", "reason"),
        "Batches by why they were no larger, see zstreamer_worker_batches_closed_total",
    ),
    Series("zstreamer_batch_cost_total", "counter", MODEL, "Cost of the items in batches"),
    Series(
        "zstreamer_batch_padded_cost_total",
        "counter",
        MODEL,
        "The same with padding: the share of padding is 1 - cost / padded cost",
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
        "Workers whose connection ended although they had not said that they leave",
    ),
    Series("zstreamer_worker_stalls_total", "counter", MODEL, "Times that a worker was silent"),
    Series(
        "zstreamer_worker_late_total",
        "counter",
        MODEL,
        "Times that a batch took suspiciously long",
    ),
    Series(
        "zstreamer_shadow_copies_total",
        "counter",
        MODEL,
        "Copies of items that a shadow was sent; `model` is the shadow's MODEL@VERSION",
    ),
    Series(
        "zstreamer_shadow_items_total",
        "counter",
        ("model", "outcome"),
        "What became of items that were due for a copy: same (the answers are equal), different, "
        "failed (only the copy), uncompared (the item itself has no answer), skipped (too many "
        "copies are open, or the shadow has no warm worker)",
    ),
    Series("zstreamer_shadow_open_items", "gauge", MODEL, "Copies that are not answered yet"),
    Series("zstreamer_tenant_clients", "gauge", TENANT, "Clients of a tenant"),
    Series("zstreamer_tenant_open_items", "gauge", TENANT, "Its items that are not answered yet"),
    Series("zstreamer_tenant_items_admitted_total", "counter", TENANT, "Its items that were taken"),
    Series(
        "zstreamer_tenant_items_refused_total", "counter", TENANT, "Its items that were not taken"
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

WORKER: Final = (
    Series("zstreamer_worker_info", "gauge", ("release", "model", "device"), "1; what it serves"),
    Series(
        "zstreamer_worker_ready",
        "gauge",
        MODEL,
        "1 where the model is warm, answers, and a broker is connected, as `/readyz`",
    ),
    Series("zstreamer_worker_brokers", "gauge", MODEL, "Brokers that it is connected to"),
    Series(
        "zstreamer_worker_items_total",
        "counter",
        ("model", "outcome"),
        "Items that have left it: ok, the name of the error, cancelled, expired, lost (in a batch "
        "whose process died), returned (to run elsewhere)",
    ),
    Series("zstreamer_worker_waiting_items", "gauge", MODEL, "Items that wait for the model"),
    Series("zstreamer_worker_running_items", "gauge", MODEL, "Items that run in a batch now"),
    Series(
        "zstreamer_worker_batch_running_seconds",
        "gauge",
        MODEL,
        "Seconds for which the present batch has run; 0 where none runs",
    ),
    Series(
        "zstreamer_worker_wait_seconds",
        "histogram",
        MODEL,
        "Time of an item from its arrival at the worker until its batch begins",
    ),
    Series("zstreamer_worker_batch_items", "histogram", MODEL, "Items of a batch"),
    Series(
        "zstreamer_worker_predict_seconds", "histogram", MODEL, "Time of one batch in the model"
    ),
    Series("zstreamer_worker_busy_seconds_total", "counter", MODEL, "Time in which a batch ran"),
    Series(
        "zstreamer_worker_batches_closed_total",
        "counter",
        ("model", "reason"),
        "Batches by why they were no larger: full (`--batch-size`), all (nothing more waited), "
        "hold (nothing more came while it was held), cost (`--max-batch-cost`), target "
        "(`--latency-target`), alone (suspects run apart)",
    ),
    Series(
        "zstreamer_worker_batch_cost_total",
        "counter",
        MODEL,
        "Cost of the items in batches, as the model's cost() says",
    ),
    Series(
        "zstreamer_worker_batch_padded_cost_total",
        "counter",
        MODEL,
        "The same with padding: each item counts as the dearest of its batch. The share of padding "
        "is 1 - cost / padded cost",
    ),
    Series("zstreamer_worker_batch_beta_seconds", "gauge", MODEL, "β of T(n) = β + α·n"),
    Series("zstreamer_worker_batch_alpha_seconds", "gauge", MODEL, "α of it, seconds an item"),
    Series("zstreamer_worker_model_deaths_total", "counter", MODEL, "Ends of the model's process"),
    Series(
        "zstreamer_worker_loop_turn_seconds",
        "histogram",
        MODEL,
        "How long the agent's loop was busy between two waits",
    ),
    Series("zstreamer_gpu_utilization_ratio", "gauge", ("gpu",), "Time in which the GPU computed"),
    Series("zstreamer_gpu_memory_used_bytes", "gauge", ("gpu",), "Memory of the GPU in use"),
    Series("zstreamer_gpu_memory_bytes", "gauge", ("gpu",), "Memory of the GPU"),
)

CLIENT: Final = (
    Series(
        "zstreamer_client_calls_total",
        "counter",
        ("model", "outcome"),
        "Calls that have ended: ok, or the name of the error that they raised. `model` is empty "
        "for names that nobody serves",
    ),
    Series(
        "zstreamer_client_items_total",
        "counter",
        ("model", "outcome"),
        "Items of these calls; with return_exceptions each has an outcome of its own",
    ),
    Series(
        "zstreamer_client_call_seconds",
        "histogram",
        MODEL,
        "Time of a call, from `predict` until its last answer",
    ),
    Series("zstreamer_client_open_calls", "gauge", (), "Calls that have not ended"),
    Series("zstreamer_client_brokers", "gauge", (), "Connections to brokers that stand"),
)

GATEWAY: Final = (
    Series(
        "zstreamer_http_requests_total",
        "counter",
        ("route", "model", "status"),
        "Requests that ended. `model` is empty for pages without one, and until the model has "
        "answered once",
    ),
    Series(
        "zstreamer_http_items_total", "counter", ("route", "model"), "Items that they asked for"
    ),
    Series(
        "zstreamer_http_request_seconds",
        "histogram",
        ("route", "model"),
        "Time from a whole request to its response",
    ),
    Series("zstreamer_http_in_flight", "gauge", (), "Requests that have begun and not ended"),
)

PAGES: Final = {"broker": BROKER, "worker": WORKER, "client": CLIENT, "gateway": GATEWAY}
"""All series, by the process or object that shows them."""


def table(catalog: tuple[Series, ...]) -> str:
    """Return the table of some series as docs/metrics.md has it."""
    lines = ["| name | type | labels | what |", "| --- | --- | --- | --- |"]
    for name, kind, labels, words in catalog:
        named = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {named} | {words} |")
    return "\n".join(lines)


def written_into(page: str) -> str:
    """Return a page in Markdown with each table between its marks as it must be."""
    for name, catalog in PAGES.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{table(catalog)}\n{end}{rest.partition(end)[2]}"
    return page
