"""What a broker can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zstreamer.config.address import stays_on_machine
from zstreamer.config.base import Config, check_heartbeat
from zstreamer.config.defaults import (
    HEARTBEAT,
    KEYS,
    KEYS_HELP,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_PAYLOAD,
    SILENCE,
    GiB,
    MiB,
)
from zstreamer.setting import (
    ANY_TEXT,
    BYTES,
    COUNT,
    PORT,
    PORT_OR_NONE,
    SECONDS,
    SWITCH,
    TEXT,
    WINDOW,
    ConfigError,
    optional,
    setting,
)


@dataclass(frozen=True, slots=True)
class BrokerConfig(Config):
    """What `zstreamer broker` can be told."""

    program: ClassVar[str] = "broker"

    host: str = setting("127.0.0.1", TEXT, "Address to bind, for all three ports.")
    port: int = setting(7787, PORT, "TCP port for clients.")
    worker_port: int = setting(7788, PORT, "TCP port for workers.")
    operator_token: str = setting(
        "",
        ANY_TEXT,
        "Secret with which orders such as drain are allowed from other machines, over the HTTP "
        "port; none: only from this machine, and not at all where the broker asks for keys.",
    )
    http_port: int = setting(
        7789, PORT_OR_NONE, "Port of the broker's own status pages (HTTP); 0 for none."
    )
    client_address: str | None = setting(
        None,
        optional(TEXT, "none"),
        "ZeroMQ endpoint for clients (ipc://… or tcp://…), in place of host and port.",
    )
    worker_address: str | None = setting(
        None,
        optional(TEXT, "none"),
        "ZeroMQ endpoint for workers, in place of host and worker port.",
    )
    address_file: str | None = setting(
        None,
        optional(TEXT, "none"),
        "File to write the broker's addresses to, for file:PATH; removed when the broker ends.",
    )
    advertise: str | None = setting(
        None,
        optional(TEXT, "auto"),
        "Host name or address that others reach this broker by, for the address file; auto: what "
        "it binds, or this machine's own address.",
    )
    keys: str | None = setting(None, KEYS, KEYS_HELP)
    insecure: bool = setting(
        False,
        SWITCH,
        "Bind beyond loopback without keys, although anyone who reaches the ports can use them.",
    )
    max_items: int = setting(100_000, COUNT, "Items queued in all; more are refused.")
    max_bytes: int = setting(2 * GiB, BYTES, "Payload bytes queued in all.")
    client_items: int = setting(50_000, COUNT, "Items queued for one client.")
    client_bytes: int = setting(1 * GiB, BYTES, "Payload bytes queued for one client.")
    window_items: int = setting(4096, WINDOW, "Items that a session may have unanswered.")
    window_bytes: int = setting(64 * MiB, BYTES, "Payload bytes a session may have unanswered.")
    unread_bytes: int = setting(256 * MiB, BYTES, "Answers a session may leave unread, in bytes.")
    max_payload: int = setting(MAX_PAYLOAD, BYTES, "Largest input or output of one item, in bytes.")
    max_memory: int | None = setting(
        None,
        optional(BYTES, "auto"),
        "Memory in use beyond which the broker ends, with exit code 6; auto: half of the machine's "
        "or the control group's, and no more than four times max_bytes.",
    )
    tenants: str | None = setting(
        None,
        optional(TEXT, "none"),
        "TOML file with a table [tenants.NAME] for each tenant; read again when it changes.",
    )
    routes: str | None = setting(
        None,
        optional(TEXT, "none"),
        "TOML file with a table [routes.MODEL] for each model whose versions share its items, or "
        "for another name of one; read again when it changes.",
    )
    heartbeat: float = setting(HEARTBEAT, SECONDS, "Seconds between heartbeats.")
    heartbeat_timeout: float = setting(SILENCE, SECONDS, "Seconds of silence until a peer is lost.")
    resume_grace: float = setting(
        2.0, SECONDS, "Seconds that a lost client's items are kept for its return."
    )
    model_grace: float = setting(
        3.0, SECONDS, "Seconds after the start before an unknown model is refused."
    )
    drain_grace: float = setting(
        30.0, SECONDS, "Seconds that running work may take after a request to stop."
    )
    scale_latency: float | None = setting(
        None,
        optional(SECONDS, "auto"),
        "Seconds in which items are to be answered, for zstreamer_wanted_workers; auto: the time "
        "of four full batches, at least half a second.",
    )
    log_level: str = setting("info", LOG_LEVEL, "Lowest level that is logged.")
    log_format: str = setting(
        "text", LOG_FORMAT, "What a line of the log is: text, or a JSON object."
    )

    @property
    def client_endpoint(self) -> str:
        """The ZeroMQ endpoint to bind for clients."""
        return self.client_address or self._at(self.port)

    @property
    def worker_endpoint(self) -> str:
        """The ZeroMQ endpoint to bind for workers."""
        return self.worker_address or self._at(self.worker_port)

    def _at(self, port: int) -> str:
        return f"tcp://[{self.host}]:{port}" if ":" in self.host else f"tcp://{self.host}:{port}"

    def _check(self) -> None:
        check_heartbeat(self.heartbeat, self.heartbeat_timeout)
        for endpoint in (self.client_endpoint, self.worker_endpoint, self._at(self.http_port)):
            if not (self.insecure or self.keys or stays_on_machine(endpoint)):
                raise ConfigError(
                    f"refusing to bind {endpoint}: it is reachable from other machines and "
                    "anyone who reaches it may use it; bind 127.0.0.1, or ask for keys "
                    "(`zstreamer keys init`, then --keys FOLDER), or add --insecure where the "
                    "network keeps strangers out"
                )
