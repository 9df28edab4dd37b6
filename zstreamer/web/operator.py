"""Orders of a server's callers to load and unload models, passed on to the brokers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from zstreamer.client import operator
from zstreamer.config import stays_on_machine
from zstreamer.errors import (
    BadRequest,
    BrokerUnreachable,
    ModelNotFound,
    NoWorker,
    Unauthorized,
    ZStreamerError,
)

log = logging.getLogger(__name__)

_ERRORS: Mapping[int, type[ZStreamerError]] = {
    400: BadRequest,
    403: Unauthorized,
    404: ModelNotFound,
    503: NoWorker,
}


class Operator:
    """Gives the orders; each call blocks for as long as the brokers take to say yes or no.

    Args:
        urls: the brokers' HTTP ports.
        token: of an operator; empty where no orders are taken.

    Raises:
        ConfigError: one of the URLs is none of a broker.
    """

    def __init__(self, urls: Iterable[str], token: str) -> None:
        self._urls = tuple(urls)
        self._token = token
        for url in self._urls if token else ():
            scheme, host, port = operator.place(url)
            if scheme == "http" and not stays_on_machine(f"tcp://{host}:{port}"):
                log.warning("the operator's token goes in clear text to %s", url)

    def give(self, action: str, name: str) -> dict[str, object]:
        """Give an order to each broker, and return what those say that have taken it.

        Returns:
            ``models``, the names that it is about, ``orders``: how many orders each host has
            taken so far, this one included, ``refused``: why other hosts do not do it, and
            ``silent``: why other brokers have not taken it.

        Raises:
            ZStreamerError: no broker has taken it.
        """
        models: dict[str, None] = {}
        orders: dict[str, object] = {}
        refused: dict[str, None] = {}
        troubles: list[ZStreamerError] = []
        for url in self._urls:
            try:
                status, said = operator.order(url, self._token, action, name)
            except BrokerUnreachable as error:
                troubles.append(error)
                continue
            taken = said.get("orders")
            if status == 200 and isinstance(taken, dict):
                named = said.get("models")
                models.update(dict.fromkeys(map(str, named if isinstance(named, list) else ())))
                orders.update(taken)
                why = said.get("refused")
                refused.update(dict.fromkeys(map(str, why if isinstance(why, list) else ())))
            else:
                troubles.append(_trouble(url, action, status, str(said.get("error", ""))))
        if orders or not troubles:
            # A broker whose hosts do not know the model has nothing to do.
            silent = [str(each) for each in troubles if not isinstance(each, ModelNotFound)]
            taken = {"models": list(models), "orders": orders}
            return {**taken, "refused": list(refused), "silent": silent}
        # One whose hosts do not know the model says less than any other.
        raise min(troubles, key=lambda each: isinstance(each, ModelNotFound))


def _trouble(url: str, action: str, status: int, words: str) -> ZStreamerError:
    if status == 400 and "give an action" in words:
        words = f"the broker at {url} is of a release that cannot {action} models: upgrade it"
        return NoWorker(words, final=True)
    kind = _ERRORS.get(status, NoWorker)
    return kind(words or f"the broker at {url} answers with status {status}")


NOBODY = Operator((), "")
"""Of a server that takes no orders: its interface refuses them all."""
