"""What each program can be told: one frozen dataclass a program, and the one table of defaults.

A value comes from the flag, else the ZSTREAMER_* variable, else the TOML file, else the default.
The file has a table for each program ([broker], [worker], [client]) with the fields' names as keys.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from zstreamer.setting import (
    AMOUNT,
    ANY_TEXT,
    BYTES,
    COUNT,
    DEVICES,
    INDEX,
    JSON_LIST,
    JSON_OBJECT,
    NAMES,
    PORT,
    PORT_OR_NONE,
    SECONDS,
    SWITCH,
    TARGET,
    TEXT,
    VERSION_NAME,
    WINDOW,
    ConfigError,
    choice,
    optional,
    setting,
    settings,
    shown,
)

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


class Config:
    """What all programs' configurations share: every value is checked when one is made.

    Raises ConfigError for a value that its setting does not take.
    """

    __slots__ = ()
    program: ClassVar[str]

    def __post_init__(self) -> None:
        for each in settings(type(self)):
            value = getattr(self, each.name)
            try:
                object.__setattr__(self, each.name, each.kind.parse(value))
            except ValueError as error:
                where = f"{type(self).__name__}.{each.name}"
                raise ConfigError(f"{where} is {shown(value, 1000)}: {error}") from None
        self._check()

    def _check(self) -> None:
        """Refuse values that do not go together."""


C = TypeVar("C", bound=Config)


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
        _check_heartbeat(self)
        for endpoint in (self.client_endpoint, self.worker_endpoint, self._at(self.http_port)):
            if not (self.insecure or self.keys or stays_on_machine(endpoint)):
                raise ConfigError(
                    f"refusing to bind {endpoint}: it is reachable from other machines and "
                    "anyone who reaches it may use it; bind 127.0.0.1, or ask for keys "
                    "(`zstreamer keys init`, then --keys FOLDER), or add --insecure where the "
                    "network keeps strangers out"
                )


@dataclass(frozen=True, slots=True)
class WorkerConfig(Config):
    """What `zstreamer worker` can be told."""

    program: ClassVar[str] = "worker"

    target: str = setting(
        "",
        TARGET,
        "module:Class, module:function, or hf:NAME or hf:FOLDER for a model of the hub.",
        positional=True,
    )
    broker: tuple[str, ...] = setting(
        (WORKERS_ADDRESS,), NAMES, "Worker addresses of the brokers, separated by commas."
    )
    keys: str | None = setting(None, KEYS, KEYS_HELP)
    model: str = setting("default", TEXT, "Name that clients ask for.")
    version: str | None = setting(
        None,
        optional(VERSION_NAME, "none"),
        "Version of the model; the broker's routes say which version gets which items.",
    )
    num: int = setting(1, COUNT, "Worker processes.")
    devices: tuple[str, ...] = setting(
        (), DEVICES, "GPUs, dealt to the workers in turn as CUDA_VISIBLE_DEVICES; none: untouched."
    )
    batch_size: int = setting(32, COUNT, "Most items that one predict runs.")
    max_latency: float = setting(
        0.1,
        SECONDS,
        "Longest hold of a free model for callers who are about to return, in seconds; 0: greedy, "
        "a free model runs what is there.",
    )
    latency_target: float | None = setting(
        None,
        optional(SECONDS, "none"),
        "Seconds in which an item is to be answered at this worker: batches are kept so small "
        "that the one that runs and the item's own fit into it.",
    )
    predict_timeout: float | None = setting(
        None,
        optional(SECONDS, "auto"),
        "Seconds before a predict counts as hung; auto: its share of what the budgets of its items "
        "leave, 2 s to 30 s, but no less than 10 × its usual time.",
    )
    boot_attempts: int = setting(3, COUNT, "Starts in a row that may fail before giving up.")
    boot_timeout: float = setting(600.0, SECONDS, "Seconds that a model may take to start.")
    max_batch_cost: float | None = setting(
        None, optional(AMOUNT, "none"), "Most cost (as the model's cost() counts) in one batch."
    )
    init_args: tuple[object, ...] = setting((), JSON_LIST, "Arguments for init_model.")
    init_kwargs: dict[str, object] = setting({}, JSON_OBJECT, "Keyword arguments for init_model.")
    prepare_workers: int = setting(
        0,
        INDEX,
        "Processes that prepare for each worker, for a prepare() that is slow Python; 0: a thread "
        "of the model's process.",
    )
    import_path: tuple[str, ...] = setting(
        (), NAMES, "Folders that the model is imported from first, separated by commas."
    )
    task: str | None = setting(
        None,
        optional(TEXT, "auto"),
        "Task of an hf: model: embeddings, text-classification, token-classification, fill-mask, "
        "scores or image-classification; auto: as its own config says.",
    )
    trust_remote_code: bool = setting(
        False, SWITCH, "Run the Python code that an hf: model brings along."
    )
    drain_grace: float = setting(
        30.0, SECONDS, "Seconds that running work may take after a request to stop."
    )
    metrics_port: int = setting(
        0,
        PORT_OR_NONE,
        "Port of the first worker's pages /metrics, /healthz and /readyz (HTTP), and those that "
        "follow for the others; 0 for none.",
    )
    metrics_host: str = setting("127.0.0.1", TEXT, "Address that these pages bind.")
    api_keys: str | None = setting(None, KEYS, API_KEYS_HELP)
    max_payload: int = setting(MAX_PAYLOAD, BYTES, "Largest input or output of one item, in bytes.")
    heartbeat: float = setting(HEARTBEAT, SECONDS, "Seconds between heartbeats.")
    heartbeat_timeout: float = setting(SILENCE, SECONDS, "Seconds of silence until a peer is lost.")
    tracing: str = setting("", ANY_TEXT, TRACING_HELP)
    log_level: str = setting("info", LOG_LEVEL, "Lowest level that is logged.")
    log_format: str = setting(
        "text", LOG_FORMAT, "What a line of the log is: text, or a JSON object."
    )

    @property
    def served(self) -> str:
        """The name of what it serves: the model's, or MODEL@VERSION."""
        return f"{self.model}@{self.version}" if self.version else self.model

    def _check(self) -> None:
        _check_heartbeat(self)
        addresses(self.broker, "broker", 7788)
        if (self.task or self.trust_remote_code) and not self.target.startswith("hf:"):
            raise ConfigError("task and trust_remote_code are for hf: models only: leave them out")


@dataclass(frozen=True, slots=True)
class AgentConfig(WorkerConfig):
    """What one worker is told by its supervisor; no person sets these."""

    program: ClassVar[str] = "agent"

    number: int = setting(0, INDEX, "Which of its supervisor's workers it is, from 0.")
    others: int = setting(0, INDEX, "Workers of other tables that share the machine's cores.")
    device: str = setting("", ANY_TEXT, "CUDA_VISIBLE_DEVICES of its model; empty: untouched.")
    pickled: str = setting("", ANY_TEXT, "A model that came as an object, in place of a target.")
    fork_address: str = setting("", ANY_TEXT, "Where to have the model's process forked.")
    private: bool = setting(
        False, SWITCH, "Its broker is its owner's alone, on private sockets: items may be pickles."
    )

    def _check(self) -> None:
        # By its name: the class that a dataclass with slots replaces is another one.
        WorkerConfig._check(self)
        if self.private and not all(each.startswith("ipc://") for each in self.broker):
            raise ConfigError(f"private is set and a broker is on a network: {self.broker}")


@dataclass(frozen=True, slots=True)
class ClientConfig(Config):
    """What `zstreamer call` and `zstreamer status` can be told."""

    program: ClassVar[str] = "client"

    address: str = setting(
        CLIENTS_ADDRESS, TEXT, "Client address of the broker; separate several with commas."
    )
    keys: str | None = setting(None, KEYS, KEYS_HELP)
    model: str = setting("default", TEXT, "Name of the model to call.")
    timeout: float = setting(TIMEOUT, SECONDS, "Seconds that the whole call may take.")
    connect_timeout: float = setting(CONNECT_TIMEOUT, SECONDS, "Seconds to reach the broker.")

    def _check(self) -> None:
        addresses(self.address)


@dataclass(frozen=True, slots=True)
class MapConfig(Config):
    """What `zstreamer map` can be told besides what a client can."""

    program: ClassVar[str] = "map"

    timeout: float = setting(
        JOB_TIMEOUT, SECONDS, "Seconds that each item may take once it is submitted."
    )
    patience: float = setting(
        JOB_PATIENCE, SECONDS, "Seconds to wait for a broker and a worker that have gone."
    )
    chunk: int | None = setting(
        None, optional(COUNT, "auto"), "Items of one call; auto: fitted to the model's speed."
    )


@dataclass(frozen=True, slots=True)
class OperatorConfig(Config):
    """What `zstreamer drain`, `resume`, `route` and `roll` can be told."""

    program: ClassVar[str] = "operator"

    broker_url: tuple[str, ...] = setting(
        ("http://127.0.0.1:7789",), NAMES, "HTTP ports of the brokers, separated by commas."
    )
    operator_token: str = setting(
        "",
        ANY_TEXT,
        "The brokers' --operator-token; not needed on the machine of a broker that has neither a "
        "token nor keys.",
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


def addresses(
    given: str | Iterable[str], name: str = "address", port: int = 7787
) -> tuple[str, ...]:
    """Return the addresses to connect to, one by one; a text may hold several, with commas.

    name: what they are called where one is wrong.
    port: the one that a broker usually has for them.

    Raises ConfigError where there is none, or where a program could not connect to one.
    """
    listed = given.split(",") if isinstance(given, str) else given
    found = tuple(stripped for each in listed if (stripped := each.strip()))
    fix = f"give tcp://HOST:{port}, tcp+dns://NAME:{port}, file:/PATH or ipc://PATH"
    if not found:
        raise ConfigError(f"no {name} to connect to: {fix}")
    for each in found:
        match = re.fullmatch(r"tcp(?:\+dns)?://.+:(\d{1,5})|ipc://.+|file:/.+", each)
        if match is None or not 0 < int(match[1] or 1) < 65536:
            raise ConfigError(f"{name} {each!r} is not an address: {fix}")
    return found


def is_looked_up(address: str) -> bool:
    """Whether an address names brokers that may change: a DNS name, or files."""
    return address.startswith(("tcp+dns:", "file:"))


def _check_heartbeat(config: BrokerConfig | WorkerConfig) -> None:
    if not 0 < config.heartbeat < config.heartbeat_timeout:
        raise ConfigError(
            f"heartbeat is {config.heartbeat:g} s and heartbeat_timeout "
            f"{config.heartbeat_timeout:g} s: the timeout must be the longer, best four times"
        )


def stays_on_machine(endpoint: str) -> bool:
    """Whether only programs of this machine can reach a ZeroMQ endpoint once it is bound."""
    scheme, _, place = endpoint.partition("://")
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = re.sub(r":(\d+|\*)$", "", place).strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def to_json(config: Config) -> str:
    """A configuration as one line of JSON that `from_json` turns into an equal one.

    Raises ConfigError for arguments of the model that JSON cannot carry.
    """
    values = {each.name: getattr(config, each.name) for each in settings(type(config))}
    try:
        text = json.dumps(values)
        if from_json(type(config), text) == config:
            return text
        reason = "JSON would change them"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise ConfigError(
        f"init_args and init_kwargs must be plain JSON values ({reason}): use lists, "
        "dictionaries with text keys, text, numbers, true, false and null"
    )


def from_json(program: type[C], text: str) -> C:
    """The configuration that `to_json` wrote. Raises ConfigError where a value is unusable."""
    return program(**json.loads(text))
