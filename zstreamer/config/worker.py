"""What a worker can be told, and what its supervisor adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zstreamer.config.address import addresses
from zstreamer.config.base import Config, check_heartbeat
from zstreamer.config.defaults import (
    API_KEYS_HELP,
    HEARTBEAT,
    KEYS,
    KEYS_HELP,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_PAYLOAD,
    SILENCE,
    TRACING_HELP,
    WORKERS_ADDRESS,
)
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
    PORT_OR_NONE,
    SECONDS,
    SWITCH,
    TARGET,
    TEXT,
    VERSION_NAME,
    ConfigError,
    optional,
    setting,
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
        check_heartbeat(self.heartbeat, self.heartbeat_timeout)
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
