"""The commands that serve until they are stopped: broker, worker and up."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import rich_click as click
from click import get_current_context

from zstreamer.cli.beside import beside
from zstreamer.cli.hub import found
from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.config import BrokerConfig, GatewayConfig, UpConfig, WorkerConfig
from zstreamer.keys.credentials import given
from zstreamer.keys.reader import Reader
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError
from zstreamer.sources import resolve
from zstreamer.system import logs
from zstreamer.system.exitcodes import of_child
from zstreamer.system.process import Process
from zstreamer.system.signals import StopRequests
from zstreamer.system.slots import GLANCE, until_stopped


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer broker",
        "zstreamer broker --host 0.0.0.0 --keys keys",
        "zstreamer broker --host 10.0.0.5 --insecure",
        "zstreamer broker --client-address ipc:///run/zstreamer/clients",
    ),
)
@configured(BrokerConfig)
def broker(config: BrokerConfig) -> int:
    """Run the broker between clients and workers.

    Beyond loopback it asks for keys, unless --insecure is given. Ctrl-C drains it; a second one
    ends it.
    """
    from zstreamer.broker import server

    logs.start(config.log_level, config.log_format)
    return server.run(config)


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer worker bert_model:ManagedBertModel --num 2",
        "zstreamer worker hf:sentence-transformers/all-MiniLM-L6-v2 --model minilm",
        "zstreamer worker bert_model:ManagedBertModel --broker tcp://10.0.0.5:7788 "
        "--model bert --num 8 --devices 0,1,2,3 --batch-size 64",
    ),
)
@configured(WorkerConfig)
def worker(config: WorkerConfig) -> int:
    """Run workers that serve one model.

    MODULE:NAME is a ManagedModel class, or a function from a list of inputs to a list of outputs;
    the current folder is on its import path. hf:MODEL is a model of the Hugging Face hub, or a
    folder that holds one. Ctrl-C drains; a second one ends at once.
    """
    logs.start(config.log_level, config.log_format)
    config = _with_current_folder(config)
    given(config.keys or "", Role.WORKER)
    from zstreamer.worker import supervisor

    return supervisor.run(config)


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer up bert_model:ManagedBertModel --num 2",
        "zstreamer up bert_model:ManagedBertModel --http 8000",
        "zstreamer up hf:sentence-transformers/all-MiniLM-L6-v2 --http 8000",
        "zstreamer up bert_model:ManagedBertModel --devices 0,1 --num 4 --port 9000",
        "zstreamer up -c cluster.toml",
    ),
)
@configured(BrokerConfig, WorkerConfig, UpConfig, without=("broker",), several=WorkerConfig)
def up(broker_config: BrokerConfig, worker_configs: list[WorkerConfig], config: UpConfig) -> int:
    """Run a broker, workers and, if wanted, a gateway on this machine.

    Options are those of broker and worker. For several models give a file with a worker table for
    each; options then hold for all of them. --http PORT starts a gateway that serves them over HTTP
    there (--http-port is for the broker's own status pages). Ctrl-C stops the gateway, then the
    workers, then the broker; a second one ends them at once.
    """
    logs.start(worker_configs[0].log_level)
    address = _reachable(broker_config.worker_endpoint)
    _check_apart(worker_configs)
    worker_configs = [
        _with_current_folder(replace(each, broker=(address,))) for each in worker_configs
    ]
    agent_configs = beside(worker_configs)
    if broker_config.keys:
        Reader(broker_config.keys)
        given(broker_config.keys, Role.WORKER)
    clients = _reachable(broker_config.client_endpoint)
    gateway_config = _gateway(config, clients, worker_configs[0]) if config.http else None
    click.echo(f"clients connect to {clients}", err=True)
    with StopRequests() as stop, ExitStack() as stack:
        started = [stack.enter_context(Process("zstreamer.broker", broker_config))]
        started += [
            stack.enter_context(Process("zstreamer.worker.supervisor", each))
            for each in agent_configs
        ]
        if gateway_config is not None:
            started.append(
                stack.enter_context(Process("zstreamer.web.gateway.parent", gateway_config))
            )
        return _until_stopped(stop, *reversed(started))


def _check_apart(configs: list[WorkerConfig]) -> None:
    """Refuse what must be a mistake: two tables that serve one name in one version differently."""
    seen: dict[tuple[str, str | None], str] = {}
    for config in configs:
        target = seen.setdefault((config.model, config.version), config.target)
        if target != config.target:
            raise ConfigError(
                f"two [[worker]] tables serve model {config.model!r}, one by {target}, one by "
                f"{config.target}: give each a model, or a version, of its own"
            )


def _gateway(config: UpConfig, broker: str, worker_config: WorkerConfig) -> GatewayConfig:
    """The gateway of `up`: its own settings come from variables and the file."""
    from zstreamer.web.gateway.parent import check_installed

    check_installed()
    flags: dict[str, object] = {
        "broker": broker,
        "keys": worker_config.keys,
        "host": config.http_host,
        "port": config.http,
        "processes": config.http_processes,
        "model": worker_config.model,
        "log_level": worker_config.log_level,
        "log_format": worker_config.log_format,
        "tracing": worker_config.tracing,
    }
    return resolve(GatewayConfig, flags, file=get_current_context().params.get("config"))


def _until_stopped(stop: StopRequests, *processes: Process) -> int:
    """Wait for a request to stop, or for a process to end by itself; then end them in turn."""
    until_stopped(stop, None, lambda: all(each.poll() is None for each in processes))
    codes = [of_child(code) for each in processes if (code := each.poll()) is not None]
    codes += [_drained(each, stop) for each in processes if each.poll() is None]
    return next((code for code in codes if code), 0)


def _drained(process: Process, stop: StopRequests) -> int:
    """The exit code of a process that is asked to end, at once after a second request."""
    process.terminate()
    while (code := process.wait(GLANCE)) is None:
        if stop.requests > 1:
            process.terminate()
    return of_child(code, stopped=True)


def _with_current_folder(config: WorkerConfig) -> WorkerConfig:
    if not config.target:
        raise ConfigError(
            "no model given: name it as MODULE:NAME, such as bert_model:ManagedBertModel, or as "
            "hf:NAME for a model of the hub"
        )
    config = found(config)
    return replace(config, import_path=(*config.import_path, str(Path.cwd())))


def _reachable(endpoint: str) -> str:
    """The address that reaches a bound endpoint from this machine."""
    for every in ("://0.0.0.0:", "://*:"):
        endpoint = endpoint.replace(every, "://127.0.0.1:")
    return endpoint.replace("://[::]:", "://[::1]:")
