"""What a client's core asks of its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from zstreamer.client.link import Link
from zstreamer.wire.protocol import Frames


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a new connection for this link."""

    link: Link


@dataclass(frozen=True, slots=True)
class Close:
    """Close this link's connection."""

    link: Link


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message on this link's connection."""

    link: Link
    frames: Frames


Action: TypeAlias = Connect | Close | Send
