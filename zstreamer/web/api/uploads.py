"""Files as bodies: the model sees the bytes of each.

Content-Type: image/png (image/*, application/octet-stream)     the body is one item
Content-Type: multipart/form-data; boundary=…                   each file in it is an item
"""

from __future__ import annotations

import logging
from types import ModuleType

from zstreamer.errors import BadRequest
from zstreamer.web.api.limits import Limits
from zstreamer.web.api.problem import Refused

BYTES = "application/octet-stream"
FORM = "multipart/form-data"
IMAGES = "image/"

_quiet = logging.getLogger(f"{__name__}.parser")
_quiet.setLevel(
    logging.CRITICAL
)  # it warns of each bad form, and strangers send as many as they like

PART_HEADERS, HEADER_BYTES = 8, 4096
"""Headers of one part, and bytes of one of them; browsers send two short ones."""


def is_upload(content_type: str) -> bool:
    """Whether a body of this type, in lower case and without parameters, is files."""
    return content_type in (BYTES, FORM) or content_type.startswith(IMAGES)


def files(content_type: str, body: bytes, limits: Limits) -> list[object]:
    """Return the bytes of each file.

    Args:
        content_type: the whole header, of a type that `is_upload`.
        body: without its compression.
        limits: how many files there may be.

    Raises:
        BadRequest: it holds no file, or is not what its type says.
        Refused: it holds too many, or forms cannot be read here.
    """
    if content_type.partition(";")[0].strip().lower() != FORM:
        if not body:
            raise BadRequest("the body is empty; send the bytes of one file")
        return [body]
    found = _parts(content_type, body, limits.max_items)
    if not found:
        raise BadRequest("the form has no file; send at least one, as curl does with -F name=@FILE")
    return found


def _parts(content_type: str, body: bytes, most: int) -> list[object]:
    library = _library()
    form = _Form(library, most)
    try:
        boundary = library.parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequest(f"the Content-Type {content_type!r:.100} names no boundary")
        parser = library.MultipartParser(
            boundary,
            form.callbacks(),
            max_header_count=PART_HEADERS,
            max_header_size=HEADER_BYTES,
        )
        parser.logger = _quiet
        parser.write(body)
    except ValueError as error:  # the library's own errors are of this kind
        raise BadRequest(f"the body is not valid {FORM}: {error}") from None
    if not form.ended:
        raise BadRequest(f"the body is not valid {FORM}: it ends before its last boundary")
    return form.files


class _Form:
    """Gathers the parts of a form as a parser finds them."""

    def __init__(self, library: ModuleType, most: int) -> None:
        self.files: list[object] = []
        self.ended = False
        self._library = library
        self._most = most
        self._name = b""
        self._value = b""
        self._disposition = ""
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        if len(self.files) >= self._most:
            raise Refused(413, f"the form has more than {self._most} files; send fewer at a time")
        self._disposition, self._data = "", []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        options = self._library.parse_options_header(self._disposition)[1]
        if b"filename" not in options:
            name = options.get(b"name", b"").decode(errors="replace")
            raise BadRequest(
                f"the field {name!r:.100} of the form is no file: send files alone, each with a "
                "file name, as curl does with -F name=@FILE"
            )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        self.files.append(b"".join(self._data))

    def _end(self) -> None:
        self.ended = True


def _library() -> ModuleType:
    try:
        from python_multipart import multipart
    except ImportError:
        words = (
            f"{FORM} needs python-multipart where this server runs: pip install 'zstreamer[web]'"
        )
        raise Refused(501, words) from None
    return multipart
