"""The requests of other projects' clients, read from requests/*.toml.

Each file has a client's exact requests: header lines, the order of its fields, its file names and content types.
``source`` is the package that was recorded on the wire, or the files and commits of its public repository. ``{key}``,
``{cat}`` and ``{mask}`` stand for the caller's key and two images.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import attrs

from tests.images import drawn

IMAGES = {"{cat}": drawn("PNG", size=(128, 128)), "{mask}": drawn("PNG", "LA", size=(128, 128))}


def _tuple(values: list[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class Settings:
    """Lines of the gateway's configuration beyond its list of models."""

    params: tuple[str, ...] = ()
    """Lines of ``litellm_params``."""
    general: tuple[str, ...] = ()
    """Lines of ``general_settings``."""
    serves: str = "stability/sd3.5-large"
    """The model behind the names of OpenAI's models."""


@attrs.frozen(kw_only=True)
class Request:
    """One request of a client, and what its user needs for it."""

    client: str
    call: str
    line: str
    headers: tuple[str, ...]
    type: str = ""
    body: str = ""
    chunked: bool = False
    reads: str = "b64_json"
    """The field that the client takes the image from."""
    params: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    general: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    serves: str = Settings().serves
    refused: str = ""
    """The ``param`` of the error that the default configuration gives."""
    lacks: str = ""
    """The field that the answer lacks with the default configuration."""

    @property
    def settings(self) -> Settings:
        """The configuration with which the request succeeds."""
        return Settings(self.params, self.general, self.serves)

    @property
    def default(self) -> Settings:
        """The default configuration, with the client's model in its list."""
        return Settings(serves=self.serves)

    @property
    def method(self) -> str:
        return self.line.split()[0]

    @property
    def path(self) -> str:
        return self.line.split()[1].partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return a header's value, or None."""
        for line in self.headers:
            each, _, value = line.partition(":")
            if each.lower() == name.lower():
                return value.strip()
        return None

    def to_wire(self, host: str, key: str) -> bytes:
        """Return the bytes that the client sends."""
        head = [f"{self.line} HTTP/1.1", f"Host: {host}", *self.headers]
        body = self._body()
        if self.type:
            head.append(f"Content-Type: {self.type}")
        if self.chunked:
            head.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (body[:99], body[99:])) + b"0\r\n\r\n"
        elif self.body:
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).replace("{key}", key).encode() + body

    def _body(self) -> bytes:
        body = self.body.encode()
        if self.type.startswith("multipart/"):
            body = body.replace(b"\n", b"\r\n")
            for name, image in IMAGES.items():
                body = body.replace(name.encode(), image)
        return body


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


def _read(path: Path) -> list[Request]:
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    common = _lines(table["headers"])
    return [
        Request(client=table["client"], **{**each, "headers": common + _lines(each.get("headers", ""))})
        for each in table["requests"]
    ]


REQUESTS = {path.stem: _read(path) for path in sorted(Path(__file__).with_name("requests").glob("*.toml"))}
"""The requests of each client, by the name of its file."""
