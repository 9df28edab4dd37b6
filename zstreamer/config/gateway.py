"""What a gateway can be told, and what `zstreamer up` can be told of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zstreamer.config.address import addresses
from zstreamer.config.base import Config
from zstreamer.config.defaults import (
    API_KEYS_HELP,
    CLIENTS_ADDRESS,
    CONNECT_TIMEOUT,
    KEYS,
    KEYS_HELP,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_BODY,
    MAX_REQUEST_ITEMS,
    MAX_TIMEOUT,
    TIMEOUT,
    TRACING_HELP,
)
from zstreamer.setting import (
    ANY_TEXT,
    BYTES,
    COUNT,
    INDEX,
    NAMES,
    PORT,
    PORT_OR_NONE,
    SECONDS,
    TEXT,
    ConfigError,
    choice,
    optional,
    setting,
)


@dataclass(frozen=True, slots=True)
class GatewayConfig(Config):
    """What `zstreamer gateway` can be told."""

    program: ClassVar[str] = "gateway"

    broker: tuple[str, ...] = setting(
        (CLIENTS_ADDRESS,), NAMES, "Client addresses of the brokers, separated by commas."
    )
    keys: str | None = setting(None, KEYS, KEYS_HELP)
    host: str = setting("127.0.0.1", TEXT, "Address to bind; 0.0.0.0 for all.")
    port: int = setting(8000, PORT, "TCP port for HTTP requests.")
    processes: int = setting(1, COUNT, "Processes that share the port.")
    api_keys: str | None = setting(None, KEYS, API_KEYS_HELP)
    open: tuple[str, ...] = setting(
        ("/healthz", "/v2/health/live"),
        NAMES,
        "Pages that need no token, separated by commas, such as /healthz,/readyz,/metrics.",
    )
    tenant_header: str | None = setting(
        None,
        optional(TEXT, "none"),
        "Header that names the tenant of a request without a token, or with one of the tenant *; "
        "whoever may send it may choose, so let a proxy set it.",
    )
    probe_port: int = setting(
        0,
        PORT_OR_NONE,
        "A second port, without TLS and tokens, for the pages of --open, which then need a token "
        "on the first; 0 for none.",
    )
    certificate: str | None = setting(
        None, optional(TEXT, "none"), "TLS certificate, with its chain (PEM); none: no TLS."
    )
    private_key: str | None = setting(
        None, optional(TEXT, "none"), "Private key of the certificate (PEM)."
    )
    tls_minimum: str = setting("1.2", choice("1.2", "1.3"), "Oldest version of TLS that is spoken.")
    client_ca: str | None = setting(
        None,
        optional(TEXT, "none"),
        "Certificates (PEM) of which one must have signed a caller's own; none: they need none.",
    )
    model: str = setting(
        "default", TEXT, "Model that /stream calls; its warm workers make the gateway ready."
    )
    timeout: float = setting(
        TIMEOUT, SECONDS, "Seconds that a request may take, unless it says otherwise."
    )
    max_timeout: float = setting(MAX_TIMEOUT, SECONDS, "Most seconds that a request may ask for.")
    connect_timeout: float = setting(CONNECT_TIMEOUT, SECONDS, "Seconds to reach the broker.")
    max_body: int = setting(MAX_BODY, BYTES, "Largest body of a request, in bytes.")
    request_items: int = setting(MAX_REQUEST_ITEMS, COUNT, "Most items of one request.")
    read_timeout: float = setting(
        30.0, SECONDS, "Seconds in which a request must arrive; large bodies get more."
    )
    keep_alive: float = setting(75.0, SECONDS, "Seconds that an idle connection is kept.")
    backlog: int = setting(2048, COUNT, "Connections that may wait to be accepted.")
    drain_grace: float = setting(
        30.0, SECONDS, "Seconds that open requests may take after a request to stop."
    )
    tracing: str = setting("", ANY_TEXT, TRACING_HELP)
    log_level: str = setting("info", LOG_LEVEL, "Lowest level that is logged.")
    log_format: str = setting(
        "text", LOG_FORMAT, "What a line of the log is: text, or a JSON object."
    )

    @property
    def address(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _check(self) -> None:
        addresses(self.broker, "broker")
        if (self.certificate is None) is not (self.private_key is None):
            raise ConfigError("TLS needs both: give --certificate and --private-key")
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError("client_ca needs TLS: give --certificate and --private-key too")
        if not 0 < self.timeout <= self.max_timeout:
            raise ConfigError(
                f"timeout is {self.timeout:g} s and max_timeout {self.max_timeout:g} s: "
                "give a timeout above 0 and no longer than max_timeout"
            )


@dataclass(frozen=True, slots=True)
class GatewayChildConfig(GatewayConfig):
    """What one process of the gateway is told by it; no person sets these."""

    program: ClassVar[str] = "gateway-child"

    listener: int = setting(0, INDEX, "File descriptor of its listening socket.")
    probe_listener: int = setting(0, INDEX, "The same of the port for probes; 0 for none.")


@dataclass(frozen=True, slots=True)
class UpConfig(Config):
    """What `zstreamer up` can be told besides what broker and worker can."""

    program: ClassVar[str] = "up"

    http: int = setting(
        0, PORT_OR_NONE, "Port on which a gateway serves the model over HTTP; 0 for none."
    )
    http_host: str = setting("127.0.0.1", TEXT, "Address that the gateway binds.")
    http_processes: int = setting(1, COUNT, "The gateway's processes.")
