"""HTTP/1.1 message framing (RFC 9112), checked before aiohttp's parser reads it.

aiohttp has two parsers, in C and in Python, which judge unusual framing differently: the gap that request smuggling
needs. Both get only input that they can't misread: whole heads in origin form, bodies of a checked length, and chunked
bodies without extensions and trailers, one chunk for each read. h11 would do the same at ten times the cost for each
head; httptools is the parser that aiohttp has in C.
"""

from __future__ import annotations

import re
from http import HTTPMethod

from impasto_plugins.gateway.errors import APIError

MAX_HEAD_BYTES = 32 * 1024
"""Bytes of a request's head, its first line included."""

MAX_LINE_BYTES = 8 * 1024 + 512
"""Bytes of a request's first line, or of a header field: a key of 8 KiB and its name fit."""

MAX_FIELDS = 128
"""Header fields of a request. aiohttp's two parsers count differently, so that both get a higher limit."""

MAX_CHUNK_LINE_BYTES = 4 * 1024
"""Bytes of a chunk's size and extensions, or of all trailers."""

MAX_EXTENSION_BYTES = 64 * 1024
"""Bytes of the extensions of one body. The standard asks for a limit: they are ignored, but have to be read."""

INVALID_HEAD = b"\0\r\n\r\n"
"""A head that both parsers refuse. It replaces one that is refused here, so that responses keep their order."""

_METHODS = {method.encode() for method in HTTPMethod} - {b"CONNECT"}
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIRST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n" % _TOKEN)
_MAYBE_METHOD = re.compile(_TOKEN)
_FIELD = re.compile(
    rb"\r\n(transfer-encoding|content-length|connection)([ \t]*):[ \t]*([^\r]*)"
)  # of a head in small letters
_HOST = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)
_ABSOLUTE = re.compile(
    rb"https?://((?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?)([/?].*)?", re.IGNORECASE
)
_LENGTH = re.compile(rb"0*([0-9]{1,18})")
_EXTENSIONS = rb"((?:[ \t]*;[\t -~\x80-\xff]*)?)"
_SIZE_LINE = re.compile(rb"0*([0-9A-Fa-f]{1,15})" + _EXTENSIONS + rb"\r\n")
_NEXT_SIZE_LINE = re.compile(rb"\r\n" + _SIZE_LINE.pattern)
_PART_OF_LINE = re.compile(rb"0*[0-9A-Fa-f]{0,15}" + _EXTENSIONS + rb"[ \t]*\r?")
_TRAILERS = re.compile(rb"(?:%b:[\t -~\x80-\xff]*\r\n)*\r\n" % _TOKEN)


class _InvalidBody(Exception):
    """A chunked body is damaged."""


class Framing:
    """One connection's requests, one after the other. ``feed`` returns the bytes for aiohttp's parser."""

    def __init__(self) -> None:
        self.failure: APIError | None = None
        """The refusal of a head that ``INVALID_HEAD`` replaced. Nothing is read after it."""
        self.is_body_damaged = False
        """True if the last body can't be read to its end. Nothing is read after it."""
        self.has_ended = False
        """True if further bytes are ignored, after either of these."""
        self.partial_head = b""
        """The beginning of a head that is not complete."""
        self._length = 0
        self._chunks: _ChunkDecoder | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, yield those for the parser, one request at a time: a parser that refuses one drops the rest."""
        chunks: list[bytes] = []
        while data and not self.has_ended:
            if self._length:
                chunk, data = data[: self._length], data[self._length :]
                self._length -= len(chunk)
            elif self._chunks is not None:
                chunk, data = self._take_chunks(self._chunks, data)
            else:
                chunk, data = self._take_head(data)
                chunks.append(chunk)
                continue
            if chunks:
                chunks[-1] += chunk
            else:
                chunks.append(chunk)
        return chunks

    def _take_chunks(self, chunks: _ChunkDecoder, data: bytes) -> tuple[bytes, bytes]:
        try:
            chunk, data = chunks.decode(data)
        except _InvalidBody:
            self.is_body_damaged = self.has_ended = True
            return b"", b""
        if chunks.is_complete:
            self._chunks = None
        return chunk, data

    def _take_head(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the next head, empty if it is incomplete, and the bytes after it.

        An unchanged head is returned together with the received part of its body, without a copy if nothing follows.
        """
        start = max(len(self.partial_head) - 3, 0)
        data = self.partial_head + data if self.partial_head else data.lstrip(b"\r\n")
        end = data.find(b"\r\n\r\n", start)
        head, self.partial_head = (data, data) if end < 0 else (data[: end + 4], b"")
        try:
            ends = head.count(b"\r\n")  # CR and LF must end lines together; the LF of the last CR may still come
            if not head.count(b"\n") == ends == head.count(b"\r") - head.endswith(b"\r") or b"\0" in head:
                raise invalid_http()
            if len(head) > MAX_HEAD_BYTES:
                raise invalid_http(f"the first line and the header fields have more than {MAX_HEAD_BYTES:,} bytes")
            if end >= 0:
                checked = self._check_head(head)
                if checked is not head or not self._length:
                    return checked, data[len(head) :]
                size = min(len(head) + self._length, len(data))
                self._length -= size - len(head)
                return data[:size], data[size:]
            if head and _MAYBE_METHOD.match(head) is None:
                raise invalid_http()
            return b"", b""
        except APIError as failure:
            self.failure, self.has_ended = failure, True
            return INVALID_HEAD, b""

    def _check_head(self, head: bytes) -> bytes:
        """Return the head with a path as its target, and read the framing of its body. Raises APIError."""
        if (line := _FIRST_LINE.match(head)) is None:
            raise invalid_http("the first line must be a method, a path and HTTP/1.1, with one space between them")
        if head.count(b"\r\n") - 2 > MAX_FIELDS or len(head) > MAX_LINE_BYTES:
            _check_sizes(head)
        method, target, major, minor = line.groups()
        if major != b"1":
            raise APIError(505, "the version must be HTTP/1.1 or HTTP/1.0", code="unsupported_http_version", close=True)
        if method not in _METHODS:
            message = f"the method must be one of {b', '.join(sorted(_METHODS)).decode()}"
            raise APIError(501, message, code="unsupported_method", close=True)
        head = self._read_fields(head, is_old=minor == b"0")
        if target.startswith(b"/") and minor in b"01":
            return head
        remainder = head[line.end() - 2 :]
        if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            host = b"\r\nHost: " + absolute[1]  # which counts, whatever the field says
            remainder = (
                _HOST.sub(lambda _: host, remainder, count=1)
                if _HOST.search(remainder) or minor != b"0"
                else host + remainder
            )
            target = absolute[2] or b"/"
            target = target if target.startswith(b"/") else b"/" + target
        elif not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
            raise invalid_http("the target must be a path that begins with /")
        return b"%b %b HTTP/1.%d%b" % (method, target, minor != b"0", remainder)

    def _read_fields(self, head: bytes, *, is_old: bool) -> bytes:
        """Return the head with plain framing. Raises APIError if the body's length is ambiguous."""
        has_length = False
        original = head
        for field in _FIELD.finditer(original.lower()):
            name, value, line = field[1], field[3].rstrip(b" \t"), original[field.start() : field.end()]
            if field[2]:  # RFC 9112, 5.1: to be refused. Only these fields are rewritten, aiohttp refuses the others
                raise invalid_http("there must be no white space between a field's name and its colon")
            if name == b"connection":
                if value != b"close" and b"close" in (option.strip(b" \t") for option in value.split(b",")):
                    head = head.replace(line, b"\r\nConnection: close", 1)  # it counts beside any other option
                continue
            if has_length:
                raise invalid_http("give either Content-Length or Transfer-Encoding, once")
            has_length = True
            if name == b"transfer-encoding":
                if value != b"chunked" or is_old:
                    raise invalid_http("Transfer-Encoding must be chunked, in HTTP/1.1")
                self._chunks = _ChunkDecoder()
                head = head.replace(line, b"\r\nTransfer-Encoding: chunked", 1)
            elif (length := _LENGTH.fullmatch(value)) is not None:
                self._length = int(length[1])
            else:
                raise invalid_http("Content-Length must be a whole number")
        return head


def _check_sizes(head: bytes) -> None:
    """Raise APIError if a head has too many fields, or one that is too long."""
    if (count := head.count(b"\r\n") - 2) > MAX_FIELDS:
        raise invalid_http(f"the request has {count} header fields; at most {MAX_FIELDS} are accepted")
    if max(map(len, head.split(b"\r\n"))) > MAX_LINE_BYTES:
        raise invalid_http(f"the first line or a header field has more than {MAX_LINE_BYTES:,} bytes")


class _ChunkDecoder:
    """A chunked body's content without its framing. Extensions and trailers are checked and dropped."""

    def __init__(self) -> None:
        self.is_complete = False
        self._line = b""
        self._size_line = _SIZE_LINE
        self._remaining = self._extension_bytes = 0
        self._in_trailers = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the content as one chunk, and the bytes after the body. Raises _InvalidBody."""
        data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        offset, end, remaining = 0, len(data), self._remaining
        while offset < end and not self._in_trailers:
            if remaining:
                pieces.append(data[offset : offset + remaining])
                offset, remaining = offset + len(pieces[-1]), remaining - len(pieces[-1])
            elif (line := self._size_line.match(data, offset)) is not None:
                offset, remaining = line.end(), int(line[1], 16)
                self._extension_bytes += len(line[2])
                if line.end() - line.start() > MAX_CHUNK_LINE_BYTES or self._extension_bytes > MAX_EXTENSION_BYTES:
                    raise _InvalidBody
                self._size_line, self._in_trailers = _NEXT_SIZE_LINE, not remaining
            else:
                self._line = data[offset:]
                offset = end
        self._remaining = remaining
        rest = self._read_trailers(data[offset:]) if self._in_trailers else b""
        if not self._is_valid_prefix():
            raise _InvalidBody
        content = b"".join(pieces)
        chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        return chunk + b"0\r\n\r\n" if self.is_complete else chunk, rest

    def _read_trailers(self, data: bytes) -> bytes:
        """Return the bytes after the trailers. Raises _InvalidBody."""
        end = 2 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 4
        if end < 4 and end != 2:
            self._line = data
            return b""
        if _TRAILERS.fullmatch(data[:end]) is None:
            raise _InvalidBody
        self.is_complete = True
        return data[end:]

    def _is_valid_prefix(self) -> bool:
        """Return True if an incomplete line may become a valid one."""
        line = self._line
        if not line:
            return True
        if self._in_trailers or len(line) > MAX_CHUNK_LINE_BYTES:
            return len(line) <= MAX_CHUNK_LINE_BYTES
        if self._size_line is _NEXT_SIZE_LINE:
            if not b"\r\n".startswith(line[:2]):
                return False
            line = line[2:]
        return _PART_OF_LINE.fullmatch(line) is not None


def invalid_http(problem: str = "the request is not valid HTTP/1.1") -> APIError:
    """Return the refusal of a request that can't be read."""
    return APIError(400, problem, code="invalid_http", close=True)


def describe_parse_error(message: str) -> str:
    """Return the reason for which aiohttp refused a head. Its own message may quote the request."""
    if message.startswith("Missing 'Host'"):
        return "HTTP/1.1 needs a Host field"
    if message.startswith("Duplicate"):
        return "a header field that may be given once was given twice"
    return "the request is not valid HTTP/1.1; each header field must be a name, a colon and a value in one line"
