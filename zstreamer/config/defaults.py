"""The table of defaults, and the kinds and sentences of settings that several programs have."""

from __future__ import annotations

from zstreamer.setting import TEXT, choice, optional

MiB, GiB = 2**20, 2**30

CLIENTS_ADDRESS, WORKERS_ADDRESS = "tcp://127.0.0.1:7787", "tcp://127.0.0.1:7788"
TIMEOUT, MAX_TIMEOUT, CONNECT_TIMEOUT = 20.0, 300.0, 5.0
JOB_TIMEOUT, JOB_PATIENCE, JOB_PRIORITY = 3600.0, 300.0, -1
HEARTBEAT, SILENCE = 0.5, 2.0
MAX_PAYLOAD = MAX_BODY = 64 * MiB
MAX_REQUEST_ITEMS = 4096
"""Defaults that several programs, or a program and a class, have in common; seconds and bytes."""

KEYS = optional(TEXT, "none")
KEYS_HELP = (
    "Keys: for a broker the folder of `zstreamer keys init`, for others the file that was made "
    "for them there, or the folder itself; none: the broker asks for none."
)

API_KEYS_HELP = (
    "Folder of `zstreamer keys http`: whoever asks over HTTP needs one of its bearer tokens (at a "
    "worker's pages beyond loopback alone); none: nobody does, unless a gateway's keys is a "
    "folder that has some."
)

TRACING_HELP = (
    "Export of spans, with the extra otel: otlp, as the OTEL_* variables say, or MODULE:FUNCTION, "
    "which sets OpenTelemetry up; none: no export, or the one that the program has set up."
)

LOG_LEVEL = choice("debug", "info", "warning", "error")
LOG_FORMAT = choice("text", "json")
