"""A third party's plugin with a resolver, tokens that expire and an emulator, and defects of it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

MODEL = "atelier/tempera"
POINTS: Mapping[str, Mapping[str, str]] = {
    "impasto.operations": {"atelier/*": "acme_tempera:find"},
    "impasto.emulators": {"atelier": "acme_tempera:serve"},
}

SOUND = r"""
import asyncio, itertools, re
from collections.abc import Mapping
from contextlib import asynccontextmanager
import attrs
from impasto import Account, InvalidRequest, Operation, Problem, Provider, WireRequest, hookimpl
from impasto.dialects import STATUSES, Refusals, Token, TokenCache, image_in_body, split_files
from impasto.fields import text
from impasto_plugins.images.completeness import is_complete

numbers = itertools.count()


async def fetch(account):
    return Token(f"token-{next(numbers)}", expires_in=3_600)


tokens = TokenCache(fetch)


@attrs.frozen(kw_only=True, eq=False)
class Atelier(Provider):
    @hookimpl
    async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
        return {"authorization": f"Bearer {await tokens.get(account, refused=refused)}"}


atelier = Atelier(name="atelier", base_url="https://atelier.example")
refusals = Refusals(STATUSES, message="message")
NAME = re.compile("atelier/([a-z]+(-[a-z]+)*)")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 300, required=True, role="prompt")


class Dialect:
    def transform_request(self, operation, request, account):
        if request.job is not None:
            raise InvalidRequest([Problem("id", "there are no jobs")])
        fields, _ = split_files(operation, request.params)
        return WireRequest(target=request.target, fields=fields, encoding="json")

    def classify_error(self, operation, response):
        return None if response.status == 200 and response.media_type == "image/png" else refusals(response)

    def normalize_response(self, operation, request, response):
        return image_in_body(response, is_complete)


def find(model):
    if (found := NAME.fullmatch(model)) is None:
        return None
    return Operation(
        id=model, title=found[1], params=Params, target=f"/v1/{found[1]}", provider=atelier, dialect=Dialect()
    )


async def answer(reader, writer):
    from tests.images import png
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(re.search(rb"content-length: ([0-9]+)", head.lower())[1]))
    status, kind, body = (200, "image/png", png(8, 8)) if b"prompt" in body else (400, "application/json", b"{}")
    writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n".encode())
    writer.write(b"connection: close\r\n\r\n" + body)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def serve():
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
"""

SUITE = """
import json, re
import impasto
from impasto.testing import Answer, OperationSuite, Refusal, Requirements
from tests.images import png


def refusal(status, error):
    answer = Answer(status=status, headers={"content-type": "application/json"}, body=b'{"message": "no"}')
    return Refusal(answer=answer, error=error)


class TestTempera(OperationSuite):
    model = "atelier/tempera"
    golden = None
    minimal = {"prompt": "a lighthouse"}
    endpoint = "https://atelier.example/v1/tempera"
    auth = {"header:authorization": re.compile("Bearer token-[0-9]+")}
    limits = {"prompt": (1, 300)}
    success = Answer(headers={"content-type": "image/png"}, body=png(8, 16))
    media_types = ("image/png",)
    reports = {}
    requirements = Requirements(filters=False)
    refusals = (
        refusal(400, impasto.BadRequest), refusal(401, impasto.Unauthorized), refusal(429, impasto.RateLimited),
    )

    def settings(self, url):
        return {"providers": {"atelier": {"api_base": url}}}

    def drop_in_settings(self, url):
        return {"api_base": url}
"""

FIRST_LINE = "golden = None"
"""The line of the suite that a defect may change."""
_OWN_TOKEN = """golden = None

    def client(self, url):
        own = {"api_base": url, "api_key": impasto.testing.KEY}
        return super().client(url).with_options(providers={"atelier": own})

    def prepare(self):
        super().prepare()
        type(self).auth = {"header:authorization": f"Bearer {impasto.testing.KEY}"}
"""

DEFECTS: Mapping[str, Defect] = {
    "a refused token is used again": Defect(
        changes={", refused=refused)": ")"},
        check="refused_token_is_replaced",
        says="a refused token is used again: pass refused on",
    ),
    "a token of its cache has another scheme, and a caller's own has not": Defect(
        changes={
            'return {"authorization": f"Bearer {': "if account.headers: return {}\n"
            '        return {"authorization": f"Token {',
            'base_url="https://atelier.example")': 'base_url="https://atelier.example", key_variable="ATELIER_KEY")',
            FIRST_LINE: _OWN_TOKEN,
        },
        check="refused_token_is_replaced",
        says="header:authorization with a token of the cache is not as in auth",
    ),
    "a refused token is used again, and a caller's own never": Defect(
        changes={
            'return {"authorization": f"Bearer {': "if account.headers: return {}\n"
            '        return {"authorization": f"Bearer {',
            ", refused=refused)": ")",
            'base_url="https://atelier.example")': 'base_url="https://atelier.example", key_variable="ATELIER_KEY")',
            FIRST_LINE: _OWN_TOKEN,
        },
        check="refused_token_is_replaced",
        says="a refused token is used again: pass refused on",
    ),
    "a token for ever": Defect(
        changes={"{await tokens.get(account, refused=refused)}": "token-1"},
        check="refused_token_is_replaced",
        says="a refused token is used again",
    ),
    "a resolver takes every name": Defect(
        changes={'"atelier/([a-z]+(-[a-z]+)*)"': '"atelier/(.*)"'},
        check="resolver_finds_models",
        says="the resolver takes 'atelier/no such model' for a model",
    ),
    "a resolver takes the beginning of a name": Defect(
        changes={"NAME.fullmatch": "NAME.match"},
        check="resolver_finds_models",
        says="for a model: compare the whole name",
    ),
    "a resolver asks the network": Defect(
        changes={"    if (found :=": "    import socket\n    socket.getaddrinfo('localhost', 80)\n    if (found :="},
        check="resolver_finds_models",
        says="the resolver must decide by the name alone: it looks up a host name",
    ),
    "an emulator takes everything": Defect(
        changes={'if b"prompt" in body': "if True"},
        check="emulator_behaves",
        says="the emulator answers HTTP 200 to a request without parameters",
    ),
}
