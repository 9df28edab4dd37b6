"""Whose requests are answered: bearer tokens, and the pages that need none."""

from __future__ import annotations

from collections.abc import Callable, Collection

from zstreamer.keys.bearer import Caller, Callers
from zstreamer.web.api.problem import Refused
from zstreamer.web.api.steps import Request

REALM = ("www-authenticate", 'Bearer realm="zstreamer"')


class Guard:
    """Asks each request for a bearer token.

    Args:
        callers: returns whose tokens are good now.
        open_pages: paths that need none.
    """

    def __init__(self, callers: Callable[[], Callers], open_pages: Collection[str]) -> None:
        self._callers = callers
        self._open = frozenset(open_pages)

    def check(self, request: Request) -> Caller | None:
        """Return who asks, None for a page that is open to all.

        Raises:
            Refused: the request has no token, or one that is not good. It never says which part
                of a token was wrong, nor repeats it.
        """
        if request.path in self._open:
            return None
        header = request.header("authorization")
        caller = self._callers().of(header)
        if caller is not None:
            return caller
        if header is None:
            words = "this server asks for a key: send the header Authorization: Bearer TOKEN"
        else:
            words = (
                "the token of the Authorization header is not known: it was revoked, or is not "
                "whole; it must read: Bearer TOKEN"
            )
        raise Refused(401, words, [REALM])
