"""What the commands can be told that call a cluster or give its brokers orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zstreamer.config.address import addresses
from zstreamer.config.base import Config
from zstreamer.config.defaults import (
    CLIENTS_ADDRESS,
    CONNECT_TIMEOUT,
    JOB_PATIENCE,
    JOB_TIMEOUT,
    KEYS,
    KEYS_HELP,
    TIMEOUT,
)
from zstreamer.setting import ANY_TEXT, COUNT, NAMES, SECONDS, TEXT, optional, setting


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
