"""A model of a cluster, as something to call."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence

from zstreamer.bench.load import CallFailed
from zstreamer.client.aio import AsyncClient
from zstreamer.client.status import fetch
from zstreamer.config import addresses
from zstreamer.errors import ZStreamerError
from zstreamer.keys import credentials
from zstreamer.keys.ring import Role
from zstreamer.setting import ConfigError

PATIENCE = 5.0
"""Seconds that a broker may take to say what it knows of a model."""


class Cluster:
    """Calls a model with items in turn.

    Args:
        client: is closed by its owner.
        items: what is sent, again and again.
        per_call: items of one call.
        timeout: seconds that a call may take.
    """

    def __init__(
        self, client: AsyncClient, items: Sequence[object], per_call: int, timeout: float
    ) -> None:
        self._client = client
        self._next = itertools.cycle(items)
        self._per_call = per_call
        self._timeout = timeout

    async def call(self) -> None:
        """See `Target`."""
        items = list(itertools.islice(self._next, self._per_call))
        try:
            await self._client.predict(items, timeout=self._timeout)
        except ZStreamerError as error:
            raise CallFailed(error.kind) from error


def example_of(address: str, model: str, keys: credentials.Keys) -> list[object]:
    """Return the item that a model gives as its own example.

    Raises:
        ConfigError: it gives none; the message says what is known of its inputs.
        ZStreamerError: no broker answers.
    """
    first = addresses(address)[0]
    found = fetch(first, PATIENCE, credentials.given(keys, Role.CLIENT))
    models = found.get("models")
    known = models.get(model) if isinstance(models, Mapping) else None
    said = known if isinstance(known, Mapping) else {}
    text = said.get("example")
    if isinstance(text, str) and text:
        return [decoded(json.loads(text))]
    words = f"model {model!r} declares no example: give an item, or --json and --file"
    if inputs := said.get("inputs"):
        words += f"; its inputs are {json.dumps(inputs, ensure_ascii=False):.300}"
    raise ConfigError(words)


def decoded(item: object) -> object:
    """Return an item as the model takes it: ``{"b64": …}`` stands for bytes, as over HTTP."""
    if isinstance(item, dict) and item.keys() == {"b64"}:
        return base64.b64decode(item["b64"])
    return item
