"""The worker: an agent process that owns the sockets, and a child process that owns the model.

    supervisor ── starts and restarts ──> agent ── starts ──> child

    broker ─ WORK ─> agent: core ─> backlog ─> pipe ─> child: prepare ─> runner ─> predict
    broker <─ REPORT ─ core <─────── backlog <─ pipe <─────────────────── outputs or errors

`core` knows brokers and whether the model is up, `backlog` the items, `model_process` the process
itself. `claims` is the page of memory in which the child notes what it runs, `target` finds the
model, `forkserver` is for models that can only be had by forking.
"""
