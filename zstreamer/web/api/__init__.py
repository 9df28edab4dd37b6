"""What requests mean. Pure: no sockets, no server, no client.

    Request ─> interface (routes) ─> exchange ─> v1 or v2 ─> bodies, options ─> Predict or Look
    Response <─ exchange <─ v1 or v2: outputs, json, or problem <─ outputs, a snapshot or an error

`embeddings` and `rerank` are routes in the form of `openai`, whose errors they write, too.

`steps` are what a server is asked to do until it has a response. `tensors`, `binary`, `datatypes`
and `signatures` read the inputs of the Open Inference Protocol (v2), `infer` puts a request of it
together.
"""
