"""Why a broker cannot be reached, from what is at its address. Pure."""

from __future__ import annotations

from zstreamer.doctor.finding import Finding
from zstreamer.doctor.probe import Place, Step

_WORDS: dict[Step, tuple[str, str, str]] = {
    Step.NAME: (
        "name",
        "the broker's name has no address: {address}",
        "check the spelling, and the DNS or /etc/hosts of this machine",
    ),
    Step.ABSENT: (
        "absent",
        "nothing listens at {address}",
        "start the broker there, or check host and port; for other machines it needs --host",
    ),
    Step.NO_FILE: (
        "absent",
        "nothing listens at {address}: there is no such socket",
        "start the broker with that --client-address on this machine, or check the path",
    ),
    Step.NO_ROUTE: (
        "route",
        "there is no route to {address}",
        "check the address, this machine's network (ip route get …) and the firewalls between",
    ),
    Step.NO_ANSWER: (
        "route",
        "{address} does not answer",
        "check the address and the firewalls between: one that throws packets away looks like this",
    ),
    Step.DENIED: (
        "denied",
        "this program may not connect to {address}",
        "check the user and the permissions of the socket, or the firewall of this machine",
    ),
    Step.SILENT: (
        "stuck",
        "{address} accepts connections and says nothing",
        "look at the process there (ss -ltnp, ps): it is stopped (state T), stuck, or no broker",
    ),
    Step.HTTP: (
        "http-port",
        "{address} is an HTTP port, not the broker's port for clients",
        "use the port for clients, 7787 unless told otherwise; 7789 is for pages, 8000 a gateway",
    ),
    Step.OTHER: (
        "no-broker",
        "{address} is no broker: something else listens there",
        "check host and port",
    ),
    Step.CURVE: (
        "keys",
        "the broker at {address} wants keys",
        "give this client its keys, or ask whoever runs the broker for some",
    ),
}


def finding(place: Place, error: str) -> Finding:
    """Return why a broker could not be asked.

    Args:
        place: what is at its address.
        error: what the attempt to ask it ended with.
    """
    if place.step in _WORDS:
        code, title, advice = _WORDS[place.step]
        said = place.detail and place.step is not Step.CURVE
        evidence = f"the system said: {place.detail}" if said else error
        if place.step in (Step.HTTP, Step.OTHER):
            evidence = f"it greets with {place.detail!r}"
        return Finding(code, 100, title.format(address=place.address), evidence, advice)
    if "for workers" in error:
        return Finding(
            "worker-port",
            100,
            f"{place.address} is the broker's port for workers, not for clients: ports exchanged",
            f"it answers: {error}",
            "use the port for clients, 7787 unless told otherwise; 7788 is for workers",
        )
    return Finding(
        "no-answer",
        99,
        f"the broker at {place.address} does not say how it is",
        error,
        "look at its log and its CPU: it may be stuck, or of another version",
    )
