"""The headers of a request, by name; those that came several times as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Field: TypeAlias = tuple[bytes, bytes]


class Headers(dict[bytes, bytes]):
    """A request's headers, by name in lower case."""

    __slots__ = ()

    @classmethod
    def of(cls, fields: Iterable[Field]) -> Headers:
        """Return the headers that a server passes on one by one."""
        headers = cls()
        again = []
        for name, value in fields:
            if name in headers:
                again.append((name, value))
            else:
                headers[name] = value
        headers.join(again)
        return headers

    def text(self, name: str) -> str | None:
        """Return the value of a header, None where there is none."""
        value = self.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def join(self, again: Iterable[Field]) -> None:
        """Put further values behind those that came first (RFC 9110, 5.2; 6265, 5.4)."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in again:
            found.setdefault(name, [self[name]]).append(value)
        for name, values in found.items():
            self[name] = (b"; " if name == b"cookie" else b", ").join(values)
