"""TLS of the gateway: contexts made of files, and made again when these change."""

from __future__ import annotations

import ssl
from pathlib import Path

from zstreamer.config import GatewayConfig
from zstreamer.keys.files import Stamp, stamp_or_none
from zstreamer.setting import ConfigError

HANDSHAKE = 10.0
"""Seconds that a caller's handshake may take."""

_MINIMA = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Certificates:
    """The files of one gateway's TLS.

    Args:
        config: names them; `certificate` and `private_key` are given.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._certificate = config.certificate or ""
        self._key = config.private_key or ""
        self._ca = config.client_ca
        self._minimum = _MINIMA[config.tls_minimum]
        self._seen = self._stamps()

    def context(self) -> ssl.SSLContext:
        """Return a context of the files as they are now.

        Raises:
            ConfigError: one cannot be read, or they do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"certificate {self._certificate} and private key {self._key} cannot be used: "
                f"{_words(error)}"
            ) from None
        if self._ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._ca)
            except (OSError, ValueError) as error:
                raise ConfigError(f"client_ca {self._ca} cannot be used: {_words(error)}") from None
        return context

    def changed(self) -> bool:
        """Whether a file has changed since this was last asked."""
        before, self._seen = self._seen, self._stamps()
        return before != self._seen

    def _stamps(self) -> list[Stamp | None]:
        paths = (self._certificate, self._key, *([self._ca] if self._ca else ()))
        return [stamp_or_none(Path(each)) for each in paths]


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
