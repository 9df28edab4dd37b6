"""What each program can be told: one frozen dataclass a program, and the one table of defaults.

A value comes from the flag, else the ZSTREAMER_* variable, else the TOML file, else the default
(`zstreamer.sources`). The file has a table for each program ([broker], [worker], [client]) with the
fields' names as keys.

`defaults` is the table. `broker`, `worker`, `client` and `gateway` have the settings of these
programs, on the class in `base`. `address` is the rule for addresses.
"""

from zstreamer.config.address import addresses, is_looked_up, stays_on_machine
from zstreamer.config.base import Config, check_heartbeat, from_json, to_json
from zstreamer.config.broker import BrokerConfig
from zstreamer.config.client import ClientConfig, MapConfig, OperatorConfig
from zstreamer.config.defaults import (
    CLIENTS_ADDRESS,
    CONNECT_TIMEOUT,
    HEARTBEAT,
    JOB_PATIENCE,
    JOB_PRIORITY,
    JOB_TIMEOUT,
    MAX_BODY,
    MAX_PAYLOAD,
    MAX_REQUEST_ITEMS,
    MAX_TIMEOUT,
    SILENCE,
    TIMEOUT,
    WORKERS_ADDRESS,
    GiB,
    MiB,
)
from zstreamer.config.gateway import GatewayChildConfig, GatewayConfig, UpConfig
from zstreamer.config.worker import AgentConfig, WorkerConfig
from zstreamer.setting import ConfigError

__all__ = [
    "CLIENTS_ADDRESS",
    "CONNECT_TIMEOUT",
    "HEARTBEAT",
    "JOB_PATIENCE",
    "JOB_PRIORITY",
    "JOB_TIMEOUT",
    "MAX_BODY",
    "MAX_PAYLOAD",
    "MAX_REQUEST_ITEMS",
    "MAX_TIMEOUT",
    "SILENCE",
    "TIMEOUT",
    "WORKERS_ADDRESS",
    "AgentConfig",
    "BrokerConfig",
    "ClientConfig",
    "Config",
    "ConfigError",
    "GatewayChildConfig",
    "GatewayConfig",
    "GiB",
    "MapConfig",
    "MiB",
    "OperatorConfig",
    "UpConfig",
    "WorkerConfig",
    "addresses",
    "check_heartbeat",
    "from_json",
    "is_looked_up",
    "stays_on_machine",
    "to_json",
]
