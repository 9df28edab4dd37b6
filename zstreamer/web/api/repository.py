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
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from zstreamer.errors import BadRequest, DeadlineExceeded, NoWorker
from zstreamer.setting import version_order
from zstreamer.web.api import bodies, options, v1, versions
from zstreamer.web.api import snapshot as snapshots
from zstreamer.web.api.bodies import JSON
from zstreamer.web.api.guard import REALM
from zstreamer.web.api.json import dumps, loads
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.snapshot import Snapshot
from zstreamer.web.api.steps import Request, Response, Step
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


class Hosted(NamedTuple):
    """What one host offers: its states by name and version, and how many orders it has taken."""

    orders: float
    offers: Mapping[tuple[str, str], tuple[str, str]]


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
        seconds = options.of(request, self._limits)[0]
        if request.header("x-request-timeout") is None:
            seconds = self._limits.max_timeout
        end = time.monotonic() + seconds
        judge = _loaded if action == "load" else _unloaded

        def then(said: Mapping[str, object]) -> Step:
            return _watch(exchange, asked.model, said, judge, end)

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


Judge = Callable[[Snapshot, list[str]], "list[Row] | None"]
"""Returns what there is to tell of some models once an order is done, None before."""


def _watch(
    exchange: Exchange, name: str, said: Mapping[str, object], judge: Judge, end: float
) -> Step:
    """Look again and again until hosts have done what they were told."""
    models, orders = said.get("models"), said.get("orders")
    wanted = [str(each) for each in models] if isinstance(models, list) else []
    taken = orders if isinstance(orders, Mapping) else {}

    def then(snapshot: Snapshot) -> Step:
        known = hosts(snapshot)
        # One that is older than the order shows what was before it.
        fresh = all(place not in known or known[place].orders >= n for place, n in taken.items())
        found = judge(snapshot, wanted) if fresh else None
        if found is not None:
            words = {"name": name, "models": [each.words() for each in found]}
            return Response(200, dumps(words), _HEADERS)
        if time.monotonic() >= end:
            names = ", ".join(wanted)
            raise DeadlineExceeded(f"not done yet, and it goes on: {names}; see {ROOT}index")
        return exchange.look(then, PAUSE, wait=PAUSE)

    return exchange.look(then, PAUSE, wait=PAUSE)


def _loaded(snapshot: Snapshot, names: list[str]) -> list[Row] | None:
    known = {full_name(each.name, each.version): each for each in rows(snapshot)}
    found = [known.get(name) for name in names]
    for name, row in zip(names, found, strict=True):
        if row is None or row.state == UNAVAILABLE:
            why = row.reason if row is not None else "its host has gone"
            raise NoWorker(f"model {name!r} could not be loaded: {why}", final=True)
    rows_found = [row for row in found if row is not None]
    return rows_found if all(row.state == READY for row in rows_found) else None


def _unloaded(snapshot: Snapshot, names: list[str]) -> list[Row] | None:
    runs = (LoadState.LOADED, LoadState.UNLOADING)
    for host in hosts(snapshot).values():
        for key, (state, _) in host.offers.items():
            if full_name(*key) in names and state in runs:
                return None
    return [each for each in rows(snapshot) if full_name(each.name, each.version) in names]


def hosts(snapshot: Snapshot) -> dict[str, Hosted]:
    """Return what each host offers, by its place; read with care, since it came over a network."""
    broker = snapshot.get("broker")
    listed = broker.get("repository") if isinstance(broker, Mapping) else None
    found: dict[str, Hosted] = {}
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, Mapping) or not isinstance(each.get("offers"), list):
            continue
        orders = each.get("orders")
        count = orders if isinstance(orders, int) else 0
        place = f"{each.get('host')}:{each.get('pid')}"
        if place in found and found[place].orders >= count:
            continue  # another broker knows it too, and later things of it
        offers = [row for row in each["offers"] if _is_offer(row)]
        found[place] = Hosted(count, {(row[0], row[1]): (row[2], row[3]) for row in offers})
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
        return Row(name, version, LOADING, trouble)
    if LoadState.FAILED in by_state:
        return Row(name, version, UNAVAILABLE, trouble or by_state[LoadState.FAILED])
    if not states:
        return Row(name, version, UNAVAILABLE, trouble or "no worker is ready")
    state, reason = states[0]
    return Row(name, version, UNAVAILABLE, reason or state)
