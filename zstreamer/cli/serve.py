"""The commands that serve until they are stopped: broker, worker and up."""

from __future__ import annotations

import select
from dataclasses import replace
from pathlib import Path
from typing import Final

import rich_click as click

from zstreamer import logs
from zstreamer.config import BrokerConfig, WorkerConfig
from zstreamer.process import Process, read_config
from zstreamer.setting import ConfigError
from zstreamer.signals import StopRequests

from .options import PLAIN, configured, example

GLANCE: Final = 0.2
"""Seconds between two looks at whether broker and workers are alive."""


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer broker",
        "zstreamer broker --host 0.0.0.0 --insecure",
        "zstreamer broker --client-address ipc:///run/zstreamer/clients",
    ),
)
@configured(BrokerConfig)
def broker(config: BrokerConfig) -> int:
    """Run the broker between clients and workers.

    It binds loopback only, unless --insecure is given. Ctrl-C drains it; a second one ends it.
    """
    from broker import server

    logs.start(config.log_level)
    return server.run(config)


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer worker bert_model:ManagedBertModel --num 2",
        "zstreamer worker bert_model:ManagedBertModel --broker tcp://10.0.0.5:7788 "
        "--model bert --num 8 --devices 0,1,2,3 --batch-size 64",
    ),
)
@configured(WorkerConfig)
def worker(config: WorkerConfig) -> int:
    """Run workers that serve one model.

    MODULE:NAME is a ManagedModel class, or a function from a list of inputs to a list of outputs;
    the current folder is on its import path. Ctrl-C drains; a second one ends at once.
    """
    config = _with_current_folder(config)
    from zstreamer.worker import supervisor

    logs.start(config.log_level)
    return supervisor.run(config)


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer up bert_model:ManagedBertModel --num 2",
        "zstreamer up bert_model:ManagedBertModel --devices 0,1 --num 4 --port 9000",
    ),
)
@configured(BrokerConfig, WorkerConfig, without=("broker",))
def up(broker_config: BrokerConfig, worker_config: WorkerConfig) -> int:
    """Run a broker and workers on this machine.

    Options are those of both. Ctrl-C stops the workers, then the broker; a second one ends both.
    """
    address = _reachable(broker_config.worker_endpoint)
    worker_config = _with_current_folder(replace(worker_config, broker=(address,)))
    click.echo(f"clients connect to {_reachable(broker_config.client_endpoint)}", err=True)
    with (
        StopRequests() as stop,
        Process("broker", broker_config) as broker,
        Process("zstreamer", worker_config) as workers,
    ):
        return _until_stopped(stop, workers, broker)


def run_owned_broker() -> int:
    """Run the broker as the child of another process, with that one's configuration."""
    from broker import server

    config, owner = read_config(BrokerConfig)
    logs.start(config.log_level)
    return server.run(config, owner)


def run_owned_worker() -> int:
    """Run the workers as children of another process, with that one's configuration."""
    from zstreamer.worker import supervisor

    config, owner = read_config(WorkerConfig)
    logs.start(config.log_level)
    return supervisor.run(config, owner)


def _until_stopped(stop: StopRequests, *processes: Process) -> int:
    """Wait for a request to stop, or for a process to end by itself; then end them in turn."""
    while not stop.requests and all(each.poll() is None for each in processes):
        select.select([stop], [], [], GLANCE)
    codes = [code for each in processes if (code := each.poll()) is not None]
    codes += [_drained(each, stop) for each in processes if each.poll() is None]
    return next((code for code in codes if code), 0)


def _drained(process: Process, stop: StopRequests) -> int:
    """The exit code of a process that is asked to end, at once after a second request."""
    process.terminate()
    while (code := process.wait(GLANCE)) is None:
        if stop.requests > 1:
            process.terminate()
    return code


def _with_current_folder(config: WorkerConfig) -> WorkerConfig:
    if not config.target:
        raise ConfigError(
            "no model given: name it as MODULE:NAME, such as bert_model:ManagedBertModel"
        )
    return replace(config, import_path=(*config.import_path, str(Path.cwd())))


def _reachable(endpoint: str) -> str:
    """The address that reaches a bound endpoint from this machine."""
    for every in ("://0.0.0.0:", "://*:"):
        endpoint = endpoint.replace(every, "://127.0.0.1:")
    return endpoint.replace("://[::]:", "://[::1]:")
