"""Traces of calls, through client, broker and worker, where a program uses OpenTelemetry.

context    traceparent and tracestate: text in, text out
call       the span of a call, at the client that makes it
batch      the spans of the queue, of a batch and of the model's run, in the model's process
otel       both with OpenTelemetry's API; imported only where the program has imported that
setup      what `--tracing` asks for: a provider and its exporter

The broker makes no spans. It carries contexts, and says how long items were queued.
"""
