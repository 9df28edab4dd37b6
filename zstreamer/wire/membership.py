"""Which brokers a client or worker has links to, when their addresses change while it runs.

    addresses are now these ─> new ones: a link each, connected like any other
                            └> missing ones: leaving; nothing new goes there, and the link is
                               dropped once nothing is open on it, or once it is lost

An empty list changes nothing: a name that cannot be resolved for a while is no reason to leave
brokers that answer. No socket, clock, thread or random source in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from zstreamer.wire.link import Link

L = TypeVar("L", bound="Link[Any]")


def update(links: list[L], addresses: Iterable[str], make: Callable[[str], L]) -> None:
    """Mark the links whose address is gone, and add one for each new address.

    Args:
        links: changed in place.
        addresses: where the brokers are now.
        make: returns a link that is down, for an address.
    """
    wanted = dict.fromkeys(addresses)
    if not wanted:
        return
    for link in links:
        link.leaving = link.address not in wanted
    known = {link.address for link in links}
    links.extend(make(address) for address in wanted if address not in known)


def awaited(links: Iterable[Link[Any]]) -> bool:
    """Whether a new address is tried for the first time, while others are being left.

    Work waits for it for that moment: nothing may answer any more where it would go instead.
    """
    new = [link for link in links if not (link.leaving or link.attempts or link.is_ready)]
    return bool(new) and any(link.leaving for link in links)


def remove(links: list[L], may_leave: Callable[[L], bool]) -> list[L]:
    """Take out and return the leaving links on which nothing is open any more."""
    gone = [link for link in links if link.leaving and may_leave(link)]
    for link in gone:
        links.remove(link)
    return gone
