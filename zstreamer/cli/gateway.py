"""`zstreamer gateway`: serves the models of a cluster over HTTP until it is stopped."""

from __future__ import annotations

import rich_click as click

from zstreamer.cli.options import PLAIN, configured, example
from zstreamer.config import GatewayConfig
from zstreamer.system import logs


@click.command(
    **PLAIN,
    epilog=example(
        "zstreamer gateway --broker tcp://10.0.0.5:7787",
        "zstreamer gateway --host 0.0.0.0 --port 80 --processes 4",
        "zstreamer gateway --host 0.0.0.0 --port 443 --api-keys keys "
        "--certificate cert.pem --private-key key.pem",
    ),
)
@configured(GatewayConfig)
def gateway(config: GatewayConfig) -> int:
    """Serve the models of a cluster over HTTP.

    The page at / describes its routes. It binds loopback unless --host says otherwise. It checks
    and limits requests. --api-keys asks callers for bearer tokens, --certificate is for TLS.
    Ctrl-C drains it; a second one ends it.
    """
    from zstreamer.web.gateway import parent as server

    server.check_installed()
    logs.start(config.log_level)
    return server.run(config)
