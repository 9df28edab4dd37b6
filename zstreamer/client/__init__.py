"""The client: one pure core, and drivers for threads, gevent and asyncio.

    predict ─> client (or aio) ─> driver: threads, green, aio ─> core ─> lanes ─> SUBMIT ─> broker
    results <─ calls          <─ driver                       <─ core <────────── ANSWER <─ broker

`core` decides, `lanes` says what leaves next, `overload` what is too late to be sent, `tour` where
an item goes that a broker refused, `unanswered` which error a call without an answer ends with.
`link` is the connection to one broker as the core sees it. Above it, `job` is the core of
`Client.map`: `feed` reads the items, `port` makes calls of them, `outputs` and `aio_outputs` are
iterated. `status` asks a broker how it is.
"""
