"""The broker: what runs between clients and workers. Needs the base dependencies only.

    client ─ SUBMIT ─> server ─> core ─> admission ─> scheduler ─> queue
                                          │ refused                 │ dispatch
    client <─ ANSWER ─ server <─ core <───┴─ scheduler <─ REPORT ── worker <─ WORK

`core` says what each message means. `sessions` knows who is connected, `admission` what is
admitted, `scheduler` what becomes of items, `queue` the order of waiting, `dispatch` who gets them,
`undone` whom a death is charged to, `notices` what clients are told of models, `timers` what only
time changes. `clients`, `workers`, `models` and `lots` are what they all look at. `outbox` packs
what a worker gets. `server` has the sockets, `disconnects` ends connections, `admin` has the status
pages.

This folder is at the top of the repository and is imported as `zstreamer.broker`.
"""
