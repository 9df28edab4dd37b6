"""What passes between processes: messages, their bytes, large payloads in parts, sockets.

    sender     Message ─> protocol.encode ─> transfer.Sender (payloads too large for one message)
               ─> transport.Connection ─> ZeroMQ
    receiver   ZeroMQ ─> transport ─> protocol.decode ─> transfer.Receiver ─> Message

`link` is the relation of a client or a worker to a broker, and `connections` does for its core what
it asks for. `messages` lists the messages, and `protocol` knows their bytes: docs/protocol.md in
code.
"""
