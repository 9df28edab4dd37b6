"""Keys: who may speak to a broker or a gateway, and how a program shows that it may.

    `zstreamer keys` ─> folder ─> certificates ──┬─> reader ─> ring     the broker: who is this key?
                                                 ├─> reader ─> bearer   the gateway: whose token?
                                                 └─> credentials        client, worker: who am I?

`secrets` has the values that no log and no `repr` shows, `certificate` the text of a file, `files`
reads and writes files that nobody else may read. `ring` and `bearer` are pure.
"""
