"""Looks at brokers over some seconds, and at an HTTP server's way of answering."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import zmq

import zstreamer
from zstreamer.client.status import fetch
from zstreamer.config import ClientConfig, addresses
from zstreamer.doctor import batches, machines, models, reach
from zstreamer.doctor.evidence import Broker, Sample
from zstreamer.doctor.finding import Finding, Report, report
from zstreamer.doctor.probe import Step, probe
from zstreamer.doctor.web import answers_in_pieces
from zstreamer.errors import BrokerUnreachable, ZStreamerError
from zstreamer.keys.credentials import Keys
from zstreamer.wire import protocol, transport

SECONDS = 3.0
"""Seconds that are looked at: batches of a second and bursts of callers show in them."""

EVERY = 0.25
"""Seconds between two snapshots."""

TIMEOUT = 3.0
"""Seconds that a broker may take to answer."""


def examine(
    address: str | Sequence[str] = ClientConfig().address,
    *,
    seconds: float = SECONDS,
    model: str | None = None,
    url: str | None = None,
    keys: Keys = None,
) -> Report:
    """Look at a running cluster for some seconds and say what is wrong with it, worst first.

    Args:
        address: client address of a broker, or of several.
        seconds: how long to look; at least a second is needed for what needs two looks.
        model: look at the load and the workers of this model only; None for all.
        url: a page of the web server in front, to see how it sends its answers.
        keys: as `zstreamer.Client` takes them.

    Raises:
        ConfigError: an address makes no sense.
    """
    places = addresses(address)
    with ThreadPoolExecutor(len(places) + 1) as pool:
        page = pool.submit(answers_in_pieces, url) if url else None
        looks = list(pool.map(lambda each: _look(each, seconds, keys), places))
        pieces = page.result() if page is not None else None
    findings = [each for each in looks if isinstance(each, Finding)]
    brokers = [each for each in looks if isinstance(each, Broker)]
    findings += machines.findings(brokers, zstreamer.__version__)
    looked = []
    for broker in brokers:
        for name, one in broker.models.items():
            if model in (None, name):
                findings += [*models.findings(one), *batches.findings(broker, one)]
                looked.append(
                    f"model {name} answered {one.rate('answered'):,.0f} items/s "
                    f"in batches of {one.mean_batch:.1f}"
                )
        if model is not None and model not in broker.models:
            findings.append(_unknown(broker, model))
    if pieces is not None:
        findings.append(pieces)
    return report(findings, f"looked for {seconds:g} s; {'; '.join(looked) or 'no items came'}")


def _unknown(broker: Broker, model: str) -> Finding:
    known = ", ".join(broker.models) or "none"
    return Finding(
        "unknown-model",
        93,
        f"the broker at {broker.address} knows no model {model}",
        f"it knows {known}",
        f"start a worker for it (zstreamer worker … --model {model}), or check the name",
        model,
    )


def _look(address: str, seconds: float, keys: Keys) -> Broker | Finding:
    """Take snapshots of one broker, or find out why there are none."""
    samples: list[Sample] = []
    try:
        if seconds:  # what workers say of themselves comes with the next look
            fetch(address, TIMEOUT, keys, look=True)
            time.sleep(EVERY)
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            begun = time.monotonic()
            snapshot = fetch(address, TIMEOUT, keys, look=True)
            samples.append(Sample(time.time(), time.monotonic() - begun, snapshot))
            time.sleep(max(0.0, min(EVERY, end - time.monotonic())))
    except ZStreamerError as error:
        place = probe(address)
        words = str(error)
        if place.step is Step.ZMTP and not samples:
            words = _greet(address) or words
        return reach.finding(place, words)
    return Broker(address, samples)


def _greet(address: str) -> str:
    """Say HELLO as a client; return why that is refused, empty where it is not."""
    hello = protocol.Hello(protocol.Role.CLIENT, 1, {})
    poller = zmq.Poller()
    try:
        connection = transport.Connection(address, transport.Options())
    except zmq.ZMQError as error:
        return str(error)
    connection.register(poller)
    end = time.monotonic() + TIMEOUT
    try:
        while (left := end - time.monotonic()) > 0:
            poller.poll(int(left * 1000) + 1)
            for event in connection.events():
                if event is transport.Event.DOWN:
                    return ""
                connection.send(protocol.hello(hello))
            for frames in connection.receive():
                message = protocol.decode(frames)
                if isinstance(message, protocol.Refuse):
                    return str(message.error[1])
                return ""
    except (BrokerUnreachable, protocol.ProtocolError) as error:
        return str(error)
    finally:
        connection.close()
    return ""
