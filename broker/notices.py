"""What clients are told of models: why items wait for one, and when it is ready again.

The caller must get its error on time, so the client keeps the deadline of each call. The broker
only says, by NOTICE, why items wait. A client that has other brokers takes back from here what may
go there.
"""

from __future__ import annotations

from collections.abc import Iterable

from zstreamer import errors
from zstreamer.broker.admission import draining
from zstreamer.broker.clients import ClientRecord
from zstreamer.broker.models import Model
from zstreamer.broker.scheduler import Scheduler
from zstreamer.wire import protocol

MAX_NOTICES = 1000
"""Models of which one client is told when their state changes."""


class Notices:
    """Tells clients of models; what each was told last is kept on its record while it is connected.

    Args:
        scheduler: has the models, and takes items back that go to other brokers.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def hello(self, client: ClientRecord) -> None:
        """A client has connected: tell it why its open items have to wait."""
        for model in {lot.asked: None for lot in client.items.values()}:
            if not model.warm:
                for name in self._scheduler.versions.names(model):
                    self.tell(client, name)

    def submitted(self, client: ClientRecord, name: str) -> None:
        """A client that knows nothing of this model has items for it, here or elsewhere."""
        model = self._scheduler.versions.find(name)
        if model is None or not model.warm:
            self.tell(client, name)

    def tell(self, client: ClientRecord, name: str) -> None:
        """Tell a client whether a model is ready, and again when that changes."""
        full = len(client.noticed) >= MAX_NOTICES or not 0 < len(name) <= protocol.MAX_NAME
        if full and name not in client.noticed:
            return
        model = self._scheduler.versions.find(name)
        words = model.state_in_words() if model else f"no worker serves model {name!r}"
        if words:
            client.noticed[name] = hash(words)
        else:
            client.noticed.pop(name, None)
        error = errors.NoWorker(words, final=model is not None and model.broken)
        client.tell(protocol.Notice(name, errors.to_wire(error) if words else []))
        self._scheduler.dirty[client] = None

    def hand_back(self, client: ClientRecord, name: str) -> None:
        """Another broker is ready for a model: what waits here without a worker goes there."""
        model = self._scheduler.versions.find(name)
        if model is not None and not model.warm:
            self._scheduler.hand_back(model, client, parked=True)

    def changed(self, model: Model, clients: Iterable[ClientRecord]) -> None:
        """A model's state may have changed: tell whom it concerns, and end what waits in vain."""
        if model.family is not None:  # what may go to another version is not to end here
            fronts = self._scheduler.versions.look([model.family])
            for each in dict.fromkeys([*fronts, model]):
                self._changed(each, clients)
        else:
            self._changed(model, clients)

    def _changed(self, model: Model, clients: Iterable[ClientRecord]) -> None:
        cold = not model.warm
        words = model.state_in_words()
        names = self._scheduler.versions.names(model)
        for client in clients:
            waits = cold and any(lot.asked is model for lot in client.items.values())
            for name in names:
                told = client.noticed.get(name)
                news = waits if told is None else hash(words) != told
                if client.session and news:
                    self.tell(client, name)
            if waits and not model.broken:
                self._scheduler.hand_back(model, client)
        if model.broken:
            error = errors.NoWorker(model.state_in_words(), final=True)
            self._scheduler.fail_waiting(model, error)

    def draining(self, client: ClientRecord) -> None:
        """Tell a client that nothing new is taken."""
        client.tell(protocol.Notice("", errors.to_wire(draining())))
        self._scheduler.dirty[client] = None
