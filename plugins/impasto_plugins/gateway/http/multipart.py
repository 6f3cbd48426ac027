"""multipart/form-data (RFC 7578), read as it arrives: never more in memory than a chunk and a delimiter.

The library ``multipart`` refuses white space behind a boundary and, in its strict mode, a preamble, which RFC 2046
allows; aiohttp's reader decodes transfer encodings and has no limits of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote

import attrs

MAX_BOUNDARY_BYTES = 70
"""Bytes; the standard's own limit."""

MAX_HEAD_BYTES = 8 * 1024
MAX_PADDING_BYTES = 1024
"""Bytes of white space behind a boundary."""

_BOUNDARY_TEXT = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r""";[ \t]*([^\s;="]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))""")
_EXTENDED_VALUE = re.compile(r"utf-8'[^']*'(.*)", re.IGNORECASE)
_PADDING = re.compile(rb"[ \t]*")
_PLAIN = ("7bit", "8bit", "binary")
_NOT_TEXT = ("image/", "audio/", "model/", "application/octet-stream")
_CHARSETS = {
    "": "utf-8",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
}
_CHARSET_FIELD = "_charset_"
"""The field that names the charset of the text fields after it (RFC 7578, 4.6)."""

_MAX_CHARSET_BYTES = 40
_IN_BROWSERS = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class InvalidForm(Exception):
    """The body is not a multipart form; the message gives the reason."""


@attrs.frozen
class PartHead:
    """A part's name and type. ``filename`` is None for a plain field, which is text in ``charset``."""

    name: str
    filename: str | None
    charset: str = "utf-8"


def parse_boundary(content_type: str) -> bytes:
    """Return the boundary in a multipart content type. Raises InvalidForm."""
    text = _parse_parameters(content_type, escaped=".").get("boundary", "")
    if len(text) > MAX_BOUNDARY_BYTES or _BOUNDARY_TEXT.fullmatch(text) is None:
        raise InvalidForm(f"the content type needs a boundary of 1 to {MAX_BOUNDARY_BYTES} allowed characters")
    return text.encode()


class FormReader:
    """The parts of a form in order: ``read_head()``, then ``read_body()`` to its end, and again until None.

    A ``_charset_`` field is read here: it is about the form, and no field of the request.
    """

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._has_begun = False
        self._charset: str | None = None
        """The charset that the form names for its text fields."""
        self._has_text = False
        """True if a text field was read whose part names no charset."""

    async def read_head(self) -> PartHead | None:
        """Return the next part's head; None at the end of the form. Raises InvalidForm."""
        buffer = self._buffer
        if not self._has_begun:
            self._has_begun = True
            async for _ in self.read_body():  # a preamble, which means nothing
                pass
        while len(buffer) < 2:
            await self._read_more()
        if buffer.startswith(b"--"):
            async for _ in self._chunks:  # an epilogue, which means nothing
                pass
            return None
        while (padding := _PADDING.match(buffer)) is not None and len(buffer) < padding.end() + 2:
            if len(buffer) > MAX_PADDING_BYTES:
                break
            await self._read_more()
        assert padding is not None  # noqa: S101 - it matches nothing too
        del buffer[: padding.end()]
        if not buffer.startswith(b"\r\n"):
            raise InvalidForm("a boundary must end its line")
        while (end := buffer.find(b"\r\n\r\n")) < 0 and len(buffer) <= MAX_HEAD_BYTES:
            await self._read_more()
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise InvalidForm(f"a part's headers have more than {MAX_HEAD_BYTES:,} bytes")
        lines = bytes(buffer[2:end])
        del buffer[: end + 4]
        head = _parse_head(lines)
        if head.filename is not None:
            return head
        if head.name == _CHARSET_FIELD:
            await self._read_charset()
            return await self.read_head()
        if head.charset:
            return head
        self._has_text = True
        return attrs.evolve(head, charset=self._charset or "utf-8")

    async def _read_charset(self) -> None:
        value = b""
        async for piece in self.read_body():
            value += piece
            if len(value) > _MAX_CHARSET_BYTES:
                break
        if (charset := _CHARSETS.get(value.decode("latin-1").strip(" \t").lower())) is None:
            raise _unknown_charset()
        if self._charset is not None:
            raise InvalidForm("_charset_ was given twice")
        if self._has_text and charset != "utf-8":
            raise InvalidForm("_charset_ must come before the form's text fields")
        self._charset = charset

    async def read_body(self) -> AsyncIterator[bytes]:
        """Yield the part's content in pieces. Raises InvalidForm if it is cut short."""
        buffer, delimiter = self._buffer, self._delimiter
        while (at := buffer.find(delimiter)) < 0:
            if (ready := len(buffer) - len(delimiter) + 1) > 0:
                piece = bytes(buffer[:ready])
                del buffer[:ready]
                yield piece
            await self._read_more()
        piece = bytes(buffer[:at])
        del buffer[: at + len(delimiter)]
        if piece:
            yield piece

    async def _read_more(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise InvalidForm("the body is cut short") from None


def _parse_head(lines: bytes) -> PartHead:
    text = lines.decode("utf-8", "replace")  # a file's name in another encoding means nothing here
    headers: dict[str, str] = {}
    for line in re.sub(r"\r\n(?=[ \t])", "", text).split("\r\n"):  # a header may go on in the next line
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or re.search("[\r\n\0]", line):
            raise InvalidForm("a part has a damaged header")
        if name.lower() in headers:
            raise InvalidForm("a part has a header twice")
        headers[name.lower()] = value.strip(" \t")
    kind = headers.get("content-type", "")
    if kind.lower().startswith("multipart/"):
        raise InvalidForm("a part is a multipart form itself")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN:
        raise InvalidForm("a part has a transfer encoding; send its bytes without one")
    disposition = headers.get("content-disposition", "")
    if disposition.partition(";")[0].strip().lower() != "form-data":
        raise InvalidForm("every part must be a form's field or file")
    parameters = _parse_parameters(disposition)
    if not parameters.get("name"):
        raise InvalidForm("every part must have a name")
    filename = parameters.get("filename", "" if kind.lower().startswith(_NOT_TEXT) else None)
    if (extended_filename := _EXTENDED_VALUE.fullmatch(parameters.get("filename*", ""))) is not None:
        filename = unquote(extended_filename[1], errors="replace")
    if filename is not None:
        return PartHead(_unescape_name(parameters["name"]), _unescape_name(filename))
    charset = _parse_parameters(kind).get("charset", "").lower()
    if charset and charset not in _CHARSETS:
        raise _unknown_charset()
    return PartHead(_unescape_name(parameters["name"]), None, _CHARSETS[charset] if charset else "")


def _unknown_charset() -> InvalidForm:
    return InvalidForm("a text field's charset must be utf-8, us-ascii, iso-8859-1 or windows-1252")


def _parse_parameters(header: str, *, escaped: str = r"""["\\]""") -> Mapping[str, str]:
    """Return a header's parameters with lower-case names. Raises InvalidForm for a duplicate.

    ``escaped``: a pattern of the characters that a backslash escapes. Browsers escape nothing else in a file's name.
    """
    parameters: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(header):
        if name.lower() in parameters:
            raise InvalidForm("a header has a parameter twice")
        parameters[name.lower()] = re.sub(rf"\\({escaped})", r"\1", quoted) or token.strip()
    return parameters


def _unescape_name(text: str) -> str:
    """Return a name without the escapes of the HTML standard."""
    return re.sub("%22|%0D|%0A", lambda match: _IN_BROWSERS[match[0]], text)
