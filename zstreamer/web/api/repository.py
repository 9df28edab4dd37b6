"""The model repository extension of the Open Inference Protocol: index, load and unload.

    POST /v2/repository/index                   all models: READY, LOADING or UNAVAILABLE, and why
    POST /v2/repository/models/{model}/load     answers once a worker is warm, or says why not
    POST /v2/repository/models/{model}/unload   answers once its workers have ended

Hosts that have a folder of models (`zstreamer worker --repository`) do it, told through the broker.
Here the order is passed on, and the brokers' snapshots are watched until it is done. Whoever gives
one must have the operator's token.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from zstreamer.errors import BadRequest
from zstreamer.setting import VERSION, VERSION_WORDS, version_order
from zstreamer.web.api import bodies, options, v1, versions
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.guard import REALM
from zstreamer.web.api.json import dumps, loads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Request, Response, Step
from zstreamer.web.api.watch import Hosted, Seen, Taken, Watch
from zstreamer.wire.offers import LoadState, full_name

if TYPE_CHECKING:
    from zstreamer.web.api.exchange import Exchange

ROOT = "/v2/repository/"
_MODELS = "models/"

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"

PAUSE = 0.2
"""Seconds between two looks at what has become of an order, and what the index may be old."""

_HEADERS = [("content-type", JSON)]


class Row(NamedTuple):
    """A model, or a version of one, in the index; the version is empty where it has none."""

    name: str
    version: str
    state: str
    reason: str = ""

    def words(self) -> dict[str, object]:
        """Return it as the answers have it."""
        return {**self._asdict(), "version": self.version or versions.ONLY}


class Repository:
    """Answers the requests below `ROOT`.

    Args:
        limits: what one request may ask for.
        token: what those must send who load and unload models; empty where nobody may.
    """

    def __init__(self, limits: Limits, token: str) -> None:
        self._limits = limits
        self._token = token

    def lets_in(self, request: Request) -> bool:
        """Whether a request is one of an operator, who needs no other token."""
        return request.path.startswith(ROOT) and self._is_operator(request)

    def begin(self, exchange: Exchange, request: Request) -> Step:
        """Return the first step of a POST below `ROOT`."""
        exchange.route = "v2_repository"
        rest = request.path[len(ROOT) :]
        if rest == "index":
            return self._index(exchange, request)
        name, _, action = rest.removeprefix(_MODELS).rpartition("/")
        if not rest.startswith(_MODELS) or action not in ("load", "unload"):
            pages = f"{ROOT}index and {ROOT}models/MODEL/load or /unload"
            raise Refused(404, f"no page {request.path[:100]!r}; the pages are {pages}")
        self._check_operator(request)
        _check_body(request, self._limits)
        asked = versions.split(name)
        v1.checked(asked.model)
        if asked.version and not VERSION.fullmatch(asked.version):
            raise BadRequest(f"the version in the path is none: give {VERSION_WORDS}")
        seconds = options.of(request, self._limits)[0]
        if request.header("x-request-timeout") is None:
            seconds = self._limits.max_timeout
        end = time.monotonic() + seconds

        def then(said: Mapping[str, object]) -> Step:
            return _follow(exchange, asked.model, _taken(action, said), end)

        return exchange.order(action, full_name(*asked), then)

    def _index(self, exchange: Exchange, request: Request) -> Step:
        asked = _object(request, self._limits)
        ready = asked.get("ready", False)
        if not isinstance(ready, bool):
            raise BadRequest(f"ready must be true or false, not {ready!r:.50}")

        def then(snapshot: Snapshot) -> Response:
            found = [each.words() for each in rows(snapshot) if each.state == READY or not ready]
            return Response(200, dumps(found), _HEADERS)

        return exchange.look(then, PAUSE)

    def _is_operator(self, request: Request) -> bool:
        given = (request.header("authorization") or "").encode(errors="replace")
        return bool(self._token) and hmac.compare_digest(given, f"Bearer {self._token}".encode())

    def _check_operator(self, request: Request) -> None:
        if not self._token:
            words = "models are not loaded and unloaded here: this takes --operator-token"
            raise Refused(403, words)
        if not self._is_operator(request):
            words = "loading and unloading take the operator's token: Authorization: Bearer TOKEN"
            raise Refused(401, words, [REALM])


def _object(request: Request, limits: Limits) -> Mapping[str, object]:
    body = bodies.plain(request, limits)
    value = loads(body, limits.max_nesting) if body.strip() else {}
    if not isinstance(value, Mapping):
        raise BadRequest(f"the body must be an object or empty, not {value!r:.50}")
    return value


def _check_body(request: Request, limits: Limits) -> None:
    """Raise where a body asks for what is not supported, rather than do something else."""
    asked = _object(request, limits).get("parameters") or {}
    if not isinstance(asked, Mapping):
        raise BadRequest(f"parameters must be an object, not {asked!r:.50}")
    for name, value in asked.items():
        if name != "unload_dependents" or value is not False:
            raise Refused(
                501,
                f"parameters.{name:.50} is not supported: a model is loaded as its folder has it",
            )


def _follow(exchange: Exchange, name: str, taken: Taken, end: float) -> Step:
    """Look again and again until hosts have done what they were told."""
    watch = Watch(taken, time.monotonic(), end)

    def again(snapshot: Snapshot | None) -> Step:
        seen = None if snapshot is None else _seen(snapshot)
        if not watch.look(time.monotonic(), seen) or snapshot is None:
            return exchange.look(again, PAUSE, PAUSE, lambda: again(None))
        named = [row for row in rows(snapshot) if full_name(row.name, row.version) in taken.models]
        words: dict[str, object] = {"name": name, "models": [each.words() for each in named]}
        if left := [*taken.refused, *taken.silent]:
            words["refused"] = left
        return Response(200, dumps(words), _HEADERS)

    return exchange.look(again, PAUSE, PAUSE, lambda: again(None))


def _taken(action: str, said: Mapping[str, object]) -> Taken:
    """Return what brokers say of an order; read with care, since it came over a network."""
    orders = said.get("orders")
    counts = orders if isinstance(orders, Mapping) else {}
    models, refused, silent = (
        [str(each) for each in found] if isinstance(found := said.get(key), list) else []
        for key in ("models", "refused", "silent")
    )
    known = {str(id): number for id, number in counts.items() if isinstance(number, int)}
    return Taken(action, models, known, refused, silent)


def _seen(snapshot: Snapshot) -> Seen:
    known = {full_name(each.name, each.version): each for each in rows(snapshot)}

    def why(name: str) -> str:
        row = known.get(name)
        return row.reason if row is not None and row.state == UNAVAILABLE else ""

    served = snapshots.served(snapshot)
    return Seen(
        hosts(snapshot),
        frozenset(name for name, row in known.items() if row.state == READY),
        frozenset(name for name, model in served.items() if model.get("workers")),
        why,
    )


def hosts(snapshot: Snapshot) -> dict[str, Hosted]:
    """Return what each host offers, by its id; read with care, since it came over a network."""
    broker = snapshot.get("broker")
    listed = broker.get("repository") if isinstance(broker, Mapping) else None
    found: dict[str, Hosted] = {}
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, Mapping) or not isinstance(each.get("offers"), list):
            continue
        orders = each.get("orders")
        count = orders if isinstance(orders, int) else 0
        # Brokers of before name a host by its place.
        id = str(each.get("id") or f"{each.get('host')}:{each.get('pid')}")
        if id in found and found[id].orders >= count:
            continue  # another broker knows it too, and later things of it
        offers = {(row[0], row[1]): (row[2], row[3]) for row in each["offers"] if _is_offer(row)}
        found[id] = Hosted(count, offers, not each.get("left_out"))
    return found


def _is_offer(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(isinstance(each, str) for each in row)


def rows(snapshot: Snapshot) -> list[Row]:
    """Return all models that hosts offer or workers serve, in the order of names and versions."""
    offered: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for host in hosts(snapshot).values():
        for key, each in host.offers.items():
            offered.setdefault(key, []).append(each)
    for name, model in snapshots.served(snapshot).items():
        if "alias" not in model and (served := _key(snapshot, name, model)) is not None:
            offered.setdefault(served, [])
    found = [_row(snapshot, *key, states) for key, states in offered.items()]
    return sorted(found, key=lambda each: (each.name, version_order(each.version)))


def _key(snapshot: Snapshot, name: str, model: snapshots.Model) -> tuple[str, str] | None:
    """Return name and version of what workers serve; None for a name that has only versions."""
    base, found, version = name.rpartition("@")
    if found and base in snapshots.served(snapshot):
        return base, version
    return (name, "") if model.get("workers") or not model.get("versions") else None


def _row(snapshot: Snapshot, name: str, version: str, states: list[tuple[str, str]]) -> Row:
    model = snapshots.served(snapshot).get(full_name(name, version), {})
    trouble = snapshots.trouble(model)
    if snapshots.is_ready(model):
        return Row(name, version, READY)
    by_state = dict(states)
    if LoadState.LOADED in by_state:
        return Row(name, version, LOADING, trouble or by_state[LoadState.LOADED])
    if LoadState.FAILED in by_state:
        return Row(name, version, UNAVAILABLE, trouble or by_state[LoadState.FAILED])
    if not states:
        return Row(name, version, UNAVAILABLE, trouble or "no worker is ready")
    state, reason = states[0]
    return Row(name, version, UNAVAILABLE, reason or state)
